"""What a run's error means, and what TaskIQ's result backends say of a task: `Tracker.sync`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from taskiq import NoResultError, SimpleRetryMiddleware, SmartRetryMiddleware
from taskiq.result_backends.dummy import DummyResultBackend

from aiotrack.by_hand import describe
from aiotrack.classes import TIMEOUT
from aiotrack.labels import REQUEUES, RETRIES, RUN, is_false, number, word
from aiotrack.model import TaskStatus
from aiotrack.report import History, Origin, Report, Witness

if TYPE_CHECKING:
    from taskiq import AsyncBroker, TaskiqResult

    from aiotrack.current import Run
    from aiotrack.lifecycle import Lifecycle

log = logging.getLogger(__name__)

ASK = 2.0
"""Seconds for all result backends together."""

ROUNDED = 0.01
"""Seconds to which TaskIQ rounds ``execution_time``."""

_complained: set[tuple[type[Any], type[BaseException]]] = set()


def error_of(raised: BaseException | None, result: TaskiqResult[Any]) -> BaseException | None:
    """Give the error of a run that ended, None for a success.

    What was raised comes first: retry middlewares put another into the result. Never by its truth:
    an exception with a length may be empty, and the result then has none.
    """
    if raised is not None:
        return raised
    if result.is_err and result.error is None:
        return Exception("it failed, and no error is known")
    return result.error


def died_of(task: asyncio.Task[Any]) -> BaseException | None:
    """Give the error that a finished task ended with; of a cancelled one with its traceback."""
    try:
        return task.exception()
    except asyncio.CancelledError as error:
        return error


def found_before(died: BaseException | None, run: Run) -> BaseException | None:
    """Give the body's error that TaskIQ knew when a hook failed on it, else what that died of.

    The ``on_error`` of other middlewares may come before ours, and with one that raises, as when a
    retry cannot be sent, ours is never called. TaskIQ's own frame still has what it had caught.
    """
    trace = None if died is None else died.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if "found_exception" in frame.f_code.co_varnames:
            known = frame.f_locals
            found = known.get("found_exception")
            is_own = getattr(known.get("message"), "labels", None) is run.labels  # they may nest
            if is_own and isinstance(found, BaseException) and not isinstance(found, NoResultError):
                return found
        trace = trace.tb_next
    return died


def is_over_limit(error: BaseException, labels: Mapping[str, Any]) -> bool:
    """Tell the timeout of TaskIQ's label from a TimeoutError that passed through the body.

    By the frame below TaskIQ's own, not by the time: uvloop's timers fire some milliseconds early.
    """
    if not isinstance(error, TimeoutError) or labels.get("timeout") is None:
        return False
    trace = error.__traceback__
    below = None if trace is None else trace.tb_next
    if below is None:
        return False
    module = str(below.tb_frame.f_globals.get("__name__"))
    return module.partition(".")[0] in {"anyio", "contextlib"}


def is_scheduled(broker: AsyncBroker, attempt: int, labels: Mapping[str, Any]) -> bool:
    """Tell whether the retry of a failed attempt waits in a schedule source: no hook hears of that.

    By the label of the message that is raised for it. `SimpleRetryMiddleware` knows no sources, and
    raises the label after the last attempt, too.
    """
    retries = number(labels.get(RETRIES))
    has_source = False
    for one in broker.middlewares if retries >= attempt else ():
        if isinstance(one, SmartRetryMiddleware):
            has_source = has_source or one.schedule_source is not None
        elif isinstance(one, SimpleRetryMiddleware):
            most = number(labels.get("max_retries"), one.default_retry_count)
            if retries >= most:
                return False
    return has_source


async def ask(tracker: Lifecycle, task_id: str) -> Outcome | None:
    """Ask the result backends of the tracker's brokers, within `ASK`; None when none tells.

    Nothing that a backend does is raised: it is logged, once for each kind of trouble.
    """
    if not tracker.brokers:
        log.warning("sync() finds no broker whose middleware reports to this tracker, here")
    found = None
    for broker in list(tracker.brokers):
        backend = broker.result_backend
        try:
            async with asyncio.timeout(ASK / len(tracker.brokers)):
                found = found or await _told(broker, task_id)
        except Exception as error:
            kind = (type(backend), type(error))
            if kind not in _complained:
                _complained.add(kind)
                log.warning(
                    "sync() leaves records as they are: %s does not answer (%r); "
                    "was its broker started in this process?",
                    type(backend).__name__,
                    error,
                )
    if found is None:
        return None
    broker, result = found
    ours = (one for one in broker.middlewares if getattr(one, "tracker", None) is tracker)
    keeps = all(getattr(one, "record_result", True) for one in ours)
    return Outcome(result, keeps and not is_false(result.labels.get("record_result")))


def can_tell(tracker: Lifecycle) -> bool:
    """Tell whether any broker's result backend may be asked."""
    return any(_keeps_results(broker) for broker in tracker.brokers)


