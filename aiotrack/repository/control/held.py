"""Messages that wait for other executions: kept, looked at, claimed by one process, deleted.

A need is a row; it goes when its execution has succeeded, also if that is deleted later. A message
without needs may be sent. Nothing here depends on who hears of what: every question is asked of the
rows as they are, and may be asked again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.clock import to_datetime
from aiotrack.model import TaskStatus
from aiotrack.report import Report
from aiotrack.repository.columns import UtcDateTime
from aiotrack.repository.dialects import at_once
from aiotrack.repository.store import Repository

MOST_NEEDED: Final = 50_000
"""Executions that a process remembers to be waited for."""

PIECE: Final = 10_000
"""Messages that one look reads: 0.1 s on two cores. More are read in turns."""

FOUND: Final = 1000
"""Messages that one look finds."""

_WORDS: Final = {
    "postgresql": {
        "among": "= ANY (ARRAY(SELECT value FROM json_array_elements_text(CAST({} AS json))))",
        "each": "json_array_elements_text(CAST({} AS json))",
        "alone": "FOR UPDATE OF {} SKIP LOCKED",
        "after": "FOR UPDATE OF {}",
    },
    "sqlite": {
        "among": "IN (SELECT value FROM json_each({}))",
        "each": "json_each({})",
        "alone": "",
        "after": "",
    },
}

_HOLD: Final = """
INSERT INTO aiotrack_held (task_id, task_name, message, held_at) VALUES ($1, $2, $3, $4)
"""
_NEED: Final = """
INSERT INTO aiotrack_needs (task_id, needs) SELECT CAST($1 AS VARCHAR(255)), value FROM {each[$2]}
"""

_ENDED: Final = "(e.status IN ('SUCCESS', 'REVOKED') OR (e.status = 'FAILURE' AND NOT e.presumed))"
"""A presumed verdict is none: the worker may still tell better."""

_STATES: Final = """
SELECT task_id, task_name, status, presumed, runs, error, error_type FROM aiotrack_executions
WHERE task_id {among[:ids]}
"""

_NEEDED: Final = f"""
SELECT DISTINCT needs FROM (
    SELECT n.needs FROM aiotrack_needs n JOIN aiotrack_held h ON h.task_id = n.task_id
    WHERE h.task_name {{among[:names]}} LIMIT {MOST_NEEDED}
) found
"""

_DEPENDANTS: Final = """
SELECT DISTINCT n.task_id FROM aiotrack_needs n JOIN aiotrack_held h ON h.task_id = n.task_id
WHERE n.needs {among[:ids]} AND h.task_name {among[:names]}
"""

_FREE: Final = """
(h.claimed_at IS NULL OR h.claimed_at < {before})
AND NOT EXISTS (SELECT 1 FROM aiotrack_needs n WHERE n.task_id = h.task_id)
"""

_LAST: Final = f"""
SELECT max(task_id), count(*) FROM (
    SELECT task_id FROM aiotrack_held WHERE task_id > :after ORDER BY task_id LIMIT {PIECE}
) piece
"""

_RIPE: Final = f"""
SELECT n.task_id FROM aiotrack_needs n JOIN aiotrack_held h ON h.task_id = n.task_id
WHERE n.task_id > :after AND n.task_id <= :last AND h.task_name {{among[:names]}} AND COALESCE(
    (SELECT {_ENDED} FROM aiotrack_executions e WHERE e.task_id = n.needs), TRUE
)
UNION
SELECT h.task_id FROM aiotrack_held h
WHERE h.task_id > :after AND h.task_id <= :last AND h.task_name {{among[:names]}} AND (
    ({_FREE.format(before=":before")}) OR COALESCE((
        SELECT e.runs > 0 OR (e.status <> 'PENDING' AND NOT e.presumed)
        FROM aiotrack_executions e WHERE e.task_id = h.task_id
    ), TRUE)
) LIMIT {FOUND}
"""
"""Execution by execution, by their index: a join might read all of them."""

_MEET: Final = """
DELETE FROM aiotrack_needs WHERE (task_id, needs) IN (
    SELECT n.task_id, n.needs FROM aiotrack_needs n
    JOIN aiotrack_executions e ON e.task_id = n.needs AND e.status = 'SUCCESS'
    WHERE n.task_id {among[$1]} ORDER BY n.task_id, n.needs {alone[n]}
) RETURNING task_id
"""
"""In one order, and past what another process deletes right now: two never wait for each other."""

_BROKEN: Final = f"""
SELECT n.task_id, n.needs, e.task_name, e.status, e.error, e.error_type
FROM aiotrack_needs n LEFT JOIN aiotrack_executions e ON e.task_id = n.needs
WHERE n.task_id {{among[:ids]}} AND (e.task_id IS NULL OR ({_ENDED} AND e.status <> 'SUCCESS'))
ORDER BY n.task_id, n.needs
"""

_CLAIM: Final = f"""
UPDATE aiotrack_held SET claimed_at = $1 WHERE task_id IN (
    SELECT h.task_id FROM aiotrack_held h
    WHERE h.task_id {{among[$2]}} AND {_FREE.format(before="$3")} AND EXISTS (
        SELECT 1 FROM aiotrack_executions e WHERE e.task_id = h.task_id
        AND e.runs = 0 AND (e.status = 'PENDING' OR e.presumed)
    ) ORDER BY h.task_id {{alone[h]}}
) RETURNING task_id, message
"""
"""Not what has failed or was cancelled by now: its needs go before its message does."""
_DROP_NEEDS: Final = """
DELETE FROM aiotrack_needs WHERE (task_id, needs) IN (
    SELECT n.task_id, n.needs FROM aiotrack_needs n
    WHERE n.task_id {among[$1]} ORDER BY n.task_id, n.needs {after[n]}
) RETURNING task_id
"""
_DROP_HELD: Final = """
DELETE FROM aiotrack_held WHERE task_id IN (
    SELECT h.task_id FROM aiotrack_held h
    WHERE h.task_id {among[$1]} ORDER BY h.task_id {after[h]}
) RETURNING task_id
"""
"""After whoever looks at a row right now: one that was sent and stays would be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How an execution stands."""

    task_id: str
    task_name: str
    status: TaskStatus
    presumed: bool
    runs: int
    error: str | None
    error_type: str | None

    @property
    def is_over(self) -> bool:
        """Whether its end is sure: not a presumed one."""
        return self.status.is_final and not self.presumed


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A need that cannot be met any more; ``status`` is None of one that was deleted."""

    task_id: str
    needs: str
    task_name: str | None
    status: TaskStatus | None
    error: str | None
    error_type: str | None


