"""What lost workers left: ended with a presumed verdict, or sent again where the task says so.

Candidates are found by a plain read, and decided again under each row's lock: a worker's own late
word is never overwritten, and of two rescuers one acts.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from taskiq import InMemoryBroker, TaskiqMessage

from aiotrack.acks import redelivers
from aiotrack.body import find_task
from aiotrack.classes import LOST
from aiotrack.labels import (
    CONFIG,
    CREATED_AT,
    PARENT,
    REQUEUES,
    RERUN_OF,
    RETRIES,
    SCHEDULE,
    make_message,
)
from aiotrack.model import TaskStatus
from aiotrack.report import History, Report, Witness
from aiotrack.verdicts import presume

if TYPE_CHECKING:
    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask

    from aiotrack.core import Core
    from aiotrack.repository.control.workers import Gone, Live, Place, Registry

log = logging.getLogger(__name__)

TASK: Final = "aiotrack:rescue_lost"

ON_LOST: Final = "on_lost"
"""The label that says what becomes of a run whose worker was lost: ``fail`` or ``requeue``."""

BATCH: Final = 50
"""Executions that are locked together: 30 to 60 ms on a busy machine with two cores."""

LOOK: Final = 500
"""Queued executions that one look reads: a long queue is read in many turns."""

SEND: Final = 10.0
"""Seconds for a broker to take a message."""

MOST_LOST: Final = 5
"""Workers that one execution may take with it: what makes its worker run out of memory would end
them all, one after the other. As many as a message of ours may be given to."""

UNSENT_FOR: Final = 30_000_000
"""Microseconds after which nobody sends any more what was about to be sent: he was killed. Then it
is sent by the next one; if it was sent already, but not written down, it runs twice."""

_LEFT_OUT: Final = ("schedule", REQUEUES, RETRIES)
"""Labels of a task that do not belong into a message."""

UNSENT: Final = "aiotrack:unsent"
"""The type of error of a run that was handed back, and whose message may not be sent yet."""

_STARTED: Final = TaskStatus.STARTED

_told: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Rescued:
    """How many executions were changed, and whether some were left to another process."""

    count: int
    is_left: bool


@dataclass(slots=True)
class Unknown:
    """How far a process has read the queued executions."""

    after: Place | None = None


def _registry(core: Core) -> Registry:
    from aiotrack.repository.control.workers import Registry

    return Registry(core.repository)


async def is_due(core: Core) -> bool:
    """Tell whether a worker that is surely lost left anything."""
    registry = _registry(core)
    gone = await registry.gone(is_proven=True)
    return bool(gone and await registry.started_by(list(gone), limit=1))


async def rescue(core: Core, *, is_proven: bool = False) -> Rescued:
    """End or send again what lost workers ran, in batches.

    Args:
        core: Of the loop.
        is_proven: Only of workers that missed their beats while another one was heard: after an
            outage of the database nobody was, and all of them may live.

    Raises:
        StoreUnavailable: The database did not answer; what was done until then stays.
    """
    registry = _registry(core)
    gone = await registry.gone(is_proven=is_proven)
    if not gone:
        return Rescued(0, is_left=False)
    judge = _Judge(core, gone, await registry.live())
    count = 0
    for find in (
        functools.partial(registry.started_by, list(gone)),
        functools.partial(registry.unsent, UNSENT),
    ):
        after = None
        while found := await find(after=after, limit=BATCH):
            after = found[-1].place
            count += await judge.revise([one.task_id for one in found])
    for worker_id, one in gone.items():
        if one.is_open and worker_id not in judge.left:
            await registry.close(worker_id)
    await registry.forget_old()
    return Rescued(count, is_left=bool(judge.left))


async def judge_unknown(core: Core, state: Unknown) -> int:
    """End what is queued for workers that do not know its task: TaskIQ drops such messages.

    Args:
        core: Of the loop.
        state: Says where to go on; one call reads at most `LOOK` executions.

    Returns:
        How many executions were ended.
    """
    registry = _registry(core)
    known = _known(await registry.live())
    found = await registry.waiting(after=state.after, limit=LOOK)
    state.after = found[-1].place if len(found) == LOOK else None
    ids = [one.task_id for one in found if one.task_name not in known.get(one.queue, _ALL)]
    ended: dict[str, bool] = {}

    def change(history: History) -> Iterable[Report]:
        shown = history.shown()
        queue = shown.origin.queue
        is_unknown = shown.origin.task_name not in known.get(queue, _ALL)
        ended[history.task_id] = is_unknown and shown.status is TaskStatus.PENDING
        if ended[history.task_id]:
            error = (
                f"no live worker knows this task: of those that listen to its queue {queue!r} none "
                f"has a task named {shown.origin.task_name!r}"
            )
            report = presume(history, now=core.clock.now(), error=error, error_class=LOST)
            if report is not None:
                yield report

    for start in range(0, len(ids), BATCH):
        await core.repository.revise(ids[start : start + BATCH], change)
    return sum(ended.values())


class _All(frozenset[str]):
    """Knows every name."""

    def __contains__(self, name: object) -> bool:
        return True


_ALL: Final = _All()


def _known(live: Iterable[Live]) -> dict[str | None, frozenset[str]]:
    """Give the tasks that each queue's workers know, where one of them is no newcomer."""
    live = list(live)
    queues = {queue for one in live if one.is_settled for queue in one.queues}
    return {
        queue: frozenset(name for one in live if queue in one.queues for name in one.tasks)
        for queue in queues
    }


