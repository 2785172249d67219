"""Marks of hours that are over and change all the same: said before a write, in its own commit.

Who rolls an hour up believes a mark until nobody has renewed it for a minute; a write begins
within half a minute of its mark and takes at most five seconds. So an hour without a mark is as it
was rolled up, whoever is killed and whenever. What still runs in its own hour needs no mark: an
hour is rolled up only when it has been over for a minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from aiotrack.clock import Clock
from aiotrack.model import FINAL
from aiotrack.repository.statistics.periods import HOUR, Period, period_of

RENEW: Final = 30.0
"""Seconds after which a mark is made again before a write."""

MAX_KNOWN: Final = 1000
"""Marks that are remembered; somebody may be moving a table of many years."""

POSTGRES_MARK: Final = """
INSERT INTO aiotrack_rollups_dirty AS t (span, start, marked_at, cleaned)
SELECT r.span, 'epoch'::timestamptz + r.start * interval '1 microsecond', clock_timestamp(), false
FROM json_to_recordset($1::json) AS r(span text, start bigint) ORDER BY r.span, r.start
ON CONFLICT (span, start) DO UPDATE SET marked_at = greatest(t.marked_at, excluded.marked_at)"""
"""Not over arrays: the driver looks their types up, which leaves traces behind a pooler."""

SQLITE_MARK: Final = """
INSERT INTO aiotrack_rollups_dirty AS t (span, start, marked_at, cleaned) VALUES (?, ?, ?, 0)
ON CONFLICT (span, start) DO UPDATE SET marked_at = max(t.marked_at, excluded.marked_at)"""


_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The monotonic clock stands still while a machine sleeps, and a mark would stay young for ever."""


def uptime() -> float:
    """Give seconds that pass whatever happens to this process and its host."""
    return time.clock_gettime(_CLOCK)


class Unmarked(Exception):
    """A write met periods that must be marked first; never leaves the repository."""

    def __init__(self, periods: list[Period]) -> None:
        super().__init__(periods)
        self.periods = periods


class Marks:
    """What this process has marked, and when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made: dict[Period, float] = {}

    def missing(self, moments: Collection[int]) -> list[Period]:
        """Give what must be marked before executions created at *moments* are changed.

        An hour is over when either clock says so: ours stands still while the machine sleeps. One
        mark too many does no harm.
        """
        if not moments:
            return []
        now = self._clock.now()
        latest = max(now, time.time_ns() // 1000)
        open_since = latest - latest % HOUR
        if min(moments) >= open_since:
            return []
        fresh = uptime() - RENEW
        periods = {period_of(moment, now) for moment in moments if moment < open_since}
        return sorted(one for one in periods if self._made.get(one, -math.inf) < fresh)

    def demand(self, pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Look at rows before and after a change: what ended must not change unmarked.

        Raises:
            Unmarked: Nothing may be written before these are.
        """
        moments = [
            row["created_at"]
            for pair in pairs
            if any(row["status"] in FINAL for row in pair)
            for row in pair
        ]
        periods = self.missing(moments)
        if periods:
            raise Unmarked(periods)

    def made(self, periods: Iterable[Period], begun: float) -> None:
        """Remember marks that are committed; *begun* is the `uptime` before they were."""
        if len(self._made) > MAX_KNOWN:
            self._made.clear()
        self._made.update(dict.fromkeys(periods, begun))

    def forget(self) -> None:
        """Take it that none is there any more."""
        self._made.clear()
