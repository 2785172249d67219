"""``tracker.definitions`` and ``tracker.schedules``: the one hears what becomes of the other."""

from __future__ import annotations

from aiotrack.definitions import Definitions
from aiotrack.records import Records
from aiotrack.schedules import Schedules


class Scheduling(Records):
    """Task definitions, and when they are sent; see `Tracker`."""

    @property
    def definitions(self) -> Definitions:
        """Task definitions: ``create``, ``get``, ``update``, ``delete``, ``list``, ``stats``."""
        return Definitions(self, self.schedules)

    @property
    def schedules(self) -> Schedules:
        """Their schedules: ``start``, ``stop``, ``pause``, ``resume``, ``trigger``, ``status``."""
        return Schedules(self)
