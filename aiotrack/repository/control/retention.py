"""Old executions: found in bounded pieces, deleted in bounded batches with all that is theirs.

What was read is decided again by the DELETE itself: an execution that began or ended anew meanwhile
stays. One that comes back later, by a report that is older than all of this, is a record again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Float, Text, bindparam, text

from aiotrack.clock import to_datetime, to_micros
from aiotrack.repository.columns import UtcDateTime
from aiotrack.repository.control.workers import MISSED
from aiotrack.repository.statistics import gone, live
from aiotrack.repository.transaction import transaction
from aiotrack.settings import USER

if TYPE_CHECKING:
    from sqlalchemy import TextClause
    from sqlalchemy.ext.asyncio import AsyncConnection

    from aiotrack.repository.store import Repository

CHILDREN: Final = ("attempts", "logs", "checkpoints", "cancels", "held", "needs")
"""Tables whose rows go with their execution."""

ALWAYS: Final = 1e9
"""Days that no setting reaches."""

_WORDS: Final = {
    "postgresql": {
        "ages": ":now - s.value * interval '1 day'",
        "lost": f"statement_timestamp() - w.beat_seconds * interval '{MISSED} seconds'",
        # As an array, for a list of unknown length is joined by reading the whole table.
        "among_ids": "= ANY (ARRAY(SELECT value::bigint FROM "
        "json_array_elements_text(CAST(:ids AS json))))",
        "among_texts": "= ANY (ARRAY(SELECT value FROM "
        "json_array_elements_text(CAST(:texts AS json))))",
    },
    "sqlite": {
        "ages": ":now - s.value * 86400000000",
        "lost": f":now - w.beat_seconds * {MISSED} * 1000000",
        "among_ids": "IN (SELECT value FROM json_each(:ids))",
        "among_texts": "IN (SELECT value FROM json_each(:texts))",
    },
}

_OLDEST: Final = """
SELECT p.id, p.created_at, p.moment, s.value AS days
FROM (
    SELECT id, created_at, created_by, {moment} AS moment FROM aiotrack_executions
    WHERE status IN ({statuses}) AND {moment} <= :until
        AND {moment} >= :since AND ({moment} > :since OR id > :after)
        AND (worker IS NULL OR NOT worker {among_texts})
    ORDER BY {moment}, id LIMIT :size
) p
LEFT JOIN aiotrack_settings s
    ON s.scope = '{user}' AND s.key = 'retention_days' AND s.owner = p.created_by
ORDER BY p.moment, p.id
"""
"""A piece is as large as its limit, whatever it holds, and says what the creator of each wants."""

_WHOSE: Final = """
WHERE s.scope = '{user}' AND s.key = 'retention_days' AND s.value >= 0 AND s.value < :general
"""
_THEIRS: Final = """
e.created_by = s.owner AND e.created_at <= {ages} AND e.{moment} <= {ages}
AND e.status IN ({statuses}) AND (e.worker IS NULL OR NOT e.worker {among_texts})
"""
_SOONER: Final = {
    # For each of them by the index of created_by, however many rows a plan expects.
    "postgresql": f"""
SELECT e.id, e.created_at, e.moment, s.value AS days
FROM aiotrack_settings s CROSS JOIN LATERAL (
    SELECT e.id, e.created_at, e.{{moment}} AS moment FROM aiotrack_executions e
    WHERE {_THEIRS} LIMIT :size
) e {_WHOSE} LIMIT :size
""",
    "sqlite": f"""
SELECT e.id, e.created_at, e.{{moment}} AS moment, s.value AS days
FROM aiotrack_settings s JOIN aiotrack_executions e ON {_THEIRS} {_WHOSE} LIMIT :size
""",
}
"""Records of those who want them to go before all others."""

_STILL: Final = (
    "WHERE id {among_ids} AND status IN ({statuses}) AND {moment} <= :latest AND {unclaimed}"
)
_UNCLAIMED: Final = """
NOT EXISTS (SELECT 1 FROM aiotrack_workers w WHERE w.id = aiotrack_executions.worker
    AND w.stopped_at IS NULL AND w.beat_at > {lost})
"""
"""Of what did not end: a living worker may have taken it, or begun to beat, since it was read."""

_LOCK: Final = f"""
SELECT id, task_id, {{is_kept}} FROM aiotrack_executions {_STILL}
ORDER BY task_id FOR UPDATE SKIP LOCKED
"""
"""Whom somebody writes to right now stays. The commit waits for the disk, although a crash would do
no harm: what has gathered for a later flush makes a recorder's commit wait for all of it."""

_ALL_AT_ONCE: Final = (
    "WITH "
    + ", ".join(
        f"gone_{name} AS (DELETE FROM aiotrack_{name} WHERE task_id {{among_texts}} RETURNING 1)"
        for name in CHILDREN
    )
    + ", gone AS (DELETE FROM aiotrack_executions WHERE id {among_ids} RETURNING 1) SELECT "
    + " + ".join(
        f"(SELECT count(*) FROM {name})" for name in ("gone", *map("gone_{}".format, CHILDREN))
    )
)
"""One statement after the locks: it sees what the last writer left, and is one round trip."""

_DELETE: Final = f"DELETE FROM aiotrack_executions {_STILL} RETURNING task_id"
"""SQLite's: it has one writer at a time."""

_KEPT: Final = f"SELECT id FROM aiotrack_executions {_STILL} AND {{is_kept}}"
"""Which of those that go are kept as sums."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Executions whose age counts from the same column.

    Args:
        statuses: Their words.
        moment: The column.
    """

    statuses: tuple[str, ...]
    moment: str