class Held:
    """The held messages of a repository. All verbs raise `StoreUnavailable`.

    Args:
        repository: Of the running loop.
        names: The tasks that this process can send, as they are stored: it sees no others.
    """

    def __init__(self, repository: Repository, names: Collection[str]) -> None:
        self._repository = repository
        self._names = json.dumps(sorted(names))
        self._is_sqlite = repository.dialect == "sqlite"

    async def hold(self, report: Report, message: str, needs: Iterable[str]) -> None:
        """Keep a message, what it needs, and the record that it waits: all or nothing.

        Args:
            report: Of its send, plain.
            message: JSON.
            needs: Executions; at least one.
        """
        origin = report.origin
        at = self._moment(origin.created_at)
        held = (_HOLD, (origin.task_id, origin.task_name, message, at))
        need = (self._put(_NEED), (origin.task_id, json.dumps(sorted(set(needs)))))
        await self._repository.send_with(report, [held, need])

    async def states(self, task_ids: Iterable[str]) -> dict[str, State]:
        """Give how executions stand, by task_id; those that nobody knows are missing."""
        rows = await self._read(_STATES, ids=json.dumps(sorted(set(task_ids))))
        return {
            row[0]: State(
                task_id=row[0],
                task_name=row[1],
                status=TaskStatus(row[2]),
                presumed=bool(row[3]),
                runs=row[4],
                error=row[5],
                error_type=row[6],
            )
            for row in rows
        }

    async def needed(self) -> set[str]:
        """Give the executions that are waited for."""
        return {row[0] for row in await self._read(_NEEDED, names=self._names)}

    async def dependants(self, task_ids: Iterable[str]) -> list[str]:
        """Give what waits for any of some executions."""
        ids = json.dumps(sorted(set(task_ids)))
        return [row[0] for row in await self._read(_DEPENDANTS, ids=ids, names=self._names)]

    async def ripe(self, *, after: str, before: int) -> tuple[list[str], str]:
        """Give what there is something to do about, at most `FOUND`, of a piece of all.

        Args:
            after: Where the piece before ended; empty for the first.
            before: A claim from before this moment, in microseconds, was given up.

        Returns:
            Task_ids, and where this piece ends; empty if it was the last one.
        """
        ((last, count),) = await self._read(_LAST, after=after)
        if not count:
            return [], ""
        values = {"after": after, "last": last, "before": to_datetime(before)}
        found = [row[0] for row in await self._read(_RIPE, names=self._names, **values)]
        if len(found) == FOUND:
            return found, after  # there may be more in it
        return found, last if count == PIECE else ""

    async def meet(self, task_ids: Sequence[str]) -> None:
        """Forget what some messages needed and that has succeeded."""
        await self._write(_MEET, json.dumps(list(task_ids)))

    async def broken(self, task_ids: Sequence[str]) -> dict[str, Broken]:
        """Give the first need of each message that cannot be met any more."""
        found: dict[str, Broken] = {}
        for row in await self._read(_BROKEN, ids=json.dumps(list(task_ids))):
            status = None if row[3] is None else TaskStatus(row[3])
            one = Broken(
                task_id=row[0],
                needs=row[1],
                task_name=row[2],
                status=status,
                error=row[4],
                error_type=row[5],
            )
            found.setdefault(one.task_id, one)
        return found

    async def claim(self, task_ids: Sequence[str], *, now: int, before: int) -> dict[str, str]:
        """Take those messages that may be sent and that nobody else sends; by one statement.

        Args:
            task_ids: Which.
            now: The database's time, in microseconds.
            before: A claim from before this moment was given up.

        Returns:
            What is to be sent, by task_id.
        """
        values = (self._moment(now), json.dumps(list(task_ids)), self._moment(before))
        return {row[0]: row[1] for row in await self._write(_CLAIM, *values)}

    async def drop(self, task_ids: Iterable[str]) -> None:
        """Forget messages that were sent, or never will be."""
        ids = json.dumps(list(task_ids))
        await self._write(_DROP_NEEDS, ids)  # first: needs without their message would stay
        await self._write(_DROP_HELD, ids)

    def _moment(self, at: int) -> Any:
        return at if self._is_sqlite else to_datetime(at)

    def _put(self, words: str) -> str:
        """Put a statement together in the words of the database."""
        own = _WORDS[self._repository.dialect]
        return words.format(**{name: _Places(told) for name, told in own.items()})

    async def _write(self, words: str, *values: Any) -> Sequence[Any]:
        return await self._repository.execute(self._put(words), values)

    async def _read(self, words: str, **values: Any) -> Sequence[Any]:
        query = text(self._put(words))
        if "before" in values:
            query = query.bindparams(bindparam("before", type_=UtcDateTime))

        async def work(connection: AsyncConnection) -> Sequence[Any]:
            await at_once(connection)
            return (await connection.execute(query, values)).all()

        return await self._repository.ask(work, only_reads=True)


class _Places:
    """Lets a template say what some words are about: ``{among[:ids]}``."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __getitem__(self, name: str) -> str:
        return self._words.format(name)
