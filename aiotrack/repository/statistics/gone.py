"""What is deleted of recent days is kept as sums by hour: what is there and what is gone is all.

A day is accounted for when a mark says so that was made before the first of its rows went. Each
deletion of its rows adds what goes to the rows of the span ``gone``, in the same transaction, so
rows and sums together never change by it: an hour can be counted, rolled up, or rolled up anew at
any time. Of other days nothing is kept: what is rolled up of them stays as it is.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Text, bindparam, delete, text, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.clock import to_datetime
from aiotrack.repository.columns import UtcDateTime
from aiotrack.repository.statistics.hours import Found, gather, holding, runs, statements, stored
from aiotrack.repository.statistics.periods import GONE, Coverage
from aiotrack.repository.statistics.sums import NAME, Sums, record
from aiotrack.repository.tables import DirtyRow, RollupRow

_rollups = RollupRow.__table__

_MARK: Final = text(f"""
INSERT INTO aiotrack_rollups_dirty (span, start, marked_at, cleaned)
SELECT '{GONE}', :start, :now, true WHERE NOT EXISTS (
    SELECT 1 FROM aiotrack_rollups_dirty WHERE span = 'day' AND start = :start AND cleaned
)
ON CONFLICT (span, start) DO NOTHING
""").bindparams(bindparam("start", type_=UtcDateTime), bindparam("now", type_=UtcDateTime))

IS_KEPT: Final = {
    "postgresql": f"""EXISTS (
    SELECT 1 FROM aiotrack_rollups_dirty d
    WHERE d.span = '{GONE}' AND d.start = date_trunc('day', created_at, 'UTC')
)""",
    "sqlite": f"""EXISTS (
    SELECT 1 FROM aiotrack_rollups_dirty d
    WHERE d.span = '{GONE}' AND d.start = created_at - created_at % 86400000000
)""",
}
"""Whether the day of an execution is accounted for."""

WEIGHT: Final = 5
"""Rows as which one sum of an hour and a task name counts. Reading and writing it takes longer, but
each batch has costs of its own, and many small ones would take longer still."""

_AMONG: Final = {
    "postgresql": "id = ANY (ARRAY(SELECT value::bigint FROM "
    "json_array_elements_text(CAST(:ids AS json))))",
    "sqlite": "id IN (SELECT value FROM json_each(:ids))",
}


async def mark(connection: AsyncConnection, covered: Coverage, days: Iterable[int]) -> None:
    """Account for the recent ones of *days* from now on, but for those that were cleaned before."""
    now = to_datetime(covered.now)
    recent = [{"start": to_datetime(day), "now": now} for day in days if covered.is_recent(day)]
    if recent:
        await connection.execute(_MARK, recent)


@functools.cache
def _of_these(dialect: str) -> tuple[Any, Any]:
    return statements(dialect, text(_AMONG[dialect]).bindparams(bindparam("ids", type_=Text)))


async def sums_of(connection: AsyncConnection, ids: Sequence[int]) -> Found:
    """Add up the executions with these numbers, which nobody else can change or delete now."""
    found: Found = {}
    if ids:
        both = [
            (await connection.execute(query, {"ids": json.dumps(list(ids))})).mappings().all()
            for query in _of_these(connection.dialect.name)
        ]
        await gather(found, *both)
    return found


async def keep(connection: AsyncConnection, found: Found) -> int:
    """Add sums to those of what is gone; last of all, for other cleaners wait for the commit.

    All take the rows in the same order, so no two wait for each other.

    Returns:
        As how many rows that counts, beside those that are deleted.
    """
    if not found:
        return 0
    keys = sorted((hour, name) for hour, names in found.items() for name in names)
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgres_insert
    nothing = [record(GONE, NAME, hour, name, Sums()) for hour, name in keys]
    await connection.execute(insert(RollupRow).on_conflict_do_nothing(), nothing)
    order = [_rollups.c[name] for name in ("start", "module", "task_name")]
    query = holding(GONE, runs(found)).order_by(*order).with_for_update()
    known = await stored(connection, query)
    changed = []
    for hour, name in keys:
        sums = known.get(hour, {}).get(name)
        if sums is None:
            continue  # forgotten just now: nobody counts so old a day anew
        sums.add(found[hour][name])
        row = record(GONE, NAME, hour, name, sums)
        changed.append({f"new_{key}": value for key, value in row.items()})
    if changed:
        await connection.execute(_replacing(), changed)
    return WEIGHT * len(keys)


@functools.cache
def _replacing() -> Any:
    keys = ("span", "level", "start", "module", "task_name")
    bound: dict[str, Any] = {column.name: bindparam(f"new_{column.name}") for column in _rollups.c}
    here = [_rollups.c[name] == bound.pop(name) for name in keys]
    return update(RollupRow).where(*here).values(bound)


async def kept(connection: AsyncConnection, hours: Iterable[int]) -> Found:
    """Read what is gone of *hours*."""
    ranges = runs(hours)
    return await stored(connection, holding(GONE, ranges)) if ranges else {}


async def forget(connection: AsyncConnection, end: int) -> None:
    """Delete what is older than *end*, a day that nobody counts anew."""
    for row in (RollupRow, DirtyRow):
        old = (row.span == GONE, row.start < to_datetime(end))
        await connection.execute(delete(row).where(*old))