COMPLETED: Final = Kind(("SUCCESS", "FAILURE", "REVOKED"), "finished_at")
NEVER_FINISHED: Final = tuple(
    Kind((word,), "created_at") for word in ("RETRY", "STARTED", "PENDING")
)
"""One by one: their index begins with the status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Old:
    """An execution by number; times in microseconds, ``days`` is what its creator wants."""

    id: int
    created_at: int
    moment: int
    days: float | None


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a batch deleted: executions, rows of all tables, and the seconds that it held locks.

    Sums that were kept are among the rows, each as some: see ``gone.WEIGHT``.
    """

    executions: int
    rows: int
    took: float


class Retention:
    """Old executions of one database. All verbs raise `StoreUnavailable`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def oldest(
        self, kind: Kind, *, after: Old | None, until: int, spared: Collection[str], size: int
    ) -> list[Old]:
        """Give the oldest of a kind, in order.

        Args:
            kind: Which.
            after: The last one of the piece before.
            until: The latest time that counts.
            spared: Workers whose executions stay.
            size: How many at most.
        """
        values = {
            "since": to_datetime(0 if after is None else after.moment),
            "after": 0 if after is None else after.id,
            "until": to_datetime(until),
            "size": size,
            "texts": json.dumps(sorted(spared)),
        }
        return await self._read(self._statement(_OLDEST, kind), values)

    async def sooner(
        self, kind: Kind, *, now: int, general: float, spared: Collection[str], size: int
    ) -> list[Old]:
        """Give some that are older than their creators want, where these want fewer days.

        Args:
            kind: Which.
            now: The database's time, in microseconds.
            general: The days that all others want.
            spared: Workers whose executions stay.
            size: How many at most.
        """
        values = {
            "now": to_datetime(now),
            "general": general,
            "size": size,
            "texts": json.dumps(sorted(spared)),
        }
        words = _SOONER[self._repository.dialect]
        return await self._read(self._statement(words, kind), values)

    async def delete(self, kind: Kind, found: Sequence[Old]) -> Deleted:
        """Delete executions that did not change meanwhile, with what is theirs, as a whole.

        What ended of days that are accounted for is kept as sums: see ``statistics.gone``.
        """
        values: dict[str, Any] = {
            "ids": json.dumps([one.id for one in found]),
            "latest": to_datetime(max(one.moment for one in found)),
        }
        is_sqlite = self._repository.dialect == "sqlite"
        if is_sqlite:
            values["now"] = to_datetime(time.time_ns() // 1000)  # the file is on this host
        delete = self._delete_one_by_one if is_sqlite else self._delete_at_once

        async def work(connection: AsyncConnection) -> Deleted:
            begun = 0.0
            await live.prepare(connection)
            async with transaction(connection, self._repository.path):
                begun = time.monotonic()
                executions, rows = await delete(connection, kind, values)
            return Deleted(executions, rows, time.monotonic() - begun)

        return await self._repository.ask(work)

    async def _delete_at_once(
        self, connection: AsyncConnection, kind: Kind, values: dict[str, Any]
    ) -> tuple[int, int]:
        locked = (await connection.execute(self._statement(_LOCK, kind), values)).all()
        if not locked:
            return 0, 0
        both = {
            "ids": json.dumps([row[0] for row in locked]),
            "texts": json.dumps([row[1] for row in locked]),
        }
        sums = await gone.sums_of(connection, [row[0] for row in locked if row[2]])
        rows = await connection.execute(self._statement(_ALL_AT_ONCE, kind), both)
        return len(locked), int(rows.scalar_one()) + await gone.keep(connection, sums)

    async def _delete_one_by_one(
        self, connection: AsyncConnection, kind: Kind, values: dict[str, Any]
    ) -> tuple[int, int]:
        kept = (await connection.execute(self._statement(_KEPT, kind), values)).scalars().all()
        sums = await gone.sums_of(connection, kept)
        deleted = await connection.execute(self._statement(_DELETE, kind), values)
        task_ids = deleted.scalars().all()
        rows = len(task_ids)
        for name in CHILDREN if task_ids else ():
            query = f"DELETE FROM aiotrack_{name} WHERE task_id {{among_texts}}"
            texts = {"texts": json.dumps(task_ids)}
            rows += (await connection.execute(self._statement(query, kind), texts)).rowcount
        return len(task_ids), rows + await gone.keep(connection, sums)

    def _statement(self, words: str, kind: Kind) -> TextClause:
        """Put a statement together; its times are bound as the database keeps them."""
        dialect = _WORDS[self._repository.dialect]
        told = words.format(
            **dialect,
            is_kept=gone.IS_KEPT[self._repository.dialect],
            unclaimed=_UNCLAIMED.format(**dialect) if kind in NEVER_FINISHED else "true",
            user=USER,
            moment=kind.moment,
            statuses=", ".join(f"'{word}'" for word in kind.statuses),
        )
        kinds: dict[str, Any] = {
            **dict.fromkeys(("now", "since", "until", "latest"), UtcDateTime),
            **dict.fromkeys(("ids", "texts"), Text),
            "general": Float,
        }
        used = [bindparam(name, type_=kind) for name, kind in kinds.items() if f":{name}" in told]
        return text(told).bindparams(*used)

    async def _read(self, statement: TextClause, values: dict[str, Any]) -> list[Old]:
        typed = statement.columns(created_at=UtcDateTime, moment=UtcDateTime)

        async def work(connection: AsyncConnection) -> list[Old]:
            return [
                Old(
                    id=row["id"],
                    created_at=to_micros(row["created_at"]),
                    moment=to_micros(row["moment"]),
                    days=row["days"],
                )
                for row in (await connection.execute(typed, values)).mappings()
            ]

        return await self._repository.ask(work)
