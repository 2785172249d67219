"""Schedules: when definitions are sent. Live state in Redis, fed to TaskIQ's scheduler."""

from __future__ import annotations

from aiotrack.schedules.feature import Timetables
from aiotrack.schedules.verbs import Schedules

__all__ = ["Schedules", "Timetables"]
