"""Histories as TaskIQ's admin middleware posts them, and what a person expects of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from aiotrack.report import Origin, Report
from aiotrack.retelling import executed, queued, started

SECOND = 1_000_000
BEGIN = 1_700_000_000 * SECOND
HANDED_BACK = "taskiq.exceptions.NoResultError()"


@dataclass(slots=True)
class Story:
    """The posts of one task, in the order in which they happened."""

    posts: list[Report] = field(default_factory=list)
    task_id: str = "told"

    def _origin(self, at: float, name: str = "shop.pay") -> Origin:
        kwargs = '{"order": 7}' if name else "{}"
        return Origin(
            self.task_id, name, name.partition(".")[0], BEGIN + round(at * SECOND), kwargs=kwargs
        )

    def queued(self, at: float, attempt: int = 1) -> Story:
        """Tell of a send."""
        self.posts.append(queued(self._origin(at), {"_retries": str(attempt - 1)}))
        return self

    def started(self, at: float, attempt: int = 1, requeues: int = 0) -> Story:
        """Tell of a start."""
        labels = {"_retries": attempt - 1, "X-Taskiq-requeue": str(requeues)}
        moment = BEGIN + round(at * SECOND)
        self.posts.append(started(self._origin(at), labels, moment, "main"))
        return self

    def executed(
        self, at: float, took: float = 0.0, *, result: Any = None, error: str | None = None
    ) -> Story:
        """Tell of an end; TaskIQ rounds what it took."""
        moment = BEGIN + round(at * SECOND)
        text = None if result is None else json.dumps(result)
        origin = Origin(self.task_id, "", "", moment, echoes=True)
        self.posts.append(executed(origin, moment, round(took, 2), result=text, error=error))
        return self


Told = tuple[str, int, list[tuple[int, str, float | None]]]
"""Status, attempt; and of each run its attempt, its status and when it was over, in seconds."""

STORIES: dict[str, tuple[Story, Told]] = {
    "a success": (
        Story().queued(0).started(1).executed(2, 1, result="paid"),
        ("SUCCESS", 1, [(1, "SUCCESS", 2)]),
    ),
    "a success in no time": (
        Story().queued(0).started(0).executed(0, 0, result="paid"),
        ("SUCCESS", 1, [(1, "SUCCESS", 0)]),
    ),
    "a failure": (
        Story().queued(0).started(1).executed(2, 1, error="ValueError('no')"),
        ("FAILURE", 1, [(1, "FAILURE", 2)]),
    ),
    "still running": (Story().queued(0).started(1), ("STARTED", 1, [(1, "STARTED", None)])),
    "nobody reported the send": (
        Story().started(1).executed(2, 1),
        ("SUCCESS", 1, [(1, "SUCCESS", 2)]),
    ),
    "a retry that succeeds": (
        Story()
        .queued(0)
        .started(1)
        .queued(1.5, 2)
        .executed(2, 1, error=HANDED_BACK)
        .started(3, 2)
        .executed(4, 1, result="paid"),
        ("SUCCESS", 2, [(1, "RETRY", 2), (2, "SUCCESS", 4)]),
    ),
    "a retry that runs": (
        Story().queued(0).started(1).queued(1.5, 2).executed(2, 1, error=HANDED_BACK).started(3, 2),
        ("STARTED", 2, [(1, "RETRY", 2), (2, "STARTED", None)]),
    ),
    "a retry that waits": (
        Story().queued(0).started(1).queued(1.5, 2).executed(2, 1, error=HANDED_BACK),
        ("RETRY", 2, [(1, "RETRY", 2)]),
    ),
    "a retry that a schedule holds": (
        Story().queued(0).started(1).executed(2, 1, error=HANDED_BACK),
        ("RETRY", 2, [(1, "RETRY", 2)]),
    ),
    "retries that keep the error": (
        Story()
        .queued(0)
        .started(1)
        .queued(1.5, 2)
        .executed(2, 1, error="ValueError('no')")
        .started(3, 2)
        .executed(4, 1, error="ValueError('never')"),
        ("FAILURE", 2, [(1, "RETRY", 2), (2, "FAILURE", 4)]),
    ),
    "three attempts at once, as fast as they are": (
        Story()
        .queued(0)
        .started(0.001)
        .started(0.002, 2)
        .executed(0.004, 0.006, error="OSError()")
        .executed(0.003, 0.0, error=HANDED_BACK),
        ("FAILURE", 2, [(1, "RETRY", 0.003), (2, "FAILURE", 0.004)]),
    ),
    "the end of the first attempt is late": (
        Story()
        .started(1)
        .started(2, 2)
        .executed(3, 1, result="paid")
        .executed(3.5, 0.5, error=HANDED_BACK),
        ("SUCCESS", 2, [(1, "RETRY", 3.5), (2, "SUCCESS", 3)]),
    ),
    "a second worker whose clock is behind": (
        Story()
        .started(10)
        .executed(11, 1, error=HANDED_BACK)
        .started(5, 2)
        .executed(6, 1, result="paid"),
        ("SUCCESS", 2, [(2, "SUCCESS", 6), (1, "RETRY", 11)]),
    ),
    "a requeue": (
        Story()
        .queued(0)
        .started(1)
        .executed(2, 1, error=HANDED_BACK)
        .started(3, requeues=1)
        .executed(4, 1, result="paid"),
        ("SUCCESS", 1, [(1, "PENDING", 2), (1, "SUCCESS", 4)]),
    ),
    "a worker was killed": (
        Story().queued(0).started(1).started(60).executed(61, 1, result="paid"),
        ("SUCCESS", 1, [(1, "STARTED", None), (1, "SUCCESS", 61)]),
    ),
    "the end of the first attempt was lost": (
        Story().queued(0).started(1).queued(2, 2).started(3, 2).executed(4, 1, error="OSError()"),
        ("FAILURE", 2, [(1, "STARTED", None), (2, "FAILURE", 4)]),
    ),
    "only the end came": (Story().executed(2, 1, result="paid"), ("SUCCESS", 1, [])),
}
