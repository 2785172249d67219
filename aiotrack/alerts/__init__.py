"""What somebody ought to see to: told once when it begins, and once when it is over."""

from __future__ import annotations

from aiotrack.alerts.feature import Alerts
from aiotrack.alerts.verbs import Watch

__all__ = ["Alerts", "Watch"]
