"""`Tracker.stats`: what is over comes from rollups, what is not is counted now, as one snapshot.

Three ways in. Without filter, by module or by task name, ended executions of whole days and hours
come from their rollups; those at the edges, of hours that are not over or have changed, and all
that has not ended are counted live. Any other filter is counted live. Every way sees one snapshot
of the database, so that an execution that ends meanwhile is neither lost nor counted twice.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, func, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.clock import to_micros
from aiotrack.model import Stats
from aiotrack.repository import histogram, live
from aiotrack.repository.filters import Filters
from aiotrack.repository.limited import Fetch
from aiotrack.repository.periods import (
    DAY,
    HIGHEST,
    HOUR,
    LOWEST,
    Coverage,
    Range,
    Split,
    day_of,
    hour_of,
)
from aiotrack.repository.sums import MODULE, NAME, OWN_MODULE, STATUSES, WHOLE
from aiotrack.repository.tables import DirtyRow, ExecutionRow, RollupRow, UtcDateTime
from aiotrack.repository.tally import FINE, Tally, counts_of

MAX_EXACT: Final = 10_000
"""Executions up to which percentiles are exact, if all were counted live."""

_executions = ExecutionRow.__table__
_rollups = RollupRow.__table__
_dirty = DirtyRow.__table__


async def coverage(fetch: Fetch, dialect: str) -> Coverage:
    """Read what is rolled up, by two statements."""
    ends = [
        select(func.max(_rollups.c.start, type_=UtcDateTime))
        .where(_rollups.c.span == span, _rollups.c.level == WHOLE)
        .scalar_subquery()
        .label(span)
        for span in ("day", "hour")
    ]
    if dialect == "sqlite":  # the file is on this host
        row = (await fetch(select(*ends)))[0]
        now = time.time_ns() // 1000
    else:
        row = (await fetch(select(func.now(type_=UtcDateTime).label("now"), *ends)))[0]
        now = to_micros(row["now"])
    days = LOWEST if row["day"] is None else to_micros(row["day"]) + DAY
    hours = LOWEST if row["hour"] is None else to_micros(row["hour"]) + HOUR
    marks = await fetch(select(_dirty.c.span, _dirty.c.start, _dirty.c.cleaned))
    dirty = frozenset((mark["span"], to_micros(mark["start"])) for mark in marks)
    cleaned = frozenset(to_micros(mark["start"]) for mark in marks if mark["cleaned"])
    return Coverage(now, days, max(days, hours), dirty, cleaned)


async def count(connection: AsyncConnection, fetch: Fetch, filters: Filters) -> Stats:
    """Count what matches *filters*; *fetch* sees one snapshot."""
    covered = await coverage(fetch, connection.dialect.name)
    return await _Count(fetch, connection.dialect.name, filters, covered).run()


class _Count:
    """One question on its way."""

    def __init__(self, fetch: Fetch, dialect: str, filters: Filters, covered: Coverage) -> None:
        self._fetch = fetch
        self._dialect = dialect
        self._covered = covered
        self._since = self._moment(filters.since)
        self._until = self._moment(filters.until)
        self._exact = filters.exact
        rest = dataclasses.replace(filters, since=None, until=None)
        self._conditions = rest.conditions(dialect)
        if "module" not in filters.exact:
            self._conditions.append(_executions.c.module != OWN_MODULE)
        self._may_use_rollups = not (
            filters.is_empty
            or filters.metadata
            or filters.text
            or filters.exact.keys() - {"module", "task_name"}
        )
        end = covered.now if self._until is None else self._until
        is_fine = self._since is not None and end - self._since <= FINE
        self._unit = HOUR if is_fine else DAY
        self._tally = Tally()

    def _moment(self, given: int | timedelta | None) -> int | None:
        if isinstance(given, timedelta):
            ago = self._covered.now - given // timedelta(microseconds=1)
            return max(LOWEST, min(ago, HIGHEST))
        return given

    async def run(self) -> Stats:
        """Count."""
        first = LOWEST if self._since is None else self._since
        last = HIGHEST + 1 if self._until is None else self._until + 1  # until is inclusive
        split = Split(live=[(first, last)])
        if self._may_use_rollups and first < last:
            split = self._covered.split(first, last, by_hour=self._unit == HOUR)
        if split.days or split.hours:
            await self._take_rollups(split)
            has_rolled = bool(self._tally.slots)
            source = self._beside(split.live, (first, last))
        else:
            has_rolled = False
            source = self._rows([live.within(_executions.c.created_at, split.live)]).cte("source")
        await self._take_live(source)
        values = None
        if not has_rolled and self._tally.whole["total"] <= MAX_EXACT:
            values = await self._values(source)
        else:
            await self._take_histograms(source)
        line = self._tally.timeline(self._since, self._until, self._covered.now, self._unit)
        return self._tally.stats(line, values)

    # ── rollups ─────────────────────────────────────────────────────────────────────────────────
    async def _take_rollups(self, split: Split) -> None:
        periods = _periods(split)
        names = [_rollups.c[name] for name in ("module", "task_name")]
        sums = [func.sum(_rollups.c[name]).label(name) for name in (*STATUSES, "skipped")]
        query = select(*names, *sums).where(*self._level(NAME), periods).group_by(*names)
        for row in await self._fetch(query):
            counts = counts_of(row, STATUSES)
            self._tally.add_named(row["module"], row["task_name"], counts)
        level = NAME if "task_name" in self._exact else MODULE if "module" in self._exact else WHOLE
        for row in await self._fetch(select(_rollups).where(*self._level(level), periods)):
            counts = counts_of(row, STATUSES)
            if counts["total"]:
                start = to_micros(row["start"])
                start = hour_of(start) if self._unit == HOUR else day_of(start)
                self._tally.add_timed(start, counts, row)
                self._tally.durations.update(histogram.read(row["durations"]))
                self._tally.waits.update(histogram.read(row["waits"]))

    def _level(self, level: int) -> list[ColumnElement[bool]]:
        found = [_rollups.c.level == level]
        for name, values in self._exact.items():
            found.append(_rollups.c[name].in_(values))
        if level == NAME and "module" not in self._exact:
            found.append(_rollups.c.module != OWN_MODULE)
        return found

    # ── live ────────────────────────────────────────────────────────────────────────────────────
    def _rows(self, conditions: Sequence[ColumnElement[bool]]) -> Any:
        return live.rows(self._dialect, self._unit, [*self._conditions, *conditions])

    def _beside(self, ranges: Sequence[Range], whole: Range) -> Any:
        """Give the rows that rollups do not tell of: by two indexes, a row by one of them."""
        created = _executions.c.created_at
        unfinished = self._rows([live.UNFINISHED, live.within(created, [whole])])
        ended = self._rows([live.FINAL, live.within(created, ranges)])
        return union_all(ended, unfinished).cte("source")

    async def _take_live(self, source: Any) -> None:
        for row in await self._fetch(live.counted(source)):
            number = row["count"]
            counts = {row["status"].lower(): number, "total": number, "skipped": row["skipped"]}
            if row["slot"] is None:
                self._tally.add_named(row["module"], row["task_name"], counts)
            else:
                self._tally.add_timed(row["slot"] * self._unit, counts, row)

    async def _take_histograms(self, source: Any) -> None:
        for row in await self._fetch(live.histograms(source, self._dialect)):
            found = self._tally.waits if row["kind"] else self._tally.durations
            found[row["bucket"]] += row["count"]

    async def _values(self, source: Any) -> tuple[list[float], list[float]]:
        rows = await self._fetch(select(source.c.duration, source.c.wait))
        durations = [row["duration"] for row in rows if row["duration"] is not None]
        return durations, [row["wait"] for row in rows if row["wait"] is not None]


def _periods(split: Split) -> ColumnElement[bool]:
    return or_(
        *(
            and_(_rollups.c.span == span, live.within(_rollups.c.start, ranges))
            for span, ranges in (("day", split.days), ("hour", split.hours))
            if ranges
        )
    )