@dataclass(slots=True)
class _Judge:
    """Decides what becomes of each execution of workers that are gone."""

    core: Core
    gone: Mapping[str, Gone]
    live: Iterable[Live]
    left: set[str] = field(default_factory=set)
    """Workers some of whose executions are left to a process that knows their tasks."""

    async def revise(self, task_ids: list[str]) -> int:
        """Judge a batch under its locks, and send what is to be sent."""
        changed: dict[str, bool] = {}
        sends: dict[str, _Send] = {}

        def change(history: History) -> Iterable[Report]:
            sends.pop(history.task_id, None)
            shown = history.shown()
            is_ours = shown.worker in self.gone and (_is_unsent(shown) or shown.status is _STARTED)
            report = self._judge(history, shown, sends) if is_ours else None
            changed[history.task_id] = report is not None
            if report is not None:
                yield report

        await self.core.repository.revise(task_ids, change)
        await asyncio.gather(*(send.send() for send in sends.values()))

        def tell(history: History) -> Iterable[Report]:
            report = sends[history.task_id].outcome(history, self.core.clock.now())
            if report is not None:
                yield report

        if sends:
            await self.core.repository.revise(list(sends), tell)
        return sum(changed.values())

    def _judge(
        self,
        history: History,
        shown: Report,
        sends: dict[str, _Send],
    ) -> Report | None:
        worker, now = shown.worker or "", self.core.clock.now()
        if _is_unsent(shown) and now - (shown.finished_at or 0) < UNSENT_FOR:
            self.left.add(worker)  # somebody is about to send it
            return None
        one = self.gone[worker]
        how = "stopped before it told its end" if one.is_stopped else "was lost"
        error = f"its worker {worker} {how}"
        found = find_task(self.core.brokers, shown.origin.task_name)
        is_known = any(shown.origin.task_name in other.tasks for other in self.live)
        if found is None and is_known and one.is_recent and not one.is_stopped:
            self.left.add(worker)  # whoever knows the task knows whether to send it again
            return None
        if found is not None and wants_requeue(found[1]):
            broker, task = found
            refusal = _refusal(broker, history, shown)
            if refusal is None:
                report = _handed_back(shown, now, f"{error}; it is being sent again")
                message = _message(task, broker, history, shown)
                sends[history.task_id] = _Send(broker, message, report)
                return report
            error = f"{error}; it was not sent again: {refusal}"
            if (task.task_name, refusal) not in _told:
                _told.add((task.task_name, refusal))
                log.warning("%s has on_lost=requeue, but %s", task.task_name, refusal)
        return presume(history, now=now, error=error, error_class=LOST)


