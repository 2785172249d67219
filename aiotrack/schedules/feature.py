"""A tracker's schedules in one event loop: one connection to Redis, opened on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiotrack.errors import ScheduleUnavailable
from aiotrack.feature import Feature

if TYPE_CHECKING:
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.schedules.timetable import Timetable

NO_REDIS: Final = (
    "this tracker has no Redis; schedules need it: Tracker(..., redis='redis://host:6379/0') or "
    "AIOTRACK_REDIS_URL"
)


class Timetables(Feature):
    """Where the verbs find the live state."""

    _table: Timetable | None = None

    def table(self) -> Timetable:
        """Give it.

        Raises:
            ScheduleUnavailable: The tracker has no Redis.
        """
        if self._table is None:
            self._table = new_table(self.tracker)
        return self._table

    async def close(self, *, for_good: bool) -> None:
        """Disconnect."""
        if self._table is not None and for_good:
            table, self._table = self._table, None
            await table.close()


def new_table(tracker: Lifecycle) -> Timetable:
    """Make a connection of its own.

    Raises:
        ScheduleUnavailable: The tracker has no Redis.
    """
    if tracker.redis is None:
        raise ScheduleUnavailable(NO_REDIS)
    from aiotrack.schedules.timetable import Timetable

    return Timetable(tracker.redis, tracker.options.namespace)
