"""What became of a wish to end an execution."""

from __future__ import annotations

from enum import StrEnum


class CancelOutcome(StrEnum):
    """What became of a wish to end an execution."""

    REVOKED = "revoked"
    """It waited, and is over: no worker runs it any more."""
    CANCELLING = "cancelling"
    """It runs: its body gets a `CancelledError` within a second."""
    NOT_INTERRUPTIBLE = "not_interruptible"
    """Its body is a sync function, or not ours: it runs on, unless it looks by itself."""
    FINISHED = "finished"
    """It was over before; nothing has changed."""
