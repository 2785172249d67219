"""`Tracker.report`: what ran in a stretch of time, by task, beside the stretch before."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Unpack

from aiotrack.clock import to_datetime, to_micros
from aiotrack.counts import Stats
from aiotrack.errors import InvalidQuery
from aiotrack.model import Execution, Worker, WorkerStatus
from aiotrack.records import Records

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable

    from aiotrack.repository.filters import Narrowing, Timeless

TASKS: Final = 50
"""Tasks with times of their own, the most frequent first; the rest is in the sums."""

SLOWEST: Final = 10
WEEK: Final = timedelta(days=7)
LONGEST: Final = timedelta(days=36_500)

AT_ONCE: Final = 3
"""Questions to the database at the same time: as many as readers have connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """What became of one task's executions in a stretch, and in the stretch ``before``."""

    task_name: str
    now: Stats
    before: Stats


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was created from ``since`` until ``until`` (aware, UTC), and what became of it.

    ``now`` and ``before`` count all of it, and the stretch of the same length before. ``tasks`` are
    the 50 most frequent of either. They come from rollups: they stay right after a clean-up has
    deleted the rows. ``slowest`` (ten) come from rows that are still there. ``workers`` are those
    of the last day.
    """

    since: datetime
    until: datetime
    now: Stats
    before: Stats
    tasks: list[TaskSummary] = field(default_factory=list)
    slowest: list[Execution] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    @property
    def failing(self) -> builtins.list[TaskSummary]:
        """The tasks that failed, those with most failures first."""
        failed = [one for one in self.tasks if one.now.failure]
        return sorted(failed, key=lambda one: (-one.now.failure, one.task_name))

    @property
    def timed_out(self) -> int:
        """How many ran longer than they may."""
        return self.now.timed_out

    @property
    def lost(self) -> int:
        """How many were lost with their worker."""
        return self.now.lost

    @property
    def living(self) -> int:
        """How many workers live."""
        return sum(one.status is WorkerStatus.ALIVE for one in self.workers)


class Summing(Records):
    """Sums up a stretch of time; see `Tracker`."""

    async def report(
        self,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        **filters: Unpack[Timeless],
    ) -> Summary:
        """Sum up what ran in a stretch of time, by task, beside the same length of time before.

        Counts, failure rates, times and waits come from rollups where the filters allow it
        (``module``, ``task_name``): a month takes a second at any number of rows, and a clean-up
        takes nothing from it.

        Args:
            since: Aware, or a timedelta (= ago); inclusive. Default: a week before *until*.
            until: Likewise. Default: now.
            **filters: As in `stats`; not ``since`` and ``until``.

        Raises:
            InvalidQuery: It ends before it begins, is longer than a hundred years, or there is no
                time before it; a filter that cannot be served.
            InvalidValue: A time without an offset.
            QueryTimeout: No rollup serves the filter, and two seconds were over.
            StoreUnavailable: The database did not answer.
        """
        core = await self._flushed()
        await core.repository.connect()  # it knows what time it is
        try:
            first, last = self._stretch(since, until)
            just_before = first - timedelta(microseconds=1)
            earliest = just_before - (last - first)
        except OverflowError:
            fault = "a report, and as long a time before it, lie within the years 1 to 9999 of UTC"
            raise InvalidQuery(fault) from None
        times: Narrowing = {**filters, "since": first, "until": last}
        ago: Narrowing = {**filters, "since": earliest, "until": just_before}
        history = core.reader.history
        now, before = await history(**times), await history(**ago)
        names = _most({**before.by_task_name, **now.by_task_name}.keys(), now, before)
        free = asyncio.Semaphore(AT_ONCE)

        async def of(name: str, when: Narrowing) -> Stats:
            async with free:
                one: Narrowing = {**when, "task_name": name}
                return await history(**one)

        found = await asyncio.gather(*(of(name, when) for name in names for when in (times, ago)))
        tasks = [
            TaskSummary(task_name=name, now=found[2 * at], before=found[2 * at + 1])
            for at, name in enumerate(names)
        ]
        slow = await core.reader.slowest(SLOWEST, **times)
        return Summary(
            since=first,
            until=last,
            now=now,
            before=before,
            tasks=tasks,
            slowest=slow,
            workers=await self.workers(),
        )

    def _stretch(
        self, since: datetime | timedelta | None, until: datetime | timedelta | None
    ) -> tuple[datetime, datetime]:
        now = to_datetime(self.clock.now())
        assert now is not None

        def at(given: datetime | timedelta, name: str) -> datetime:
            if isinstance(given, timedelta):
                return now - given
            to_micros(given, name)  # says what is wrong
            return given.astimezone(UTC)

        last = now if until is None else at(until, "until")
        first = last - WEEK if since is None else at(since, "since")
        if not timedelta() < last - first <= LONGEST:
            raise InvalidQuery("a report begins before it ends, at most a hundred years before")
        return first, last


def _most(names: Iterable[str], now: Stats, before: Stats) -> list[str]:
    """Give the most frequent names."""

    def frequency(name: str) -> tuple[int, int, str]:
        found = [stats.by_task_name.get(name) for stats in (now, before)]
        first, second = (0 if one is None else one.total for one in found)
        return -first, -second, name

    return sorted(names, key=frequency)[:TASKS]
