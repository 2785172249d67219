"""What another tool told of a run, and when that counts. Standard library only.

TaskIQ's own admin middleware tells of runs over HTTP, one of ours tells of them itself. Where both
look at the same tasks nothing may be counted twice: hearsay counts only where nobody of ours saw a
run. That is said of a whole history, never when a report comes in, so no order matters.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

HEARSAY: Final = "admin:"
"""How the run_ids of such runs begin; with a ``!`` before it those of posts that are no run."""


def is_hearsay(run_id: str) -> bool:
    """Whether another tool told it."""
    return run_id.startswith((HEARSAY, f"!{HEARSAY}"))


def is_eyewitness(run_id: str) -> bool:
    """Whether a run was seen by a middleware of ours, or by the code that it tracks."""
    return run_id != "" and ":" not in run_id


def is_outdone(run_ids: Collection[str]) -> bool:
    """Whether hearsay among these does not count."""
    return any(map(is_hearsay, run_ids)) and any(map(is_eyewitness, run_ids))
