"""`Tracker.stats`: what is over comes from rollups, what is not is counted now, as one snapshot.

Three ways in. Without filter, by module or by task name, ended executions of whole days and hours
come from their rollups; those at the edges, of hours that are not over or have changed, and all
that has not ended are counted live. Any other filter is counted live. Every way sees one snapshot
of the database, so that an execution that ends meanwhile is neither lost nor counted twice.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    func,
    or_,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.clock import to_micros
from aiotrack.counts import Stats
from aiotrack.model import OWN_MODULE
from aiotrack.repository.columns import UtcDateTime
from aiotrack.repository.filters import Filters
from aiotrack.repository.limited import Fetch, Parameters
from aiotrack.repository.statistics import histogram, live
from aiotrack.repository.statistics.periods import (
    DAY,
    GONE,
    HIGHEST,
    HOUR,
    LOWEST,
    Coverage,
    day_of,
    hour_of,
)
from aiotrack.repository.statistics.sums import KINDS, MODULE, NAME, STATUSES, WHOLE
from aiotrack.repository.statistics.tally import FINE, Tally, counts_of
from aiotrack.repository.tables import DirtyRow, ExecutionRow, RollupRow

MAX_EXACT: Final = 10_000
"""Executions up to which percentiles are exact, if all were counted live."""

_executions = ExecutionRow.__table__
_rollups = RollupRow.__table__
_dirty = DirtyRow.__table__


@functools.cache
def _state(dialect: str) -> Select[Any]:
    """Ask for the newest periods and for all marks, as JSON; on Postgres for the time, too."""
    ends: list[ColumnElement[Any]] = [
        select(func.max(_rollups.c.start, type_=UtcDateTime))
        .where(_rollups.c.span == span, _rollups.c.level == WHOLE)
        .scalar_subquery()
        .label(span)
        for span in ("day", "hour")
    ]
    start: ColumnElement[Any]
    marks: ColumnElement[Any]
    if dialect == "sqlite":
        start = type_coerce(_dirty.c.start, BigInteger)
        mark = func.json_array(_dirty.c.span, start, _dirty.c.cleaned)
        marks = func.json_group_array(mark, type_=Text)
    else:
        start = cast(func.date_part("epoch", _dirty.c.start) * 1_000_000, BigInteger)
        mark = func.json_build_array(_dirty.c.span, start, _dirty.c.cleaned)
        marks = cast(func.json_agg(mark), Text)
        ends.append(func.now(type_=UtcDateTime).label("now"))
    return select(*ends, select(marks).select_from(_dirty).scalar_subquery().label("marks"))


async def coverage(fetch: Fetch, dialect: str) -> Coverage:
    """Read what is rolled up, by one statement."""
    row = (await fetch(_state(dialect)))[0]
    now = time.time_ns() // 1000 if dialect == "sqlite" else to_micros(row["now"])
    days = LOWEST if row["day"] is None else to_micros(row["day"]) + DAY
    hours = LOWEST if row["hour"] is None else to_micros(row["hour"]) + HOUR
    marks = json.loads(row["marks"] or "[]")
    dirty = frozenset((span, start) for span, start, _ in marks if span != GONE)
    cleaned = frozenset(start for _, start, is_cleaned in marks if is_cleaned)
    kept = frozenset(start for span, start, _ in marks if span == GONE)
    return Coverage(now, days, max(days, hours), dirty, cleaned, kept)


async def count(
    connection: AsyncConnection,
    fetch: Fetch,
    filters: Filters,
    keys: frozenset[str],
    *,
    is_history: bool = False,
) -> Stats:
    """Count what matches *filters*; *fetch* sees one snapshot, *keys* of metadata have an index.

    What was deleted counts only in *is_history*: days of which rows were deleted come from their
    rollups then, and what is not rolled up of them from their rows and from what is kept of those
    that are gone.
    """
    covered = await coverage(fetch, connection.dialect.name)
    if is_history:
        covered = covered.history()
    return await _Count(fetch, connection.dialect.name, filters, covered, keys).run()


@dataclass(frozen=True, slots=True)
class _Statements:
    """What is asked: of rollups by name and by period, and of executions."""

    names: Select[Any] | None
    periods: Any
    counted: Any
    histograms: Any
    both: Any
    values: Select[Any]


@functools.lru_cache(256)
def _statements(
    dialect: str,
    unit: int,
    by: frozenset[str],
    days: int,
    hours: int,
    ranges: int,
    gone: int,
    *,
    has_own: bool,
) -> _Statements:
    """Make the statements for what rollups serve: making them takes longer than they do.

    Args:
        dialect: ``postgresql`` or ``sqlite``.
        unit: As in `live.slot`.
        by: Names of the filters, of ``module`` and ``task_name``.
        days: How many ranges of days there are.
        hours: How many of hours.
        ranges: How many are counted live.
        gone: How many ranges of hours have sums of what was deleted.
        has_own: Whether sweeps are counted, too.
    """
    periods = or_(
        and_(_rollups.c.span == "day", live.within_any(_rollups.c.start, "days", days)),
        and_(_rollups.c.span == "hour", live.within_any(_rollups.c.start, "hours", hours)),
    )

    def narrowed(table: Any, *, is_whole: bool = False) -> list[ColumnElement[bool]]:
        found = [table.c[name].in_(bindparam(name, expanding=True)) for name in sorted(by)]
        return found if has_own or is_whole else [*found, table.c.module != OWN_MODULE]

    is_gone = and_(_rollups.c.span == GONE, live.within_any(_rollups.c.start, "gone", gone))
    level = NAME if "task_name" in by else MODULE if "module" in by else WHOLE
    names = [_rollups.c[name] for name in ("module", "task_name")]
    sums = [func.sum(_rollups.c[name]).label(name) for name in (*STATUSES, *KINDS)]
    either = or_(periods, is_gone) if gone else periods
    of_names = and_(_rollups.c.level == NAME, either, *narrowed(_rollups))
    by_name = select(*names, *sums).where(of_names).group_by(*names)
    of_level = and_(
        _rollups.c.level == level, periods, *narrowed(_rollups, is_whole=level == WHOLE)
    )
    by_period: Any = select(_rollups).where(of_level)
    if gone:  # there are sums of task names only
        names_gone = and_(_rollups.c.level == NAME, is_gone, *narrowed(_rollups))
        by_period = union_all(by_period, select(_rollups).where(names_gone))
    created, limits = _executions.c.created_at, narrowed(_executions)
    unfinished = [live.UNFINISHED, live.within_any(created, "whole", 1)]
    ended = [live.FINAL, live.within_any(created, "live", ranges)]
    source = union_all(  # a row comes by one of two indexes
        live.rows(dialect, unit, [*limits, *ended]),
        live.rows(dialect, unit, [*limits, *unfinished], is_over=False),
    )
    rows = source.cte("source")
    return _Statements(
        by_name,
        by_period,
        live.counted(rows),
        live.histograms(rows, dialect),
        live.both(rows, dialect),
        select(rows.c.duration, rows.c.wait),
    )


class _Count:
    """One question on its way."""

    def __init__(
        self,
        fetch: Fetch,
        dialect: str,
        filters: Filters,
        covered: Coverage,
        keys: frozenset[str],
    ) -> None:
        self._fetch = fetch
        self._keys = keys
        self._dialect = dialect
        self._covered = covered
        self._filters = filters
        self._since = self._moment(filters.since)
        self._until = self._moment(filters.until)
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
        if self._may_use_rollups() and first < last:
            split = self._covered.split(first, last, by_hour=self._unit == HOUR)
            if split.days:  # nothing finer is known of them
                self._unit = DAY
            gone = self._covered.gone(split.live)
            parts = {
                "days": split.days,
                "hours": split.hours,
                "live": split.live,
                "gone": gone,
            }
            exact = self._filters.exact
            statements = _statements(
                self._dialect,
                self._unit,
                frozenset(exact),
                *map(len, parts.values()),
                has_own=self._filters.asks_for_own,
            )
            parameters: dict[str, Any] = dict(exact)
            for name, ranges in (parts | {"whole": [(first, last)]}).items():
                parameters |= live.bounds(name, ranges)
            if split.days or split.hours or gone:
                await self._take_rollups(statements, parameters)
        else:
            statements, parameters = self._others(first, last), {}
        has_rolled = bool(self._tally.slots)
        await self._take_live(statements.both if has_rolled else statements.counted, parameters)
        values = None
        if has_rolled:
            pass  # the histograms came with the counts
        elif self._tally.whole["total"] <= MAX_EXACT:
            values = await self._values(statements, parameters)
        else:
            await self._take_histograms(statements, parameters)
        line = self._tally.timeline(self._since, self._until, self._covered.now, self._unit)
        return self._tally.stats(line, values)

    def _may_use_rollups(self) -> bool:
        it = self._filters
        others = it.metadata or it.text or it.exact.keys() - {"module", "task_name"}
        return not (it.is_empty or others)

    def _others(self, first: int, last: int) -> _Statements:
        """Make the statements for any filter."""
        rest = dataclasses.replace(self._filters, since=None, until=None)
        conditions = rest.conditions(self._dialect, self._keys)
        conditions.append(live.within(_executions.c.created_at, [(first, last)]))
        if not rest.asks_for_own:
            conditions.append(_executions.c.module != OWN_MODULE)
        rows = live.rows(self._dialect, self._unit, conditions).cte("source")
        values = select(rows.c.duration, rows.c.wait)
        joint = live.joint(rows, self._dialect)
        return _Statements(None, None, live.counted(rows), joint, None, values)

    async def _take_rollups(self, statements: _Statements, parameters: Parameters) -> None:
        assert statements.names is not None
        assert statements.periods is not None
        for row in await self._fetch(statements.names, parameters):
            counts = counts_of(row)
            if counts["total"]:
                self._tally.add_named(row["module"], row["task_name"], counts)
        for row in await self._fetch(statements.periods, parameters):
            counts = counts_of(row)
            if counts["total"]:
                start = to_micros(row["start"])
                start = hour_of(start) if self._unit == HOUR else day_of(start)
                self._tally.add_timed(start, counts, row)
                histogram.add(self._tally.durations, row["durations"])
                histogram.add(self._tally.waits, row["waits"])

    async def _take_live(self, statement: Any, parameters: Parameters) -> None:
        for row in await self._fetch(statement, parameters):
            if row.get("kind") is not None:
                self._take_buckets(row)
                continue
            number = row["count"]
            counts = {row["status"].lower(): number, "total": number}
            counts |= {name: row[name] for name in KINDS if row[name]}
            if row["slot"] is None:
                self._tally.add_named(row["module"], row["task_name"], counts)
            else:
                self._tally.add_timed(row["slot"] * self._unit, counts, row)

    async def _take_histograms(self, statements: _Statements, parameters: Parameters) -> None:
        for row in await self._fetch(statements.histograms, parameters):
            self._take_buckets(row)

    def _take_buckets(self, row: Mapping[Any, Any]) -> None:
        tally = self._tally
        if "kind" in row:
            pairs = [(tally.waits if row["kind"] else tally.durations, row["bucket"])]
        else:
            pairs = [(tally.durations, row["duration"]), (tally.waits, row["wait"])]
        for found, bucket in pairs:
            if bucket is not None:
                found[str(bucket)] = found.get(str(bucket), 0) + row["count"]

    async def _values(
        self, statements: _Statements, parameters: Parameters
    ) -> tuple[list[float], list[float]]:
        rows = await self._fetch(statements.values, parameters)
        durations = [row["duration"] for row in rows if row["duration"] is not None]
        return durations, [row["wait"] for row in rows if row["wait"] is not None]
