"""Rolls up what ended: sums and histograms for each hour and day (UTC) of creation.

A step takes one day: its new hours, and those that were marked (``marks``) and have settled. They
are read in bounded pieces without any lock, and written in one short transaction that fails as a
whole if anything was done meanwhile by somebody else: a mark that was renewed is not the mark that
was read, an hour that another process rolled up is there already, and what is gone of an hour has
grown by what somebody deleted. So any number of processes may roll up at the same time, and each
period is taken from one of them. The day is added up from its hours. Hours are kept for a month
beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.clock import to_datetime, to_micros
from aiotrack.model import OWN_MODULE
from aiotrack.repository.columns import UtcDateTime
from aiotrack.repository.limited import Fetch
from aiotrack.repository.statistics import gone, live
from aiotrack.repository.statistics.hours import (
    Found,
    added,
    gather,
    holding,
    runs,
    statements,
    stored,
)
from aiotrack.repository.statistics.periods import (
    DAY,
    GONE,
    HIGHEST,
    HOUR,
    HOURS_KEPT,
    RECENT,
    SETTLING,
    Coverage,
    Period,
    Range,
    day_of,
    first_hour_kept,
    hour_of,
)
from aiotrack.repository.statistics.stats import coverage
from aiotrack.repository.statistics.sums import NAME, WHOLE, Names, records
from aiotrack.repository.tables import DirtyRow, ExecutionRow, RollupRow
from aiotrack.repository.transaction import transaction

if TYPE_CHECKING:
    from aiotrack.repository.store import Repository

PIECE: Final = 50_000
"""Executions of one statement: measured at about 0.1 s."""

SHORTEST: Final = 1_000_000
"""Microseconds of a piece that is not halved any more."""

_executions = ExecutionRow.__table__
_rollups = RollupRow.__table__
_dirty = DirtyRow.__table__

_CLEANED: Final = text("""
INSERT INTO aiotrack_rollups_dirty (span, start, marked_at, cleaned)
VALUES ('day', :start, :now, true)
ON CONFLICT (span, start) DO UPDATE SET cleaned = excluded.cleaned
""").bindparams(bindparam("start", type_=UtcDateTime), bindparam("now", type_=UtcDateTime))

Marks = dict[Period, int]
"""Marked periods and when they were."""


class _Overtaken(Exception):
    """Another process was at the same period; what was read is thrown away."""


class Rollups:
    """Keeps the rollups of a repository up to date."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def is_due(self) -> bool:
        """Tell whether `roll_up` would change what anybody asks for, by a few short statements.

        Records of the sweeps alone are no reason: each run would be one for the next.

        Raises:
            StoreUnavailable: The database did not answer.
        """
        covered, marks = await self._state()
        if marks:
            return True
        new = [(covered.hours_until, hour_of(covered.now - SETTLING))]
        created = live.within(_executions.c.created_at, new)
        there = select(_executions.c.id).where(created, _executions.c.module != OWN_MODULE)
        gone_now = holding(GONE, new).where(_rollups.c.module != OWN_MODULE)

        async def work(connection: AsyncConnection) -> bool:
            fetch = _plain(connection)
            return bool(await fetch(there.limit(1)) or await fetch(gone_now.limit(1)))

        return await self._repository.ask(work)

    async def roll_up(self) -> int:
        """Recompute what is new, and what was marked and has settled.

        Returns:
            How many hours and days were recomputed.

        Raises:
            StoreUnavailable: The database did not answer; what was done until then stays.
        """
        covered, marks = await self._state()
        by_day: dict[int, Marks] = {}
        for period, marked_at in marks.items():
            by_day.setdefault(day_of(period[1]), {})[period] = marked_at
        done = 0
        try:
            async for day, hours in self._new_days(covered):
                done += await self._step(covered, day, hours, by_day.pop(day, {}))
            covered, _ = await self._state()
            for day, marked in sorted(by_day.items()):
                done += await self._step(covered, day, None, marked)
        except _Overtaken:
            return done
        if done:
            await self._forget_hours(covered)
        return done

    async def clean(self, first: int, last: int) -> None:
        """Say that rows created in these days (microseconds, half open) are about to be deleted.

        From now on those days are counted live, and their rollups tell what was there, also what
        changed so lately that its mark has not settled. Of recent days what goes is kept (`gone`),
        so they can still change; older ones stay as they are. Call it before the first row goes,
        with whole days (UTC) that are rolled up: a day that keeps many rows makes each count slow.
        """
        days = range(day_of(first), last, DAY)
        covered, marks = await self._state(is_settled=False)
        for day in days:
            here = {period: at for period, at in marks.items() if day_of(period[1]) == day}
            if here and day not in covered.cleaned:
                with contextlib.suppress(_Overtaken):  # by somebody who does the same
                    await self._step(covered, day, None, here, takes=False)
        now = to_datetime(covered.now)
        rows = [{"start": to_datetime(day), "now": now} for day in days]

        async def work(connection: AsyncConnection) -> None:
            async with transaction(connection, self._repository.path):
                await gone.mark(connection, covered, days)
                await connection.execute(_CLEANED, rows)

        await self._repository.ask(work)

    # ── what is due ─────────────────────────────────────────────────────────────────────────────
    async def _state(self, *, is_settled: bool = True) -> tuple[Coverage, Marks]:
        """Give what is rolled up, and the marks that have settled, or all."""

        async def work(connection: AsyncConnection) -> tuple[Coverage, Marks]:
            fetch = _plain(connection)
            covered = await coverage(fetch, connection.dialect.name)
            settled = to_datetime(covered.now - SETTLING if is_settled else HIGHEST)
            query = select(_dirty).where(_dirty.c.marked_at < settled, _dirty.c.cleaned.is_(False))
            marks = {
                (row["span"], to_micros(row["start"])): to_micros(row["marked_at"])
                for row in await fetch(query)
            }
            return covered, marks

        return await self._repository.ask(work)

    async def _new_days(self, covered: Coverage) -> AsyncIterator[tuple[int, range]]:
        """Give the days that have executions and hours that are over and not rolled up."""
        closed = hour_of(covered.now - SETTLING)
        begin = covered.days_until
        while (found := await self._first_since(begin, closed)) is not None:
            day = day_of(found)
            hours = range(max(day, covered.hours_until), min(day + DAY, closed), HOUR)
            if hours or day + DAY <= closed:
                yield day, hours
            begin = day + DAY

    async def _first_since(self, begin: int, end: int) -> int | None:
        """Give the first execution's time, or the first hour rolled up or gone, in a range."""
        created, start = _executions.c.created_at, _rollups.c.start
        is_hour = (_rollups.c.span == "hour", _rollups.c.level == WHOLE)
        is_gone = (_rollups.c.span == GONE, _rollups.c.level == NAME)
        queries = union_all(
            select(func.min(created, type_=UtcDateTime).label("at")).where(
                live.within(created, [(begin, end)])
            ),
            *(
                select(func.min(start, type_=UtcDateTime)).where(
                    *kind, live.within(start, [(begin, end)])
                )
                for kind in (is_hour, is_gone)
            ),
        )
        rows = await self._repository.ask(lambda connection: _plain(connection)(queries))
        return min((to_micros(row["at"]) for row in rows if row["at"] is not None), default=None)

    # ── one day ─────────────────────────────────────────────────────────────────────────────────
    async def _step(
        self,
        covered: Coverage,
        day: int,
        new: range | None,
        marks: Marks,
        *,
        takes: bool = True,
    ) -> int:
        """Recompute hours of a day, and the day if it is over; give the number of both.

        Args:
            covered: What is rolled up.
            day: Its start.
            new: Its hours that are over and not rolled up; None for a day that is only marked.
            marks: Its marks.
            takes: Removes them.
        """
        closed = hour_of(covered.now - SETTLING)
        is_over = day + DAY <= closed
        is_kept = day >= first_hour_kept(covered.now)
        # Beyond what is rolled up a mark says nothing: the hour is new, or nothing is there.
        known = range(day, min(day + DAY, covered.hours_until if new is None else closed), HOUR)
        marked = {start for span, start in marks if span == "hour" and start in known}
        if ("day", day) in marks:
            marked.update(known)
        hours = set(new or ()) | (set() if day in covered.frozen else marked)
        if hours and not is_kept:
            hours.update(known)
        before = await self._gone(hours)
        found = await self._read(hours)
        for hour, names in before.items():
            found[hour] = await added([found.get(hour, {}), names])
        old = {hour for hour in hours if hour < covered.hours_until}
        is_known = day < covered.days_until
        has_day = is_over and (bool(hours) and is_known if new is None else True)

        async def work(connection: AsyncConnection) -> None:
            async with transaction(connection, self._repository.path):
                await _take_marks(connection, marks if takes else {})
                if await gone.kept(connection, hours) != before:
                    raise _Overtaken  # by a deletion: what it took may have been read, or not
                if is_kept:
                    await _delete(connection, "hour", old)
                    for hour in sorted(hours):
                        await _insert(connection, "hour", hour, found.get(hour, {}))
                if has_day:
                    await _delete(connection, "day", {day} if is_known else set())
                    here = holding("hour", [(day, day + DAY)])
                    kept = await stored(connection, here) if is_kept else {}
                    await _insert(connection, "day", day, await added((kept or found).values()))

        await self._repository.ask(work)
        return len(hours) + has_day

    async def _gone(self, hours: set[int]) -> Found:
        """Read what was deleted of *hours*."""
        return await self._repository.ask(lambda connection: gone.kept(connection, hours))

    async def _read(self, hours: set[int]) -> Found:
        """Add up what ended in *hours*."""
        found: Found = {}
        waiting = runs(hours)
        while waiting:
            begin, stop = waiting.pop()
            if stop - begin > SHORTEST and await self._is_long(begin, stop):
                middle = (begin + stop) // 2
                waiting += [(begin, middle), (middle, stop)]
                continue
            await self._add(found, (begin, stop))
        return found

    async def _is_long(self, begin: int, stop: int) -> bool:
        some = select(literal(1)).select_from(_executions)
        some = some.where(live.within(_executions.c.created_at, [(begin, stop)])).limit(PIECE + 1)
        query = select(func.count().label("count")).select_from(some.subquery())
        rows = await self._repository.ask(lambda connection: _plain(connection)(query))
        return int(rows[0]["count"]) > PIECE

    async def _add(self, found: Found, piece: Range) -> None:
        """Add up the rows of a piece by two statements."""
        both = statements(self._repository.dialect, live.within(_executions.c.created_at, [piece]))

        async def work(connection: AsyncConnection) -> list[Sequence[Any]]:
            await live.prepare(connection)
            fetch = _plain(connection)
            return [await fetch(query) for query in both]

        await gather(found, *await self._repository.ask(work))

    async def _forget_hours(self, covered: Coverage) -> None:
        """Delete hours that nobody may rely on any more."""
        day = day_of(covered.now)
        end = min(covered.days_until, day - HOURS_KEPT - 2 * DAY)
        gone_end = min(covered.days_until, day - RECENT - 2 * DAY)

        async def work(connection: AsyncConnection) -> None:
            async with transaction(connection, self._repository.path):
                old = _rollups.c.start < to_datetime(end)
                await connection.execute(delete(RollupRow).where(_rollups.c.span == "hour", old))
                await gone.forget(connection, gone_end)

        await self._repository.ask(work)


