"""The sweep that ends what runs, or waits, for too long: see docs/how-to/end-what-hangs.md.

Its verdict is presumed: it yields to the worker's own word, whenever that comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiotrack import results
from aiotrack.classes import TIMEOUT
from aiotrack.model import OWN_MODULE, TaskStatus
from aiotrack.report import History, Report
from aiotrack.row_settings import RowSettings
from aiotrack.settings import NEVER, check_number, known
from aiotrack.sweep import Sweep
from aiotrack.sweeps.asking import BATCH, ask, fill
from aiotrack.verdicts import presume

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.repository.control.unfinished import Open

log = logging.getLogger(__name__)

PAGE: Final = 1000
"""Executions of one read: about 5 ms."""

ASK: Final = 10.0
"""Seconds for all questions to the result backends of one sweep about those that are late, and as
many for all others. Whoever is not asked within them is judged without: the verdict yields to the
truth, and the next sweep has the same seconds."""

_SAID: Final = {
    TaskStatus.STARTED: "it ran for more than {0}",
    TaskStatus.RETRY: "it waited for its retry for more than {0}",
    TaskStatus.PENDING: "nobody began it within {0}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """How long an execution may take. Minutes; -1 is for ever.

    Attributes:
        told: By an argument, for all.
        general: For those who say nothing else.
        is_chosen: Somebody set *general*: it holds for runs of living workers, too.
        pending: For work that nobody began.
        grace: Seconds that a worker has to tell of an end by a run's own limit.
        claimed: The run_ids that living workers name.
    """

    told: float | None
    general: float
    is_chosen: bool
    pending: float
    grace: float
    claimed: frozenset[str] = field(repr=False)

    def of(self, one: Open) -> float | None:
        """Give the seconds that an execution may take; None is for ever."""
        if one.status == TaskStatus.PENDING:
            return _seconds(self.pending)
        if one.module == OWN_MODULE:  # of a sweep that was killed; never the one that looks
            return _seconds(_DEFAULT) if one.time_limit is None else one.time_limit
        if self.told is not None:
            return _seconds(self.told)
        if one.status == TaskStatus.STARTED and one.time_limit is not None:
            return one.time_limit + self.grace
        is_spared = one.minutes is None and not self.is_chosen and one.run_id in self.claimed
        minutes = self.general if one.minutes is None else one.minutes
        return None if is_spared else _seconds(minutes)

    def is_late(self, one: Open, now: int) -> bool:
        """Tell whether a plain read shows it as one that takes too long."""
        return _is_over(self.of(one), one.started_at or one.created_at, now)


_DEFAULT: Final[Any] = known("timeout_minutes").default


def _seconds(minutes: float) -> float | None:
    return None if minutes == NEVER else minutes * 60


async def _run(core: Core, *, timeout_minutes: float | None = None) -> int:
    """End what takes too long, and give how many executions that were.

    Args:
        core: Of the running loop.
        timeout_minutes: For all that runs or waits for a retry; None: what the settings say.
    """
    if timeout_minutes is not None:
        check_number("timeout_minutes", timeout_minutes)
    limits = await _limits(core, timeout_minutes)
    await fill(core, ASK, limits.claimed, limits.is_late)
    deadline = asyncio.get_running_loop().time() + ASK
    done = 0
    async for late in _late(core, limits):
        told = await _told(core, late, deadline)
        for first in range(0, len(late), BATCH):
            done += await _judge(core, late[first : first + BATCH], limits, told)
    return done


async def _told(core: Core, late: Sequence[Open], deadline: float) -> Mapping[str, results.Outcome]:
    """Ask the result backends first: what is known there needs no verdict."""
    if not core.tracker.brokers:
        return {}
    answers = await ask(core, late, deadline)
    if answers.is_cut:
        log.warning("mark_timed_out judges without the result backend: it takes too long")
    return answers.found


async def _limits(core: Core, told: float | None) -> _Limits:
    options = core.tracker.options
    general = await RowSettings(core.tracker).explain("timeout_minutes")
    living = await core.repository.unfinished.living(core.tracker.clock.now())
    ours = {run.run_id for run in core.recorder.running}
    pending = options.pending_timeout_minutes
    return _Limits(
        told=told,
        general=general.value,
        is_chosen=general.layer != "default",
        pending=NEVER if pending is None else pending,
        grace=options.commit_budget,
        claimed=living.runs | ours,
    )


async def _late(core: Core, limits: _Limits) -> AsyncIterator[Sequence[Open]]:
    """Give those that seem to be late, page by page, as a plain read shows them."""
    words = [TaskStatus.STARTED, TaskStatus.RETRY]
    if limits.pending != NEVER:
        words.append(TaskStatus.PENDING)
    for word in words:
        last = None
        while True:
            now = core.tracker.clock.now()
            page = await core.repository.unfinished.page(
                word.value, after=last, until=now, size=PAGE
            )
            late = [one for one in page if limits.is_late(one, now)]
            if late:
                yield late
            if len(page) < PAGE:
                break
            last = page[-1]


def _is_over(limit: float | None, since: int, now: int) -> bool:
    return limit is not None and since + int(limit * 1e6) <= now


async def _judge(
    core: Core,
    late: Sequence[Open],
    limits: _Limits,
    told: Mapping[str, results.Outcome],
) -> int:
    """Look again under the lock, and end those that are late then; give how many."""
    now = core.tracker.clock.now()
    known_as = {one.task_id: one for one in late}
    verdicts: dict[str, bool] = {}

    def change(history: History) -> list[Report]:
        verdicts[history.task_id] = False  # a conflict asks again
        outcome = told.get(history.task_id)
        if outcome is not None:
            found = list(outcome.on(now, core.tracker)(history))
            if found:
                return found
        report = _verdict(history, known_as[history.task_id], limits, now)
        verdicts[history.task_id] = report is not None
        return [] if report is None else [report]

    await core.repository.revise([*known_as], change)
    return sum(verdicts.values())


def _verdict(history: History, one: Open, limits: _Limits, now: int) -> Report | None:
    """Give the presumed end; None for what is not the run any more that seemed to be late."""
    shown = history.shown()
    if (shown.status, shown.run_id, shown.shown_attempt) != (one.status, one.run_id, one.attempt):
        return None
    since = shown.started_at or history.created_at
    if shown.status is not TaskStatus.STARTED:
        since = shown.finished_at or since  # when it was handed back
    limit = limits.of(one)
    if limit is None or not _is_over(limit, since, now):
        return None
    told = f"{limit:g} s" if limit < 60 or limit % 60 else f"{limit / 60:g} minutes"
    error = f"presumed: {_SAID[shown.status].format(told)}"
    return presume(history, now=now, error=error, error_class=TIMEOUT)


MARK_TIMED_OUT = Sweep(
    name="mark_timed_out",
    is_on=lambda settings: settings.mark_timeout_enabled,
    crontab=lambda settings: settings.mark_timeout_crontab,
    fallback=lambda _: 1800,
    run=_run,
)
