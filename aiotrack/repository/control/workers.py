"""The registry of workers: who beats, who does not any more, and what those left unfinished.

Every time here is the database's own, so that hosts whose clocks differ agree who is lost.
"""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine

from aiotrack.classes import LOST
from aiotrack.clock import Clock
from aiotrack.model import Worker, WorkerStatus
from aiotrack.repository.control.tables import WorkerRow
from aiotrack.repository.dialects import at_once
from aiotrack.repository.store import Repository
from aiotrack.repository.tables import ExecutionRow

if TYPE_CHECKING:
    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

MISSED: Final = 3
"""Beats without a sign of life after which a worker is lost."""

LATE: Final = 1.5
"""Beats between two of one worker that are too far apart: its database may have been away."""

STOPPED_FOR: Final = 60
"""Seconds after a farewell in which the last reports of a worker may still come."""

KEPT: Final = 86_400
"""Seconds that the row of a worker is kept after its last beat."""

SETTLED: Final = 60
"""Seconds that workers must have been there, and a record, before it is said that none knows its
task: a deployment starts them one after the other."""

Place = tuple[datetime, int]
"""``created_at`` and ``id`` of an execution."""

_workers = WorkerRow.__table__
_executions = ExecutionRow.__table__

_LOST: Final = "(stopped_at IS NULL AND beat_at < {lost})"

_REGISTER: Final = """
INSERT INTO aiotrack_workers AS t (id, host, pid, started_at, beat_at, beating_since, beat_seconds,
    queues, tasks, concurrency, versions, running, memory, cpu)
VALUES ($1, $2, $3, {now}, {now}, {now}, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (id) DO UPDATE SET beat_at = {now}, beat_seconds = excluded.beat_seconds,
    beating_since = CASE WHEN t.beat_at < {late_t} THEN {now} ELSE t.beating_since END,
    stopped_at = NULL, closed_at = NULL, queues = excluded.queues, tasks = excluded.tasks,
    concurrency = excluded.concurrency, versions = excluded.versions, running = excluded.running,
    memory = excluded.memory, cpu = excluded.cpu
RETURNING id
"""

_BEAT: Final = """
UPDATE aiotrack_workers SET beat_at = {now}, stopped_at = NULL, closed_at = NULL,
    beating_since = CASE WHEN beat_at < {late} THEN {now} ELSE beating_since END,
    running = $1, memory = $2, cpu = $3
WHERE id = $4 RETURNING id
"""

_FAREWELL: Final = """
UPDATE aiotrack_workers SET beat_at = {now}, stopped_at = {now}, running = $1
WHERE id = $2 RETURNING id
"""

_TAKE_TURN: Final = """
UPDATE aiotrack_workers SET swept_at = {now}
WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM aiotrack_workers WHERE swept_at > {turn})
RETURNING id
"""
"""Two that ask at once may both get it: what they do is decided again under each row's lock."""

_GONE: Final = """
SELECT id, stopped_at IS NOT NULL, closed_at IS NULL, beat_at >= {recent} FROM aiotrack_workers t
WHERE ({lost_condition} OR stopped_at < {stopped})
"""

_PROVEN: Final = """
AND (closed_at IS NULL OR beat_at < {kept})
AND EXISTS (SELECT 1 FROM aiotrack_workers w WHERE w.stopped_at IS NULL
    AND w.beat_at >= {lost_w} AND w.beating_since <= {lost_t})
"""
"""Somebody beat all the while they were silent: the database was there, they were not."""

_CLOSE: Final = """
UPDATE aiotrack_workers SET closed_at = {now} WHERE id = $1 AND closed_at IS NULL
    AND ({lost_condition} OR stopped_at < {stopped}) RETURNING id
"""

_FORGET: Final = """
DELETE FROM aiotrack_workers WHERE closed_at IS NOT NULL AND beat_at < {kept}
    AND ({lost_condition} OR stopped_at < {stopped}) RETURNING id
"""

_LIVE: Final = """
SELECT queues, tasks, beating_since <= {settled} FROM aiotrack_workers
WHERE stopped_at IS NULL AND beat_at >= {lost}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a worker tells once, and again when it changed."""

    id: str
    host: str
    pid: int
    beat_seconds: float
    queues: Sequence[str]
    tasks: Mapping[str, bool]
    concurrency: int | None
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a worker tells with every beat."""

    running: Sequence[str]
    memory: int | None
    cpu: float | None


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker that works no more."""

    is_stopped: bool
    """It said farewell; otherwise it is lost."""
    is_open: bool
    """Nobody looked yet whether it left anything."""
    is_recent: bool
    """It has not been lost for long."""


