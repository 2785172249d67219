"""Asks executions to end: the wish is stored first, then each is looked at under its lock."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiotrack.body import find_task
from aiotrack.cancellation.feature import Cancellation
from aiotrack.cancellation.outcome import CancelOutcome
from aiotrack.model import TaskStatus
from aiotrack.report import History, Report, Witness
from aiotrack.verdicts import revoke

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.repository.control.cancels import Wish

BY_HAND = "manual:"
"""How runs are named that the user reports by himself: nobody here can end them."""


class _Look:
    """Each execution as it stands under its lock, and what is to become of it."""

    def __init__(self, wishes: dict[str, Wish], now: int) -> None:
        self.wishes = wishes
        self.outcomes: dict[str, CancelOutcome] = {}
        self.running: dict[str, Report] = {}
        self._now = now

    def change(self, history: History) -> Iterable[Report]:
        """Drop what waits; asked again after a conflict."""
        task_id, shown = history.task_id, history.shown()
        wish = self.wishes[task_id]
        self.running.pop(task_id, None)
        report = revoke(history, now=self._now, reason=wish.reason, by=wish.by)
        if report is not None:
            self.outcomes[task_id] = CancelOutcome.REVOKED
            return (report,)
        if not shown.status.is_final or shown.witness is Witness.PRESUMED:
            self.outcomes[task_id] = CancelOutcome.CANCELLING
            self.running[task_id] = shown
            return _signed(shown, wish)
        if shown.status is TaskStatus.REVOKED and wish.asked_at == self._now:
            self.outcomes[task_id] = CancelOutcome.REVOKED  # a worker was quicker to obey
        else:
            self.outcomes[task_id] = CancelOutcome.FINISHED
        return ()


def _signed(shown: Report, wish: Wish) -> Sequence[Report]:
    """Give a presumed end with who asked, and why: no run may be left to tell it.

    A run that does end tells its own word in its place.
    """
    if shown.witness is not Witness.PRESUMED or shown.cancelled_by or shown.cancel_reason:
        return ()
    report = replace(shown, cancel_reason=wish.reason, cancelled_by=wish.by, patch=None)
    report.origin.echoes = report.corrects = True
    return (report,)


async def ask(
    tracker: Lifecycle, core: Core, task_ids: Sequence[str], *, reason: str | None, by: str | None
) -> dict[str, CancelOutcome]:
    """End executions that are not over, or let who runs them know.

    Args:
        tracker: Its clock and its brokers.
        core: Of the running loop.
        task_ids: As they are stored; a few hundred at most.
        reason: Why.
        by: Who.

    Returns:
        What became of each; those that nobody knows are missing.

    Raises:
        StoreUnavailable: The database did not answer; what it took is done all the same.
    """
    from aiotrack.repository.control.cancels import Cancels

    await core.repository.connect()  # it knows what time it is
    now = tracker.clock.now()
    cancels = Cancels(core.repository)
    look = _Look(await cancels.ask(task_ids, now=now, reason=reason, by=by), now)
    known = await core.repository.revise(list(look.wishes), look.change)
    found = {task_id: look.outcomes[task_id] for task_id in known}
    feature = core.feature(Cancellation)
    stuck = {  # looked at now: what is interrupted may be over before the database has answered
        task_id
        for task_id, run in look.running.items()
        if run.run_id.startswith(BY_HAND) or feature.is_in_thread(run.run_id)
    }
    over = {None, CancelOutcome.FINISHED}
    wishes = look.wishes.values()
    await feature.tell(wish for wish in wishes if found.get(wish.task_id) not in over)
    await cancels.withdraw(
        wish for wish in wishes if wish.asked_at == now and found.get(wish.task_id) in over
    )
    workers = await cancels.tasks_of(run.worker for run in look.running.values() if run.worker)
    for task_id, run in look.running.items():
        tasks = workers.get(run.worker or "", {})
        if task_id in stuck or not _is_async(tracker, run.origin.task_name, tasks):
            found[task_id] = CancelOutcome.NOT_INTERRUPTIBLE
    return found


def _is_async(tracker: Lifecycle, name: str, tasks: Mapping[str, Any]) -> bool:
    """Tell whether a body can be cancelled: its worker told, or we know the function."""
    if name in tasks:
        return bool(tasks[name])
    found = find_task(tracker.brokers, name)
    return found is None or inspect.iscoroutinefunction(found[1].original_func)
