"""Sends tasks by name: checked, with a priority and a time limit, after others, never too many."""

from __future__ import annotations

from aiotrack.submission.feature import Submission
from aiotrack.submission.verbs import Submitting

__all__ = ["Submission", "Submitting"]