@dataclass(frozen=True, slots=True)
class Live:
    """A worker that beats: the queues it listens to, the tasks it knows, and if it is new."""

    queues: frozenset[str]
    tasks: Mapping[str, bool]
    is_settled: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """An execution that may be unfinished for ever, as it was a moment ago."""

    task_id: str
    task_name: str
    queue: str | None
    created_at: datetime
    id: int

    @property
    def place(self) -> Place:
        """Where it stands in the order of age."""
        return (self.created_at, self.id)


_CANDIDATE: Final = ("task_id", "task_name", "queue", "created_at", "id")


def twin(repository: Repository) -> Repository:
    """Give a repository on the same database for another event loop.

    It makes connections of its own as the first one does; whoever uses it disposes its engine.
    """
    engine = repository.engine
    again = create_async_engine(engine.url, pool=engine.sync_engine.pool.recreate())
    return Repository(again, clock=Clock())


class Registry:
    """The workers of a repository. All verbs raise `StoreUnavailable`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def register(self, worker: Described, beat: Beat) -> None:
        """Tell all of a worker, by one statement."""
        values = (
            *(worker.id, worker.host, worker.pid, worker.beat_seconds),
            *(json.dumps(list(worker.queues)), json.dumps(dict(worker.tasks))),
            *(worker.concurrency, json.dumps(dict(worker.versions))),
            *(json.dumps(list(beat.running)), beat.memory, beat.cpu),
        )
        await self._run(_REGISTER, values)

    async def beat(self, worker_id: str, beat: Beat) -> bool:
        """Tell that a worker lives, by one statement; False: nobody knows it any more."""
        values = (json.dumps(list(beat.running)), beat.memory, beat.cpu, worker_id)
        return bool(await self._run(_BEAT, values))

    async def farewell(self, worker_id: str) -> None:
        """Tell that a worker stops."""
        await self._run(_FAREWELL, ("[]", worker_id))

    async def take_turn(self, worker_id: str, period: float) -> bool:
        """Tell whether nobody looked after the lost ones for *period* seconds: then it is ours."""
        return bool(await self._run(_TAKE_TURN, (worker_id,), turn=period))

    async def close(self, worker_id: str) -> None:
        """Remember that nothing is left of a worker that is gone; not of one that came back."""
        await self._run(_CLOSE, (worker_id,))

    async def forget_old(self) -> None:
        """Delete workers that were gone for a day and left nothing."""
        await self._run(_FORGET, ())

    async def list(self) -> list[Worker]:
        """Give all, those that beat first, each by its start."""
        lost = f"beat_at < {self._words(0.0)['lost']}"
        query = select(_workers, text(f"{lost} AS is_lost"))

        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            await at_once(connection)
            return (await connection.execute(query)).mappings().all()

        found = [_worker(row) for row in await self._repository.ask(work)]
        order = list(WorkerStatus)
        return sorted(found, key=lambda one: (order.index(one.status), one.started_at, one.id))

    async def gone(self, *, is_proven: bool) -> dict[str, Gone]:
        """Give the workers that are lost, or stopped a while ago, by their ids.

        Args:
            is_proven: Only those of whom somebody saw that they missed their beats, and who are not
                closed; of the closed ones those who are about to be deleted.
        """
        found = await self._read(_GONE + (_PROVEN if is_proven else ""))
        return {row[0]: Gone(*map(bool, row[1:])) for row in found}

    async def lost_among(self, worker_ids: Iterable[str]) -> set[str]:
        """Give those of some workers that are lost."""
        wanted = set(worker_ids)
        if not wanted:
            return set()
        found = await self._read("SELECT id FROM aiotrack_workers WHERE {lost_condition}")
        return {row[0] for row in found} & wanted

    async def live(self) -> builtins.list[Live]:
        """Give the workers that beat."""
        found = await self._read(_LIVE)
        return [
            Live(frozenset(_json(row[0])), _json(row[1]), is_settled=bool(row[2])) for row in found
        ]

    async def started_by(
        self, worker_ids: Sequence[str], *, after: Place | None = None, limit: int
    ) -> builtins.list[Candidate]:
        """Give executions that some workers run, as their records say, the oldest first.

        The index on the status leads: those that run are few, those that a worker ever ran many.

        Args:
            worker_ids: Of whom.
            after: `Candidate.place` of the last one before.
            limit: How many.
        """
        ours = _executions.c.worker.concat("").in_(worker_ids)
        return await self._unfinished("STARTED", ours, after, limit)

    async def unsent(
        self, mark: str, *, after: Place | None = None, limit: int
    ) -> builtins.list[Candidate]:
        """Give queued executions that somebody began to send again; as `started_by`.

        Their type of error is *mark*. What waits has no worker: its last run knows it.
        """
        columns = _executions.c
        marked = (columns.error_class == LOST) & (columns.error_type == mark)
        return await self._unfinished("PENDING", marked, after, limit)

    async def waiting(self, *, after: Place | None = None, limit: int) -> builtins.list[Candidate]:
        """Give queued executions that are not quite new, the oldest first; as `started_by`."""
        settled = text(
            f"aiotrack_executions.created_at < {self._words(0.0)['settled']} AND NOT EXISTS "
            "(SELECT 1 FROM aiotrack_held h WHERE h.task_id = aiotrack_executions.task_id)"
        )
        return await self._unfinished("PENDING", settled, after, limit)

    async def _unfinished(
        self, status: str, condition: Any, after: Place | None, limit: int
    ) -> builtins.list[Candidate]:
        columns = _executions.c
        query = select(*(columns[name] for name in _CANDIDATE)).where(
            columns.status == status, condition
        )
        if after is not None:
            created_at, last = after
            later = (columns.created_at > created_at) | (columns.id > last)
            query = query.where(columns.created_at >= created_at, later)
        query = query.order_by(columns.created_at, columns.id).limit(limit)

        async def work(connection: AsyncConnection) -> Sequence[Any]:
            await at_once(connection)
            return (await connection.execute(query)).all()

        return [Candidate(*row) for row in await self._repository.ask(work)]

    async def _read(self, words: str) -> Sequence[Any]:
        query = text(words.format_map(self._words(0.0)))

        async def work(connection: AsyncConnection) -> Sequence[Any]:
            await at_once(connection)
            return (await connection.execute(query)).all()

        return await self._repository.ask(work)

    async def _run(self, words: str, values: Sequence[Any], turn: float = 0.0) -> Sequence[Any]:
        statement = words.format_map(self._words(turn))
        return await self._repository.execute(statement, values)

    def _words(self, turn: float) -> dict[str, str]:
        """Give what the statements above say of time, in the words of the database."""
        if self._repository.dialect == "sqlite":  # the file is on this host: so is its clock
            now = str(time.time_ns() // 1000)

            def ago(seconds: str) -> str:
                return f"({now} - 1000000 * {seconds})"
        else:
            now = "statement_timestamp()"  # not clock_timestamp(): an index serves no volatile time

            def ago(seconds: str) -> str:
                return f"(statement_timestamp() - make_interval(secs => {seconds}))"

        lost = ago(f"({MISSED} * beat_seconds)")
        return {
            "now": now,
            "late": ago(f"({LATE} * beat_seconds)"),
            "late_t": ago(f"({LATE} * t.beat_seconds)"),
            "lost": lost,
            "lost_t": ago(f"({MISSED} * t.beat_seconds)"),
            "lost_w": ago(f"({MISSED} * w.beat_seconds)"),
            "lost_condition": _LOST.format(lost=lost),
            "recent": ago(f"({MISSED} * beat_seconds + {SETTLED})"),
            "stopped": ago(str(STOPPED_FOR)),
            "settled": ago(str(SETTLED)),
            "kept": ago(str(KEPT)),
            "turn": ago(repr(turn)),
        }


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _worker(row: RowMapping) -> Worker:
    if row["stopped_at"] is not None:
        status = WorkerStatus.STOPPED
    else:
        status = WorkerStatus.LOST if row["is_lost"] else WorkerStatus.ALIVE
    return Worker(
        status=status,
        running=len(row["running"]),
        **{
            name: row[name]
            for name in (
                *("id", "host", "pid", "started_at", "beat_at", "stopped_at", "queues", "tasks"),
                *("concurrency", "memory", "cpu", "versions"),
            )
        },
    )
