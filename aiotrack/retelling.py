"""What TaskIQ's admin middleware posts of a task, put together to runs, in whatever order it comes.

Three posts tell of a run: queued, started, executed. They come late, twice, in any order, or never,
and ``executed`` says neither the task's name nor the attempt. So every post is kept as an item of
the record, and what it means is worked out anew, from all of them, whenever one comes in: the
outcome depends on which posts came, never on their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from aiotrack.hearsay import HEARSAY
from aiotrack.labels import REQUEUES, RETRIES, number
from aiotrack.model import TaskStatus
from aiotrack.report import History, Micros, Origin, Report, Witness, canonical

QUEUED: Final = f"!{HEARSAY}queued:"
STARTED: Final = HEARSAY
EXECUTED: Final = f"!{HEARSAY}executed:"

ROUNDED: Final = 10_000
"""Microseconds to which TaskIQ rounds ``execution_time``."""

_HANDED_BACK: Final = re.compile(r"(?:[\w.]*\.)?NoResultError\(")
_REVOKED: Final = re.compile(r"(?:[\w.]*\.)?TaskCancelled\(")
_TYPE: Final = re.compile(r"([^\W\d][\w.]{0,199})\(")


def queued(origin: Origin, labels: Mapping[str, Any]) -> Report:
    """Give the item of a send; that of a retry says that there is one more attempt."""
    attempt = attempt_of(labels)
    return Report(origin, Witness.SENT, TaskStatus.PENDING, f"{QUEUED}{attempt}", attempt)


def started(
    origin: Origin, labels: Mapping[str, Any], started_at: Micros, worker: str | None
) -> Report:
    """Give the item of a start, which is a run."""
    attempt, requeues = attempt_of(labels), max(0, number(labels.get(REQUEUES)))
    return Report(
        origin,
        Witness.STARTED,
        TaskStatus.STARTED,
        f"{STARTED}{attempt}:{requeues}:{started_at}",
        attempt,
        requeues,
        worker=worker,
        started_at=started_at,
    )


def executed(
    origin: Origin,
    finished_at: Micros,
    duration: float,
    *,
    result: str | None,
    error: str | None,
) -> Report:
    """Give the item of an end: of which run is found out later.

    Args:
        origin: With no facts but the task_id.
        finished_at: When it was over.
        duration: Seconds.
        result: JSON text.
        error: The exception's repr, None when it succeeded.
    """
    return Report(
        origin,
        Witness.RELAYED,
        TaskStatus.SUCCESS if error is None else TaskStatus.FAILURE,
        f"{EXECUTED}{finished_at}",
        started_at=max(0, finished_at - int(duration * 1_000_000)),
        finished_at=finished_at,
        duration=duration,
        result=result,
        error=error,
        error_type=None if error is None else _type_of(error),
    )


def attempt_of(labels: Mapping[str, Any]) -> int:
    """Give the number of the attempt that a message is for."""
    found: int = max(0, number(labels.get(RETRIES))) + 1
    return found


def _type_of(error: str) -> str | None:
    found = _TYPE.match(error)
    return None if found is None else found[1]


def take_in(post: Report) -> Callable[[History], Iterable[Report]]:
    """Give the change that a post makes to a record, for `Repository.modify`."""

    def change(history: History) -> Iterable[Report]:
        before = _Posts.of(history.items)
        after = _Posts.of({**history.items, post.run_id: post})
        old = before.retold()
        for run_id, report in after.retold().items():
            known = history.items.get(run_id)
            is_same = run_id in old and canonical(old[run_id]) == canonical(report)
            if is_same and run_id != post.run_id:
                continue
            # What others made of a run since then (a verdict, a change by hand) is only outdone.
            report.corrects = (
                known is not None and run_id in old and canonical(known) == canonical(old[run_id])
            )
            report.origin = post.origin if run_id == post.run_id else _silent(history.task_id)
            yield report

    return change


def _silent(task_id: str) -> Origin:
    """Give an origin that tells no facts."""
    return Origin(task_id, "", "", 0, echoes=True)


@dataclass(slots=True)
class _Posts:
    """The posts about one task, and what they tell together."""

    sends: list[Report] = field(default_factory=list)
    starts: list[Report] = field(default_factory=list)
    ends: list[Report] = field(default_factory=list)
    cancels: list[Report] = field(default_factory=list)

    @classmethod
    def of(cls, items: Mapping[str, Report]) -> _Posts:
        """Pick the posts from the items of a history, each as it came."""
        posts = cls()
        for run_id, item in items.items():
            if run_id.startswith(QUEUED):
                posts.sends.append(item)
            elif run_id.startswith(STARTED):
                posts.starts.append(_as_started(item))
            elif run_id.startswith(EXECUTED):
                posts.ends.append(_as_executed(item))
            elif item.status is TaskStatus.REVOKED:
                posts.cancels.append(item)
        posts.starts.sort(key=lambda one: (one.attempt, one.requeues, one.started_at, one.run_id))
        posts.ends.sort(key=lambda one: (not _is_handed_back(one), one.finished_at, one.run_id))
        return posts

    @property
    def last_attempt(self) -> int:
        """The greatest number that anything tells of."""
        return max((one.attempt for one in (*self.sends, *self.starts)), default=1)

    def retold(self) -> dict[str, Report]:
        """Give what each post tells now, by its run_id."""
        told = {one.run_id: one for one in (*self.sends, *self.starts)}
        found = self._pairs()
        for position, end in enumerate(self.ends):
            start = found.get(position)
            if start is None:
                told[end.run_id] = self._alone(end, position + 1)
            else:
                told[start.run_id] = self._ended(start, end)
                told[end.run_id] = replace(end, attempt=0, set_aside=True)  # its run tells it
        return told

    def _pairs(self) -> dict[int, Report]:
        """Find the start that belongs to each end, by the position of the end.

        Both are in the order in which they must have happened: a run that was handed back comes
        before the one that was not. From the last end on, each takes the latest start that is left.
        While there is a start for every end, enough of them are left to those before.
        """
        found = {}
        free = len(self.starts)
        is_complete = len(self.ends) <= free
        for position in reversed(range(len(self.ends))):
            end = self.ends[position]
            fits = [
                (self._is_followed(index) or not _is_handed_back(end), is_in_time, index)
                for index in range(position if is_complete else 0, free)
                for is_in_time in [_is_in_time(self.starts[index], end)]
                if is_in_time or is_complete
            ]
            if fits:
                free = max(fits)[2]
                found[position] = self.starts[free]
        return found

    def _is_followed(self, index: int) -> bool:
        """Whether there is a run after one: what was handed back was not the last."""
        return index + 1 < len(self.starts) or self.starts[index].attempt < self.last_attempt

    def _alone(self, end: Report, number_of_end: int) -> Report:
        """Give an end whose start nobody told yet, as an item of the attempt that it may be of."""
        last = 1 if _is_handed_back(end) else self.last_attempt
        return self._outcome(replace(end, attempt=max(number_of_end, last), set_aside=False), end)

    def _ended(self, start: Report, end: Report) -> Report:
        run = replace(
            start,
            finished_at=max(start.started_at or 0, end.finished_at or 0),
            duration=end.duration,
            result=end.result,
        )
        if not _is_handed_back(end):  # what was raised, nobody told
            run.error, run.error_type = end.error, end.error_type
        return self._outcome(run, end)

    def _outcome(self, run: Report, end: Report) -> Report:
        """Put into a run what its end means, seen beside all others."""
        run.witness, run.status = Witness.RELAYED, TaskStatus.SUCCESS
        if end.error is None:
            return run
        was_requeued = any(
            one.attempt == run.attempt and one.requeues > run.requeues for one in self.starts
        )
        if _is_handed_back(end) or run.attempt < self.last_attempt:
            run.witness, run.status = Witness.HANDED_BACK, TaskStatus.RETRY
            if _is_handed_back(end) and was_requeued:
                run.status = TaskStatus.PENDING
        elif _REVOKED.match(end.error):
            run.status = TaskStatus.REVOKED
            for cancel in self.cancels:
                run.cancel_reason, run.cancelled_by = cancel.cancel_reason, cancel.cancelled_by
        else:
            run.status = TaskStatus.FAILURE
        return run


def _as_started(item: Report) -> Report:
    """Give a start as it was told, whatever the run has become."""
    return Report(
        item.origin,
        Witness.STARTED,
        TaskStatus.STARTED,
        item.run_id,
        item.attempt,
        item.requeues,
        worker=item.worker,
        started_at=item.started_at,
    )


def _as_executed(item: Report) -> Report:
    """Give an end as it was told, whichever attempt it was found to be of."""
    return replace(
        item,
        witness=Witness.RELAYED,
        status=TaskStatus.SUCCESS if item.error is None else TaskStatus.FAILURE,
        attempt=1,
        set_aside=False,
        cancel_reason=None,
        cancelled_by=None,
        patch=None,
        corrects=False,
    )


def _is_handed_back(end: Report) -> bool:
    return end.error is not None and _HANDED_BACK.match(end.error) is not None


def _is_in_time(start: Report, end: Report) -> bool:
    return (start.started_at or 0) <= (end.started_at or 0) + ROUNDED
