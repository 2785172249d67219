"""Ends executions: a wish is stored, every worker hears of it, the one that runs it obeys."""

from __future__ import annotations

from aiotrack.cancellation.feature import Cancellation
from aiotrack.cancellation.outcome import CancelOutcome
from aiotrack.cancellation.verbs import Cancelling, raise_if_cancelled

__all__ = ["CancelOutcome", "Cancellation", "Cancelling", "raise_if_cancelled"]
