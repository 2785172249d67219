"""Hours and days (UTC) of creation: which are rolled up, which must be counted live. Pure.

Times are microseconds since 1970; ranges are half open. A period counts as rolled up when it ends
before the newest one that is, and nobody has marked it: where nothing happened there is no row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from aiotrack.clock import to_micros

HOUR: Final = 3_600_000_000
DAY: Final = 24 * HOUR

LOWEST: Final = to_micros(datetime.min.replace(tzinfo=UTC))
HIGHEST: Final = to_micros(datetime.max.replace(tzinfo=UTC))

SETTLING: Final = 60_000_000
"""How long an hour must have been over, and a mark unchanged, before it is rolled up: a write is
bounded to five seconds, and a mark is renewed after thirty."""

HOURS_KEPT: Final = 31 * DAY
"""How long hours are kept beside their day: ranges like "the last 30 days" begin amid a day."""

RECENT: Final = 8 * DAY
"""How old a day may be that is counted anew after some of its rows were deleted. What is gone of it
is kept two days longer: processes need not agree on what time it is."""

GONE: Final = "gone"
"""The span of what was deleted, and of marks of days of which that is kept: see ``gone``."""

MAX_GAPS: Final = 50
"""Ranges of one question that are counted live; with more, all between them is."""

MOST_GAPS: Final = 300
"""As many with cleaned days between them: SQLite takes less than a thousand in a statement. With
more, history is what was rolled up last, until the sweep comes by."""

Range = tuple[int, int]
Period = tuple[str, int]
"""``hour`` or ``day``, and its start."""


def hour_of(moment: int) -> int:
    """Give the start of the hour."""
    return moment - moment % HOUR


def day_of(moment: int) -> int:
    """Give the start of the day."""
    return moment - moment % DAY


def period_of(moment: int, now: int) -> Period:
    """Give what a change of an execution created then has to mark."""
    if moment >= first_hour_kept(now):
        return "hour", hour_of(moment)
    return "day", day_of(moment)


def first_hour_kept(now: int) -> int:
    """Give the start of the first day whose hours anybody may rely on.

    They are deleted two days later: processes need not agree on what time it is.
    """
    return day_of(now) - HOURS_KEPT


@dataclass(frozen=True, slots=True)
class Split:
    """A range in parts: whole days and hours that are rolled up, and what must be counted."""

    days: list[Range] = field(default_factory=list)
    hours: list[Range] = field(default_factory=list)
    live: list[Range] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is rolled up, as one snapshot of the database tells.

    Args:
        now: The database's time.
        days_until: The end of the newest day that is rolled up.
        hours_until: The end of the newest period that is; never before *days_until*.
        dirty: Periods that are marked.
        cleaned: Those of them that are days of which rows were deleted.
        kept: Those of them that are accounted for: see ``gone``.
        is_history: What was deleted counts, too.
    """

    now: int
    days_until: int = LOWEST
    hours_until: int = LOWEST
    dirty: frozenset[Period] = frozenset()
    cleaned: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()
    is_history: bool = False

    @property
    def frozen(self) -> frozenset[int]:
        """Days whose rollups tell what was there, and are never computed again."""
        return self.cleaned - {day for day in self.kept if self.is_recent(day)}

    def is_recent(self, day: int) -> bool:
        """Tell whether a day may be counted anew although rows of it were deleted."""
        return day >= day_of(self.now) - RECENT

    def history(self) -> Coverage:
        """Give the same for a question that counts what was deleted, too.

        Frozen days come from their rollups. Others may be counted live where they are marked, but
        not because rows were deleted: see `gone`.
        """
        frozen = self.frozen
        dirty = {
            (span, start)
            for span, start in self.dirty
            if day_of(start) not in frozen and not (span == "day" and start in self.cleaned)
        }
        return replace(self, dirty=frozenset(dirty), is_history=True)

    def gone(self, ranges: Iterable[Range]) -> list[Range]:
        """Give the whole hours within *ranges* that are counted live, to add what is gone of them.

        Sums of an hour cannot be parted. The running hour is whole when it is asked for up to now.
        """
        if not self.is_history or not self.kept:
            return []
        found = []
        for begin, stop in ranges:
            low, high = -(-begin // HOUR) * HOUR, hour_of(stop)
            if stop > self.now - SETTLING:
                high = -(-stop // HOUR) * HOUR
            parts = ((max(low, day), min(high, day + DAY)) for day in sorted(self.kept))
            found += [(first, last) for first, last in parts if first < last]
        return found

    def split(self, first: int, last: int, *, by_hour: bool = False) -> Split:
        """Part a range; *by_hour* takes no days, but in history those without hours."""
        days: list[Range] = []
        hours: list[Range] = []
        live: list[Range] = []
        bad_days = {day_of(start) for _, start in self.dirty}
        bad_hours = {start for span, start in self.dirty if span == "hour"}
        for span, start in self.dirty:
            if span == "day":
                bad_hours.update(range(start, start + DAY, HOUR))
        kept = first_hour_kept(self.now)
        end = min(last, self.days_until)
        if by_hour:
            end = min(end, kept) if self.is_history else first
        rest = _carve(first, end, DAY, bad_days, days) if first < end else []
        if max(first, end) < last:
            rest.append((max(first, end), last))
        for begin, stop in rest:
            low, high = max(begin, kept), min(stop, self.hours_until)
            if low >= high:
                live.append((begin, stop))
                continue
            live += [(begin, low)] * (begin < low)
            live += _carve(low, high, HOUR, bad_hours, hours)
            live += [(high, stop)] * (high < stop)
        split = _simple(Split(days, hours, _joined(live)), self.frozen if self.is_history else ())
        if len(split.live) > MOST_GAPS:
            return replace(self, dirty=frozenset()).split(first, last, by_hour=by_hour)
        return split


def _carve(first: int, last: int, step: int, bad: Iterable[int], whole: list[Range]) -> list[Range]:
    """Put whole periods that are not bad into *whole*, and give the rest."""
    low, high = -(-first // step) * step, last // step * step
    if low >= high:
        return [(first, last)]
    rest = [(first, low)] if first < low else []
    at = low
    for start in sorted(one for one in bad if low <= one < high):
        if at < start:
            whole.append((at, start))
        rest.append((start, start + step))
        at = start + step
    if at < high:
        whole.append((at, high))
    if high < last:
        rest.append((high, last))
    return rest


def _joined(ranges: Iterable[Range]) -> list[Range]:
    found: list[Range] = []
    for begin, stop in sorted(ranges):
        if found and found[-1][1] == begin:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((begin, stop))
    return found


def _simple(split: Split, kept: Iterable[int]) -> Split:
    """Keep a statement short: with very many gaps all between them is counted.

    But not across the days in *kept*, whose rows are gone.
    """
    if len(split.live) <= MAX_GAPS:
        return split
    walls = sorted(kept)
    live = split.live[:1]
    for begin, stop in split.live[1:]:
        first, last = live[-1]
        wall = bisect_right(walls, last - DAY)  # the first that ends after it
        if wall < len(walls) and walls[wall] < begin:
            live.append((begin, stop))
        else:
            live[-1] = (first, stop)

    def outside(ranges: list[Range]) -> list[Range]:
        return [one for one in ranges if not any(begin <= one[0] < stop for begin, stop in live)]

    return Split(outside(split.days), outside(split.hours), live)