def _keeps_results(broker: AsyncBroker) -> bool:
    backend = broker.result_backend
    if isinstance(backend, DummyResultBackend):
        return False  # it calls every task a success
    return bool(getattr(backend, "keep_results", True))  # else reading takes it from who waits


async def _told(broker: AsyncBroker, task_id: str) -> tuple[AsyncBroker, TaskiqResult[Any]] | None:
    backend = broker.result_backend
    if not _keeps_results(broker) or not await backend.is_result_ready(task_id):
        return None
    result = await backend.get_result(task_id)
    return None if isinstance(result.error, NoResultError) else (broker, result)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A worker's word about one run, by way of a result backend."""

    result: TaskiqResult[Any]
    keeps_value: bool

    def on(self, now: int, tracker: Lifecycle) -> Callable[[History], Iterable[Report]]:
        """Give the function that makes the reports, filled from the record as it is."""

        def change(history: History) -> Iterable[Report]:
            run = self._run(history)
            return [] if run is None else [self._end(run, now, tracker)]

        return change

    def _run(self, history: History) -> Report | None:
        """Give the run that ended so; None when the record knows better.

        By the label that its worker set. A worker without a tracker, or a backend that keeps no
        labels, tells no run: then it is the one that is shown, or a new one.
        """
        shown = history.shown()
        labels = self.result.labels
        attempt = number(labels.get(RETRIES)) + 1
        if shown.status.is_final and shown.witness is not Witness.PRESUMED:
            return None
        if attempt < shown.shown_attempt:
            return None  # of an earlier attempt: this one is still to come
        shown.origin.echoes = True
        name = word(labels.get(RUN)) or ""
        named = history.items.get(name)
        if named is not None and named.attempt != attempt:
            named = None  # left over from the attempt before
        elif named is None and name:
            return self._new(shown.origin, name, attempt)
        elif named is None and shown.is_run and shown.shown_attempt == attempt:
            named = shown
        if named is None or named.witness is Witness.HANDED_BACK:  # that one gave no result
            return self._new(shown.origin, f"result:{attempt}", attempt)
        is_open = named.witness in {Witness.STARTED, Witness.PRESUMED}
        return replace(named, origin=shown.origin) if is_open else None

    def _new(self, origin: Origin, run_id: str, attempt: int) -> Report:
        """Give the start of a run that nobody told of."""
        run = Report(origin, Witness.STARTED, TaskStatus.STARTED, run_id, attempt)
        run.requeues = number(self.result.labels.get(REQUEUES))
        return run

    def _end(self, run: Report, now: int, tracker: Lifecycle) -> Report:
        """Give the report of its end: its own worker's word, should it come, still wins."""
        result = self.result
        duration = float(result.execution_time)
        ran = int(duration * 1_000_000)
        end = replace(
            run,
            witness=Witness.RELAYED,
            status=TaskStatus.FAILURE if result.is_err else TaskStatus.SUCCESS,
            duration=duration,
            finished_at=now if run.started_at is None else run.started_at + ran,
            patch=None,
        )
        end.result = end.error = end.error_type = end.error_class = end.traceback = None
        if not result.is_err:
            if self.keeps_value and result.return_value is not None:
                end.result = tracker.encoder.encode(result.return_value).text
        elif isinstance(result.error, BaseException):
            self._describe(end, result.error, tracker)
        else:
            end.error = "the result backend tells no error"
        return end

    def _describe(self, end: Report, error: BaseException, tracker: Lifecycle) -> None:
        describe(end, error, tracker)
        if error.__traceback__ is None:
            end.traceback = None  # it stayed with the worker
        limit = word(self.result.labels.get("timeout"))
        if limit is not None and isinstance(error, TimeoutError):
            try:
                is_over = end.duration is not None and end.duration >= float(limit) - ROUNDED
            except ValueError:
                return
            if is_over:
                end.error_class = TIMEOUT
                end.error = f"exceeded its time limit of {limit} s"
