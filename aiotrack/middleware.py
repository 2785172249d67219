"""TaskIQ's hooks turned into reports. Nothing here ever raises into TaskIQ."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from taskiq import NoResultError, TaskiqMiddleware

from aiotrack import acks, collector
from aiotrack.body import Revoked, wrap
from aiotrack.by_hand import describe, leave, unless_told
from aiotrack.classes import TIMEOUT
from aiotrack.current import CURRENT, INHERITED, Inherited, Run, come_back, run_aside, stand_aside
from aiotrack.encode import Encoder, encode_task_id, format_traceback
from aiotrack.errors import TaskCancelled
from aiotrack.guard import complain, guarded, stand_back
from aiotrack.labels import (
    CREATED_AT,
    METADATA,
    PARENT,
    REQUEUES,
    RETRIES,
    RETRY_DELAY,
    RUN,
    SCHEDULE,
    drop_retry_delay,
    fill,
    is_false,
    is_tracked,
    moment,
    number,
    parameters,
    read_metadata,
    word,
)
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness, guess_module
from aiotrack.results import died_of, error_of, found_before, is_over_limit, is_scheduled
from aiotrack.traces import current_trace
from aiotrack.verdicts import never_ran

if TYPE_CHECKING:
    import re

    from taskiq import AsyncBroker, TaskiqMessage, TaskiqResult

    from aiotrack.tracker import Tracker

log = logging.getLogger(__name__)

MAX_NAMES = 10_000
"""Task names that are remembered; a client may send any."""


class TrackerMiddleware(TaskiqMiddleware):
    """Records every execution of a broker's tasks.

    Works with any TaskIQ broker and in any place among the middlewares; first is best: it sees a
    message before others change it, and its end after others are done.

    Args:
        tracker: Where to record; started and stopped with the broker.
        module: Business scope of all tasks, or a function of the task's name; a label ``module``
            comes before it. Default: the first part of the task's name.
        record_args: Store arguments; a task's label ``record_args=False`` says otherwise.
        record_result: Store results; likewise ``record_result=False``.
        redact: Key names or patterns whose values are never stored, besides the usual secrets.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        module: str | Callable[[str], str] | None = None,
        record_args: bool = True,
        record_result: bool = True,
        redact: str | re.Pattern[str] | Iterable[str | re.Pattern[str]] = (),
    ) -> None:
        super().__init__()
        self.tracker = tracker
        self._module = module
        self._record_args = record_args
        self.record_result = record_result
        tracker.redact(redact)
        self._encoder: Encoder = tracker.encoder
        self._parameters: dict[str, tuple[str, ...]] = {}
        self._names: dict[str, tuple[str, str]] = {}
        self._queue: str | None = None
        self._served_by: object = None

    def set_broker(self, broker: AsyncBroker) -> None:
        """Meet the broker, and the queue of messages that name none."""
        super().set_broker(broker)
        twins = [one for one in broker.middlewares if isinstance(one, TrackerMiddleware)]
        if any(one.tracker is self.tracker for one in twins if one is not self):
            stand_back(self)  # each run would be two
            return
        queue = getattr(broker, "queue_name", None)
        self._queue = self._encoder.name(queue) if isinstance(queue, str) else None
        self.tracker.attach(broker)

    @guarded
    async def startup(self) -> None:
        """Start the tracker; a database that is away is reported and tried again."""
        await self.tracker.startup(wait=False)
        if self.broker.is_worker_process:
            acks.warn(self.broker)
            await self.tracker.core().prepare(self.broker)
            collector.settle()

    @guarded
    async def shutdown(self) -> None:
        """Write what is left."""
        await self.tracker.shutdown()

    async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Stamp what the worker cannot know into the message's labels."""
        try:
            run = CURRENT.get()
            if run is not None and run.message_id == message.task_id and not run.is_over:
                (self._run_of(message) or run).resent = True  # a retry, sent from inside on_error
            elif is_tracked(message.labels):
                self._stamp(message, run)
        except Exception as error:
            complain("pre_send", error)
        return message

    async def post_send(self, message: TaskiqMessage) -> None:
        """Report PENDING: only now it is sure that the message was sent."""
        try:
            labels = message.labels
            if not is_tracked(labels) or number(labels.get(RETRIES)) > 0:
                return
            report = self._pending(message)
            inherited = INHERITED.get()
            durability = inherited.durability if inherited is not None else None
            if (durability or self.tracker.options.durability) == "async":
                self.tracker.recorder().add(report)
            else:
                await self.tracker.recorder().commit(report, at_once=CURRENT.get() is None)
        except Exception as error:
            complain("post_send", error)

    def hold(self, message: TaskiqMessage) -> Report:
        """Stamp a message that is sent later on, and give the report that it waits."""
        self._stamp(message, CURRENT.get())
        return self._pending(message)

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Report STARTED without waiting, and make the run known to its own code."""
        try:
            if is_tracked(message.labels):
                self._begin(message)
            else:
                stand_aside(message.task_id)
        except Exception as error:
            complain("pre_execute", error)
        return message

    def on_error(
        self,
        message: TaskiqMessage,
        result: TaskiqResult[Any],  # noqa: ARG002 - TaskIQ's signature
        exception: BaseException,
    ) -> None:
        """Remember the exception: retry middlewares replace it in the result."""
        try:
            run = self._run_of(message)
            if run is not None:
                run.exception = exception
                run.frame = collector.frame_of_run(1)
        except Exception as error:
            complain("on_error", error)

    async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Report the outcome, and wait for its commit: the message is acknowledged after it."""
        run = self._run_of(message)
        if run is None:
            come_back(message.task_id)
            return
        try:
            recorder = self.tracker.recorder(run)
            try:
                await recorder.commit(unless_told(run, self._outcome(run, message, result)))
            finally:
                recorder.end(run)
        except Exception as error:
            complain("post_execute", error)
        finally:
            if run.frame is not None and not run.is_nested:
                collector.cut_cycle(run.frame, asyncio.current_task())
            leave(run)

    def _run_of(self, message: TaskiqMessage) -> Run | None:
        """Find this message's run in the context: in-place brokers nest runs in one task."""
        run = CURRENT.get() or run_aside()  # an untracked one may have died before its end
        while run is not None:
            if run.tracker is self.tracker and run.message_id == message.task_id:
                return None if run.is_over else run
            run = run.outer
        return None

    def _stamp(self, message: TaskiqMessage, run: Run | None) -> None:
        labels = message.labels
        if RETRY_DELAY in labels and RETRIES not in labels:
            drop_retry_delay(labels)
        if CREATED_AT not in labels and self.tracker.clock.known:
            labels[CREATED_AT] = str(self.tracker.clock.now())  # else our PENDING tells it
        inherited = INHERITED.get()
        if inherited is not None:
            self._inherit(message, inherited, run)
        if "module" not in labels and self._module is not None:
            labels["module"] = self._scope(message.task_name)
        if SCHEDULE not in labels and "schedule_id" in labels and RETRIES not in labels:
            labels[SCHEDULE] = str(labels["schedule_id"])  # a delayed retry writes over it
        if run is not None:
            labels.setdefault(PARENT, run.task_id)

    def _inherit(self, message: TaskiqMessage, inherited: Inherited, run: Run | None) -> None:
        """Put what `tracking` says into a message, as strings; its own labels win."""
        labels = message.labels
        if inherited.created_by is not None:
            labels.setdefault("created_by", inherited.created_by)
        if inherited.module is not None:
            labels.setdefault("module", inherited.module)
        if (parent := inherited.parent_for(run)) is not None:
            labels.setdefault(PARENT, parent)
        if inherited.metadata:
            merged = {**inherited.metadata, **read_metadata(labels)}
            labels[METADATA] = self._encoder.encode_kwargs(merged).text
            if message.labels_types is not None:
                message.labels_types.pop(METADATA, None)  # a worker cannot read our text as an int

    def _scope(self, task_name: str) -> str:
        module = None if callable(self._module) else self._module
        if callable(self._module):
            try:
                module = str(self._module(task_name) or "")  # nothing is no scope
            except Exception as error:
                complain("module function", error)
        return self._encoder.name(module or guess_module(task_name))

    def _pending(self, message: TaskiqMessage) -> Report:
        now = self.tracker.clock.now()
        origin = self._origin(message, moment(message.labels.get(CREATED_AT), now) or now)
        origin.trace_id = origin.trace_id or current_trace()
        return Report(origin, Witness.SENT, TaskStatus.PENDING)

    def _origin(self, message: TaskiqMessage, created_at: int) -> Origin:
        labels = message.labels
        module = word(labels["module"]) if "module" in labels else None
        name, scope = self._names.get(message.task_name) or self._name(message.task_name)
        origin = Origin(
            task_id=encode_task_id(message.task_id),
            task_name=name,
            module=scope if module is None else self._encoder.name(module),
            created_at=created_at,
            queue=self._queue,
        )
        if len(labels) > 1 or CREATED_AT not in labels:
            fill(origin, labels, self._encoder)
        if message.args or message.kwargs:
            self._tell_arguments(origin, message)
        return origin

    def _tell_arguments(self, origin: Origin, message: TaskiqMessage) -> None:
        origin.exact = False
        if self._record_args and not is_false(message.labels.get("record_args")):
            args = self._encoder.encode_args(message.args, self._parameters_of(message))
            kwargs = self._encoder.encode_kwargs(message.kwargs)
            origin.args, origin.kwargs = args.text, kwargs.text
            origin.exact = args.exact and kwargs.exact

    def _name(self, task_name: str) -> tuple[str, str]:
        """Give a task's name and scope as they are stored, and remember them."""
        found = (self._encoder.name(task_name), self._scope(task_name))
        if len(self._names) < MAX_NAMES:
            self._names[task_name] = found
        return found

    def _parameters_of(self, message: TaskiqMessage) -> tuple[str, ...]:
        """Give the names of a task's parameters: a positional password is redacted by them."""
        names = self._parameters.get(message.task_name)
        task = None if names is not None else self.broker.find_task(message.task_name)
        if task is not None:  # else it may become known
            names = self._parameters[message.task_name] = parameters(task.original_func)
        return names or ()

    def _begin(self, message: TaskiqMessage) -> None:
        labels, now = message.labels, self.tracker.clock.now()
        created_at = moment(labels.get(CREATED_AT), now)
        if not created_at:
            created_at = now
            if self.tracker.clock.known:
                labels[CREATED_AT] = str(now)  # so that a retry of this message keeps it
        core, task = self.tracker.core(), self.broker.find_task(message.task_name)
        run = Run(
            tracker=self.tracker,
            origin=self._origin(message, created_at),
            message_id=message.task_id,
            run_id=core.name_run(),
            attempt=number(labels[RETRIES]) + 1 if RETRIES in labels else 1,
            requeues=number(labels[REQUEUES]) if REQUEUES in labels else 0,
            worker=self.tracker.worker_id,
            started_at=max(now, created_at),
            name=message.task_name,
            task=task,
            core=core,
            labels=labels,
        )
        labels[RUN] = run.run_id  # goes with the result: `Tracker.sync` finds the run by it
        run.token = CURRENT.set(run)
        if run.token.old_value.__class__ is Run:
            run.pair()
        core.recorder.begin(run)
        if core is not self._served_by:
            self._served_by = core
            core.serve(self.broker)
        if task is not None:
            wrap(task)
        for meet in core.on_begin:
            meet(run)
        current = asyncio.current_task(core.loop)
        if current is not None:
            run.watch = (current, functools.partial(self._after, run, message))
            current.add_done_callback(run.watch[1])

    def _outcome(self, run: Run, message: TaskiqMessage, result: TaskiqResult[Any]) -> Report:
        duration = run.elapsed()
        error = error_of(run.exception, result)
        if error is None:
            report = self.tracker.report_of(run, Witness.ENDED, TaskStatus.SUCCESS, duration)
            value, told = result.return_value, message.labels.get("record_result")
            if value is not None and self.record_result and not is_false(told):
                report.result = self._encoder.encode(value).text
            return report
        if isinstance(error, NoResultError):
            return self._without_result(run, message, result, duration)
        is_retried = run.resent or isinstance(result.error, NoResultError)  # it took its place
        if is_retried or is_scheduled(self.broker, run.attempt, message.labels):
            report = self.tracker.report_of(run, Witness.HANDED_BACK, TaskStatus.RETRY, duration)
        else:
            report = self.tracker.report_of(run, Witness.ENDED, TaskStatus.FAILURE, duration)
        self._describe(report, run, error, message)
        return report

    def _describe(
        self, report: Report, run: Run, error: BaseException, message: TaskiqMessage
    ) -> None:
        """Put an exception into a report; what a feature knows of its class comes first."""
        describe(report, error, self.tracker)
        if is_over_limit(error, message.labels):
            report.error_class = TIMEOUT
            report.error = f"exceeded its time limit of {message.labels['timeout']} s"
        elif run.error_class is not None:
            report.error_class = run.error_class

    def _without_result(
        self, run: Run, message: TaskiqMessage, result: TaskiqResult[Any], duration: float
    ) -> Report:
        """Tell a cancel, a requeue and a copy set aside from a task that wants no result kept."""
        if isinstance(error_of(run.exception, result), Revoked):  # another tracker may replace it
            was_told = run.is_told
            report = self.tracker.report_of(run, Witness.ENDED, TaskStatus.REVOKED, duration)
            result.error = TaskCancelled(run.origin.task_id)  # no retry can be made of it any more
            report.error = str(result.error)
            return report if run.is_entered or was_told else never_ran(report)
        if run.is_set_aside:
            report = self.tracker.report_of(run, Witness.ENDED, TaskStatus.REVOKED, duration)
            report.error = "another delivery of it is running"
            return report
        if number(message.labels.get(REQUEUES)) > run.requeues:
            return self.tracker.report_of(run, Witness.HANDED_BACK, TaskStatus.PENDING, duration)
        return self.tracker.report_of(run, Witness.ENDED, TaskStatus.SUCCESS, duration)

    def _after(self, run: Run, message: TaskiqMessage, task: asyncio.Task[Any]) -> None:
        """Close a run whose ``post_execute`` never came: its callback died outside the body."""
        if run.is_over:
            return
        try:
            run.is_over = True
            died = died_of(task)
            report = self.tracker.report_of(run, Witness.ENDED, TaskStatus.FAILURE, run.elapsed())
            error = found_before(died, run) if run.exception is None else run.exception
            if error is None:
                report.error = "the run ended without an outcome: a hook of TaskIQ was not called"
            else:
                self._describe(report, run, error, message)
            recorder = self.tracker.recorder()
            recorder.add(report)
            recorder.end(run)
            if died is not None and not task.cancelled():
                told = (run.origin.task_id, format_traceback(died, self._encoder))
                log.error("task %s ended outside its body, not acknowledged\n%s", *told)
        except Exception as error:
            complain("end of a run", error)
