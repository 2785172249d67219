"""Sums by hour of creation: of executions, and of rows that hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, TextClause, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.clock import to_micros
from aiotrack.repository.statistics import live
from aiotrack.repository.statistics.periods import HOUR, Range
from aiotrack.repository.statistics.sums import (
    NAME,
    Names,
    Sums,
    add_counts,
    add_histogram,
    sums_of,
)
from aiotrack.repository.tables import RollupRow

YIELD: Final = 200
"""Rows after which other tasks of the loop get their turn: about 5 ms."""

_rollups = RollupRow.__table__

Found = dict[int, Names]
"""Sums by hour, and by module and task name."""


def statements(dialect: str, *conditions: ColumnElement[bool] | TextClause) -> tuple[Any, Any]:
    """Give two that add up what ended, of the executions that meet *conditions*: see `gather`."""
    rows = live.rows(dialect, HOUR, [live.FINAL, *conditions]).cte("source")
    keys = [rows.c[name] for name in ("slot", "module", "task_name", "status")]
    counts = select(*keys, *live.sums(rows)).group_by(*keys)
    return counts, live.packed(rows, dialect, "slot", "module", "task_name")


async def gather(found: Found, counts: Sequence[Any], histograms: Sequence[Any]) -> None:
    """Add the rows of both statements."""
    for add, rows in ((add_counts, counts), (add_histogram, histograms)):
        for number, row in enumerate(rows):
            names = found.setdefault(row["slot"] * HOUR, {})
            add(names.setdefault((row["module"], row["task_name"]), Sums()), row)
            if number % YIELD == 0:
                await asyncio.sleep(0)


def holding(span: str, ranges: Sequence[Range]) -> Select[Any]:
    """Ask for the rows of *span* that hold a task name's sums and start in one of the ranges."""
    return select(_rollups).where(
        _rollups.c.span == span,
        _rollups.c.level == NAME,
        live.within(_rollups.c.start, ranges),
    )


async def stored(connection: AsyncConnection, query: Select[Any]) -> Found:
    """Read what `holding` asks for."""
    found: Found = {}
    for number, row in enumerate((await connection.execute(query)).mappings()):
        names = found.setdefault(to_micros(row["start"]), {})
        names[row["module"], row["task_name"]] = sums_of(row)
        if number % YIELD == 0:
            await asyncio.sleep(0)
    return found


async def added(parts: Iterable[Names]) -> Names:
    """Add hours up."""
    whole: Names = {}
    number = 0
    for part in parts:
        for key, sums in part.items():
            whole.setdefault(key, Sums()).add(sums)
            number += 1
            if number % YIELD == 0:
                await asyncio.sleep(0)
    return whole


def runs(hours: Iterable[int]) -> list[Range]:
    """Give hours as ranges, the neighbours joined."""
    found: list[Range] = []
    for hour in sorted(hours):
        if found and found[-1][1] == hour:
            found[-1] = (found[-1][0], hour + HOUR)
        else:
            found.append((hour, hour + HOUR))
    return found
