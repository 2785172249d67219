"""The database's clock as seen from here: one measured offset over the monotonic clock.

Hosts whose clocks differ must not change an order or a verdict, so every stored time is on the
database's clock. Tests replace `Clock` by one that they move by hand.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from aiotrack.errors import InvalidValue

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """Microseconds since 1970 UTC that never jump, shifted to the database's clock once known."""

    def __init__(self) -> None:
        self._base = time.time_ns() - time.monotonic_ns()
        self.known = False
        """Whether a database has told its time; until then it is this host's clock."""

    def now(self) -> int:
        """Give the moment in microseconds."""
        return (time.monotonic_ns() + self._base) // 1000

    def learn(self, database_now: int, round_trip: float) -> None:
        """Take the database's time (microseconds), read half a *round_trip* (seconds) ago.

        The first answer stays for the life of the process, so that all reports of a run agree.
        """
        if not self.known:
            here = database_now + int(round_trip * 500_000)
            self._base += (here - self.now()) * 1000
            self.known = True


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
