"""What was counted here and there, added up to `Stats`. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from aiotrack.clock import EPOCH
from aiotrack.counts import Bucket, Counts, DurationBucket, Stats
from aiotrack.repository.statistics import histogram
from aiotrack.repository.statistics.histogram import Histogram
from aiotrack.repository.statistics.periods import DAY, HOUR
from aiotrack.repository.statistics.sums import KINDS, STATUSES

SHARES: Final = (0.5, 0.95)

MAX_BUCKETS: Final = 366
"""Buckets of a timeline: a leap year of days; beyond it there are months, or several of them."""

FINE: Final = 2 * DAY
"""The longest range that is shown by hours."""

Row = Mapping[Any, Any]


Sums = defaultdict[str, int]
"""No Counter: its zeros are made by Python code, and there are hundreds of small ones."""


def _zeros() -> Sums:
    return defaultdict(int)


@dataclass(slots=True)
class Tally:
    """Sums of counts, seconds and histograms. ``slots`` are by the start of an hour or a day."""

    whole: Sums = field(default_factory=_zeros)
    modules: defaultdict[str, Sums] = field(default_factory=lambda: defaultdict(_zeros))
    names: defaultdict[str, Sums] = field(default_factory=lambda: defaultdict(_zeros))
    slots: defaultdict[int, Sums] = field(default_factory=lambda: defaultdict(_zeros))
    durations: Histogram = field(default_factory=dict)
    waits: Histogram = field(default_factory=dict)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add_named(self, module: str, task_name: str, counts: Mapping[str, int]) -> None:
        """Add counts (with ``total``) of one task name."""
        _add(self.whole, counts)
        _add(self.modules[module], counts)
        _add(self.names[task_name], counts)

    def add_timed(self, start: int, counts: Mapping[str, int], row: Row) -> None:
        """Add the same counts by their time, with the seconds of all of them."""
        _add(self.slots[start], counts)
        for name in ("duration_count", "duration_sum", "wait_count", "wait_sum"):
            self.seconds[name] += row[name]

    def mean(self, name: str) -> float | None:
        """Give the mean of ``duration`` or ``wait``."""
        count = self.seconds[f"{name}_count"]
        return self.seconds[f"{name}_sum"] / count if count else None

    def stats(
        self,
        timeline: list[Bucket],
        values: tuple[Sequence[float], Sequence[float]] | None,
    ) -> Stats:
        """Give all of it; *values* are every duration and wait, if they are known."""
        if values is None:
            p50, p95 = histogram.percentiles(self.durations, SHARES)
            wait50, wait95 = histogram.percentiles(self.waits, SHARES)
            spread = histogram.spread(self.durations)
        else:
            p50, p95 = histogram.exact(values[0], SHARES)
            wait50, wait95 = histogram.exact(values[1], SHARES)
            spread = histogram.exact_spread(values[0])
        return Stats(
            **_counts(self.whole),
            by_module=_by_name(self.modules),
            by_task_name=_by_name(self.names),
            mean_duration=self.mean("duration"),
            p50_duration=p50,
            p95_duration=p95,
            mean_wait=self.mean("wait"),
            p50_wait=wait50,
            p95_wait=wait95,
            is_approximate=values is None and bool(self.durations or self.waits),
            durations=_buckets(spread),
            timeline=timeline,
        )

    def timeline(self, first: int | None, last: int | None, now: int, unit: int) -> list[Bucket]:
        """Give the buckets without gaps.

        Args:
            first: Begin of the range; None begins with the first execution.
            last: Its end; None ends now, or with what a wrong clock put into the future.
            now: The database's time.
            unit: What the slots are: an hour or a day. The buckets may be longer.
        """
        if first is None and not self.slots:
            return []
        begin = min(self.slots) if first is None else first
        end = max((now, *self.slots)) if last is None else last
        if end - begin > FINE:  # one row of the year 2200 would make a million hours
            unit = DAY
        starts, index = _periods(begin, end, unit)
        found = [_zeros() for _ in starts]
        for start, counts in self.slots.items():
            _add(found[index(start)], counts)
        return [
            Bucket(start=_date(start), **_counts(counts))
            for start, counts in zip(starts, found, strict=True)
        ]


def _add(sums: Sums, counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        sums[name] += count


def _counts(counter: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counter.items() if count}


def _by_name(counters: Mapping[str, Mapping[str, int]]) -> dict[str, Counts]:
    return {name: Counts(**_counts(counter)) for name, counter in sorted(counters.items())}


def _buckets(spread: Sequence[int]) -> list[DurationBucket]:
    """Give counts between the bounds of ``histogram`` up to the last that is not zero."""
    last = max((index for index, count in enumerate(spread) if count), default=-1)
    ends = zip((0.0, *histogram.BOUNDS), (*histogram.BOUNDS, None), spread, strict=True)
    return [
        DurationBucket(above=above, up_to=up_to, count=count)
        for above, up_to, count in list(ends)[: last + 1]
    ]


def _periods(begin: int, end: int, unit: int) -> tuple[list[int], Callable[[int], int]]:
    """Give the starts of a timeline's buckets, and which of them a moment is in."""
    low = begin - begin % unit
    if unit == HOUR or (end - low) // DAY < MAX_BUCKETS:
        return list(range(low, end + 1, unit)), lambda moment: (moment - low) // unit
    first, last = _month(begin), _month(end)
    step = -(-(last - first + 1) // MAX_BUCKETS)
    starts = [_start(month) for month in range(first, last + 1, step)]
    return starts, lambda moment: (_month(moment) - first) // step


def _date(moment: int) -> datetime:
    return EPOCH + timedelta(microseconds=moment)


def _month(moment: int) -> int:
    """Give the months since the year 0."""
    date = _date(moment)
    return date.year * 12 + date.month - 1


def _start(month: int) -> int:
    date = EPOCH.replace(year=month // 12, month=month % 12 + 1)
    return (date - EPOCH).days * DAY


def counts_of(row: Row) -> dict[str, int]:
    """Give the counts of a rollup's row, with their total."""
    counts = {name: int(row[name]) for name in STATUSES}
    kinds = {name: int(row[name]) for name in KINDS if row[name]}
    return {**counts, "total": sum(counts.values()), **kinds}