@dataclass(slots=True)
class _Send:
    """A message that goes again; written down before and after, so that a kill loses none."""

    broker: AsyncBroker
    message: TaskiqMessage
    report: Report
    fault: str | None = None

    async def send(self) -> None:
        """Send it as TaskIQ's own requeue does, in no run's context."""
        loop = asyncio.get_running_loop()
        kick = loop.create_task(_kick(self.broker, self.message), context=contextvars.Context())
        try:
            await asyncio.wait_for(kick, SEND)
        except Exception as error:
            self.fault = repr(error)
            log.error("%s of a lost worker was not sent again: %r", self.message.task_id, error)

    def outcome(self, history: History, now: int) -> Report | None:
        """Say that it was sent, or that it was not, and so has failed."""
        if self.fault is None:
            later = max(now, (self.report.finished_at or 0) + 1)  # so it passes the first one
            error = f"its worker {self.report.worker} was lost; it was sent again"
            return replace(self.report, finished_at=later, error=error, error_type=None)
        if not _is_unsent(history.shown()):
            return None
        error = f"its worker was lost, and it could not be sent again: {self.fault}"
        return presume(history, now=now, error=error, error_class=LOST)


async def _kick(broker: AsyncBroker, message: TaskiqMessage) -> None:
    await broker.kick(broker.formatter.dumps(message))


def _is_unsent(shown: Report) -> bool:
    return shown.status is TaskStatus.PENDING and shown.error_type == UNSENT


def wants_requeue(task: AsyncTaskiqDecoratedTask[Any, Any]) -> bool:
    """Read a task's label; what is no word for it is told once, at its worker's start."""
    told = task.labels.get(ON_LOST)
    if told in {None, "fail", "requeue"}:
        return told == "requeue"
    if (task.task_name, str(told)) not in _told:
        _told.add((task.task_name, str(told)))
        log.warning("on_lost of %s is 'fail' or 'requeue', not %r", task.task_name, told)
    return False


def _refusal(broker: AsyncBroker, history: History, shown: Report) -> str | None:
    """Say why an execution is not sent again; None: it is."""
    if redelivers(broker) and not isinstance(broker, InMemoryBroker):
        return f"{type(broker).__name__} may redeliver it by itself"
    if not shown.origin.exact:
        return "its arguments were redacted, cut or changed when they were recorded"
    lost = sum(run.error_class == LOST for run in history.runs())
    if lost + (not _is_unsent(shown)) >= MOST_LOST:
        return f"{MOST_LOST} workers that ran it were lost"
    return None


def _message(
    task: AsyncTaskiqDecoratedTask[Any, Any], broker: AsyncBroker, history: History, shown: Report
) -> TaskiqMessage:
    """Make the message anew, as it was for this attempt."""
    from aiotrack.repository.read import decode_task_id

    origin = shown.origin
    labels = {name: value for name, value in task.labels.items() if name not in _LEFT_OUT}
    facts: dict[str, Any] = {
        "created_by": origin.created_by,
        "module": origin.module,
        "priority": origin.priority,
        "timeout": origin.time_limit,
        CONFIG: origin.config_id,
        SCHEDULE: origin.schedule_id,
        PARENT: origin.parent_task_id and decode_task_id(origin.parent_task_id),
        RERUN_OF: origin.rerun_of and decode_task_id(origin.rerun_of),
    }
    labels |= {name: value for name, value in facts.items() if value is not None}
    if origin.queue is not None and origin.queue != getattr(broker, "queue_name", None):
        labels["queue_name"] = origin.queue
    if shown.attempt > 1:
        labels[RETRIES] = shown.attempt - 1
    labels[CREATED_AT] = str(history.created_at)
    labels[REQUEUES] = str(shown.requeues + 1)
    return make_message(
        decode_task_id(history.task_id),
        task.task_name,
        labels,
        json.loads(origin.args),
        json.loads(origin.kwargs),
    )


def _handed_back(shown: Report, now: int, error: str) -> Report:
    report = replace(shown, patch=None)
    report.origin.echoes = True
    report.witness, report.status = Witness.HANDED_BACK, TaskStatus.PENDING
    report.finished_at = now
    if report.started_at is not None:
        report.duration = max(0, now - report.started_at) / 1e6
    report.error, report.error_class, report.error_type = error, LOST, UNSENT
    return report
