"""Registers the sweeps on every broker, and runs what a schedule sends."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from aiotrack import by_hand
from aiotrack.clock import to_datetime
from aiotrack.feature import Feature
from aiotrack.sweep import LONGEST, Sweep, always
from aiotrack.sweeps.cleanup import CLEANUP
from aiotrack.sweeps.due import due_times_ago, is_crontab, last_due
from aiotrack.sweeps.mark_timed_out import MARK_TIMED_OUT
from aiotrack.sweeps.rescue_lost import RESCUE_LOST
from aiotrack.sweeps.roll_up import ROLL_UP

if TYPE_CHECKING:
    from taskiq import AsyncBroker, ScheduledTask

    from aiotrack.lifecycle import Lifecycle
    from aiotrack.tracker import Tracker

log = logging.getLogger(__name__)


class Sweeps(Feature):
    """The tracker's own tasks: those of this folder, and those of other features."""

    sweeps: ClassVar[tuple[Sweep, ...]] = (ROLL_UP, CLEANUP, MARK_TIMED_OUT, RESCUE_LOST)

    @classmethod
    def attach(cls, tracker: Lifecycle, broker: AsyncBroker) -> None:
        """Register a task for each sweep, before any schedule source looks for tasks.

        A sweep that is switched off has a task without a schedule: a copy that is still queued
        does nothing.
        """
        for sweep in _sweeps(tracker):
            labels = _labels(sweep, tracker) if sweep.is_on(tracker.options) else {}
            broker.register_task(
                _task(tracker, sweep), task_name=sweep.task_name, track=False, **labels
            )

    async def perform(self, sweep: Sweep, options: Mapping[str, Any], *, scheduled: bool) -> Any:
        """Run a sweep and record it, if there is anything to do.

        Args:
            sweep: Which.
            options: Keywords of its verb.
            scheduled: Only the first that comes for a due time runs; by hand every one does.
        """
        settings, core = self.tracker.options, self.core
        if scheduled and not sweep.is_on(settings):
            return None
        await core.repository.connect()  # it knows what time it is
        if scheduled and not await sweep.is_due(core):
            return None
        now = self.tracker.clock.now()
        at = last_due(_schedule(sweep, self.tracker), now) if scheduled else now
        tracker = cast("Tracker", self.tracker)
        mark = f"{to_datetime(at):%Y-%m-%dT%H:%M:%S{'' if scheduled else '.%f'}Z}"
        run = by_hand.begin_sweep(tracker, sweep.task_name, mark, options)
        run.origin.time_limit = LONGEST  # then another sweep presumes that it was killed
        if not await core.repository.claim(run.started()):
            return None  # another worker has it
        error: BaseException | None = None
        try:
            run.result = await sweep.run(core, **options)
        except BaseException as raised:
            error = raised
            raise
        finally:
            await core.recorder.commit(by_hand.end(tracker, run, error))
            by_hand.leave(run)
        return run.result


def _sweeps(tracker: Lifecycle) -> Iterator[Sweep]:
    for kind in tracker.features:
        yield from kind.sweeps


def _task(tracker: Lifecycle, sweep: Sweep) -> Any:
    """Make the task: a function of its own for each broker and tracker."""

    async def task(*, scheduled: bool = False, **options: Any) -> Any:
        sweeps = tracker.core().feature(Sweeps)
        try:
            return await sweeps.perform(sweep, options, scheduled=scheduled)
        except Exception as error:
            if not scheduled:
                raise
            log.error("%s failed; it comes again at its next time: %s", sweep.task_name, error)
            return None

    return task


def _labels(sweep: Sweep, tracker: Lifecycle) -> dict[str, Any]:
    entry = {"schedule_id": sweep.task_name, "kwargs": {"scheduled": True}}
    return {"schedule": [_when(sweep, tracker) | entry]}


def schedules(tracker: Lifecycle) -> list[ScheduledTask]:
    """Give an entry for each sweep that is switched on, as schedule sources take them."""
    from taskiq import ScheduledTask

    return [
        ScheduledTask(
            task_name=sweep.task_name,
            schedule_id=sweep.task_name,
            labels={"track": False},
            args=[],
            kwargs={"scheduled": True},
            **_when(sweep, tracker),
        )
        for sweep in _sweeps(tracker)
        if sweep.is_on(tracker.options)
    ]


def must_be_recorded_since(tracker: Lifecycle, times: int) -> int | None:
    """Give since when a scheduler that runs has left a record, as microseconds.

    Only sweeps that are recorded whenever they are due tell it, the most frequent of them first.

    Args:
        tracker: Whose clock knows the database's time.
        times: Due times that may have been missed, besides the last one.

    Returns:
        None where nobody can know: none of these sweeps is on, or comes at least once a day.
    """
    now = tracker.clock.now()
    found = [
        due_times_ago(_schedule(sweep, tracker), now, times)
        for sweep in _sweeps(tracker)
        if sweep.is_on(tracker.options) and sweep.is_due is always
    ]
    return max((one for one in found if one is not None), default=None)


def _when(sweep: Sweep, tracker: Lifecycle) -> dict[str, Any]:
    schedule = _schedule(sweep, tracker)
    if isinstance(schedule, str):
        return {"cron": schedule}
    told = sweep.crontab(tracker.options)
    log.error("%s: %r is no crontab; every %d s instead", sweep.task_name, told, schedule)
    return {"interval": schedule}


def _schedule(sweep: Sweep, tracker: Lifecycle) -> str | int:
    """Give the crontab, or seconds where it cannot be read."""
    crontab = sweep.crontab(tracker.options)
    return crontab if is_crontab(crontab) else sweep.fallback(tracker.options)