def _plain(connection: AsyncConnection) -> Fetch:
    async def fetch(statement: Any, parameters: Any = None, /) -> Sequence[Any]:
        return (await connection.execute(statement, parameters)).mappings().all()

    return fetch


async def _take_marks(connection: AsyncConnection, marks: Marks) -> None:
    """Remove marks, if they are what they were when the reading began."""
    for (span, start), marked_at in sorted(marks.items()):
        same = (
            _dirty.c.span == span,
            _dirty.c.start == to_datetime(start),
            _dirty.c.marked_at == to_datetime(marked_at),
        )
        done = await connection.execute(delete(DirtyRow).where(*same, _dirty.c.cleaned.is_(False)))
        if done.rowcount != 1:
            raise _Overtaken


async def _delete(connection: AsyncConnection, span: str, starts: set[int]) -> None:
    for start in sorted(starts):
        here = (_rollups.c.span == span, _rollups.c.start == to_datetime(start))
        await connection.execute(
            delete(RollupRow).where(*here, _rollups.c.level.in_(range(WHOLE, NAME + 1)))
        )


async def _insert(connection: AsyncConnection, span: str, start: int, names: Names) -> None:
    try:
        rows = records(span, start, names)
        await connection.execute(insert(RollupRow), rows)
    except IntegrityError as error:
        raise _Overtaken from error
