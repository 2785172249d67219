"""Tasks of our own that a schedule runs: once for each time they are due, across a fleet.

A new sweep is a `Sweep` in a module of its own, a line in ``feature.SWEEPS``, and its settings.
"""

from __future__ import annotations

from aiotrack.sweeps.feature import Sweeps
from aiotrack.sweeps.sweep import Sweep

__all__ = ["Sweep", "Sweeps"]
