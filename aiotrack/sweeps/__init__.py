"""Tasks of our own that a schedule runs: once for each time they are due, across a fleet.

A new sweep is a `Sweep` in a module of its own, a line in ``Sweeps.sweeps``, and its settings.
"""

from __future__ import annotations

from aiotrack.sweeps.cleanup import CLEANUP
from aiotrack.sweeps.feature import Sweeps, must_be_recorded_since, schedules
from aiotrack.sweeps.mark_timed_out import MARK_TIMED_OUT

__all__ = ["CLEANUP", "MARK_TIMED_OUT", "Sweeps", "must_be_recorded_since", "schedules"]
