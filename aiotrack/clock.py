"""The database's clock as seen from here: one measured offset over the monotonic clock.

Hosts whose clocks differ must not change an order or a verdict, so every stored time is on the
database's clock. Before a database has told its time a moment is *unsettled*: the bare monotonic
clock, marked by its size, and settled when it is written. The host's own clock is asked only for
journals that outlive a reboot. Tests replace `Clock` by one that they move by hand.
"""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from aiotrack.errors import InvalidValue

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FIRST_MOMENT = -62_104_060_800_000_000
LAST_MOMENT = 253_370_764_800_000_000
"""Microseconds: the years 2 and 9999, with room for an offset and for what a task takes before
Python knows no time. What is stored lies between them: one row beyond fails every list."""

UNSETTLED = 1 << 60
"""What marks a moment without a date: it is this plus the monotonic clock's microseconds."""


class Clock:
    """Microseconds since 1970 UTC on the database's clock, unsettled until it is known."""

    def __init__(self) -> None:
        self._base = UNSETTLED * 1000
        self._first = 0
        self.known = False
        """Whether a database has told its time."""

    def now(self) -> int:
        """Give the moment in microseconds."""
        return (time.monotonic_ns() + self._base) // 1000

    def learn(self, database_now: int, round_trip: float) -> None:
        """Take the database's time (microseconds), read half a *round_trip* (seconds) ago.

        Later answers correct what drifted: only by more than the round trip leaves in doubt.
        """
        doubt = int(round_trip * 500_000)
        step = database_now + doubt - self.now()
        if self.known and abs(step) <= doubt:
            return
        self._base += step * 1000
        if not self.known:
            self._first = self._base // 1000
            self.known = True

    def settle(self, moment: int) -> int:
        """Put a moment on the database's clock, by its first answer: a run's reports agree."""
        return moment if moment < UNSETTLED else moment - UNSETTLED + self._first


@functools.cache
def boot_id() -> str:
    """Name what shares our monotonic clock: this boot, or this process where boots have no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return uuid4().hex


def host_offset() -> int:
    """Give what turns the monotonic clock into the host's own, in microseconds."""
    return (time.time_ns() - time.monotonic_ns()) // 1000


def settle_by_host(moment: int, offset: int) -> int:
    """Put a moment on the clock of its host: after a reboot there is no other."""
    return moment if moment < UNSETTLED else moment - UNSETTLED + offset


def to_datetime(moment: int | None) -> datetime | None:
    """Turn microseconds into an aware UTC time."""
    return None if moment is None else EPOCH + timedelta(microseconds=moment)


def to_micros(moment: datetime, name: str = "time") -> int:
    """Turn an aware time into microseconds.

    Raises:
        InvalidValue: The time has no offset; *name* is put into the message.
    """
    if not isinstance(moment, datetime):
        raise InvalidValue(f"{name} must be a datetime, not {type(moment).__name__}")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidValue(f"{name} has no offset: use datetime.now(UTC) or .replace(tzinfo=UTC)")
    return (moment - EPOCH) // timedelta(microseconds=1)


def to_stored(moment: datetime, name: str) -> int:
    """Turn an aware time that is to be stored into microseconds.

    Raises:
        InvalidValue: It has no offset, or is none that every reader could show.
    """
    found = to_micros(moment, name)
    if not FIRST_MOMENT <= found < LAST_MOMENT:
        raise InvalidValue(f"{name} is a time before the year 2, or after the year 9998")
    return found
