"""Records that no broker makes: blocks and functions of plain code, `register`, `update`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiotrack.body import is_ours
from aiotrack.current import CURRENT, INHERITED, Run
from aiotrack.encode import encode_task_id, error_text, error_type, format_traceback
from aiotrack.errors import InvalidValue, TaskCancelled
from aiotrack.model import OWN_MODULE, TaskStatus
from aiotrack.progress import patch_of
from aiotrack.report import History, Origin, Report, Stamp, Witness, guess_module
from aiotrack.traces import current_trace

if TYPE_CHECKING:
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.tracker import Tracker


class Named(list[Any]):
    """Arguments that know the names of their parameters: a positional password is redacted."""

    names: tuple[str, ...] = ()


def named(args: Sequence[Any], names: tuple[str, ...]) -> Named:
    """Give arguments with the names of their parameters."""
    given = Named(args)
    given.names = names
    return given


def origin_of(
    tracker: Lifecycle,
    task_id: str | int,
    task_name: str,
    *,
    module: str | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    created_by: str | int | None,
    metadata: Mapping[str, Any],
) -> Origin:
    """Give the birth facts of work that is described by hand."""
    encoder = tracker.encoder
    names = args.names if isinstance(args, Named) else ()
    told, named = encoder.encode_args(args, names), encoder.encode_kwargs(kwargs)
    name = encoder.name(task_name)
    return Origin(
        task_id=encode_task_id(task_id),
        task_name=name,
        module=guess_module(name) if module is None else encoder.name(module),
        created_at=tracker.clock.now(),
        created_by=None if created_by is None else encoder.name(str(created_by)),
        args=told.text,
        kwargs=named.text,
        exact=told.exact and named.exact,
        metadata=encoder.encode_kwargs(metadata).text,
    )


def begin(tracker: Tracker, name: str, task_id: str | int | None = None, **facts: Any) -> Run:
    """Give a run of the user's own code, with what `tracking` hands on."""
    inherited = INHERITED.get()
    outer = CURRENT.get()
    if inherited is not None:
        facts["module"] = facts["module"] or inherited.module
        if facts["created_by"] is None:  # 0 is somebody
            facts["created_by"] = inherited.created_by
        facts["metadata"] = {**inherited.metadata, **facts["metadata"]}
    own_id = uuid4().hex if task_id is None else str(task_id)
    origin = origin_of(tracker, own_id, name, **facts)
    origin.trace_id = current_trace()
    parent = None if inherited is None else inherited.parent_for(outer)
    if parent is not None:
        origin.parent_task_id = encode_task_id(parent)
    elif outer is not None:
        origin.parent_task_id = outer.origin.task_id
    return Run(
        tracker=tracker,
        origin=origin,
        message_id=own_id,
        run_id=uuid4().hex,
        attempt=1,
        requeues=0,
        worker=tracker.worker_id,
        started_at=origin.created_at,
    )


def begin_sweep(
    tracker: Tracker, name: str, mark: str, options: Mapping[str, Any] = MappingProxyType({})
) -> Run:
    """Give a run of the tracker's own; *mark* tells it from all others of its name."""
    return begin(
        tracker,
        name,
        f"{name}:{mark}",
        module=OWN_MODULE,
        args=(),
        kwargs=options,
        created_by=None,
        metadata={},
    )


def end(tracker: Tracker, run: Run, error: BaseException | None) -> Report:
    """Give the report of a run's end."""
    duration = run.elapsed()
    if error is None:
        report = tracker.report_of(run, Witness.ENDED, TaskStatus.SUCCESS, duration)
        if run.result is not None:
            report.result = tracker.encoder.encode(run.result).text
        return unless_told(run, report)
    if is_ours(run, error):
        report = tracker.report_of(run, Witness.ENDED, TaskStatus.REVOKED, duration)
        report.error = str(TaskCancelled(run.origin.task_id))
        return report
    report = tracker.report_of(run, Witness.ENDED, TaskStatus.FAILURE, duration)
    describe(report, error, tracker)
    return report


def unless_told(run: Run, report: Report) -> Report:
    """Give the report of a run's end; after one that was told, a mere return tells no other.

    An error takes the place of a failure that was told: every attempt keeps its own.
    """
    told = run.told
    if told is not None and report.status is TaskStatus.SUCCESS:
        report.status, report.result, report.error = told.status, told.result, told.error
        report.error_type, report.error_class = told.error_type, told.error_class
        report.traceback = told.traceback
    return report


def describe(report: Report, error: BaseException, tracker: Lifecycle) -> None:
    """Put an exception into a report, bounded and redacted, with its class."""
    encoder = tracker.encoder
    report.error_type = error_type(error)
    report.error_class = tracker.classes.of(error)
    message = error_text(error, encoder)
    report.error = message or report.error_type
    report.traceback = format_traceback(error, encoder, message=message)


def leave(run: Run) -> None:
    """End a run's hold on its context."""
    run.is_over = True
    if run.watch is not None:
        task, callback = run.watch
        task.remove_done_callback(callback)
        run.watch = None
    step_out(run)
    # A context may live on with this run, in a timer or a task that it began.
    run.exception = run.frame = run.home = run.twin = None


def step_out(run: Run) -> None:
    """Let a context know a run no more, which may go on in another one."""
    if run.token is not None:
        try:
            CURRENT.reset(run.token)
        except (ValueError, RuntimeError):  # another context, or reset before: it ends by itself
            CURRENT.set(None)
        run.token = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What `Tracker.register` was told about the run, times in microseconds."""

    started_at: int | None = None
    finished_at: int | None = None
    result: str | None = None
    error: str | BaseException | None = None

    def earliest(self) -> int | None:
        """Give the first of the times: nothing is created after it began, or ended."""
        return min(
            (at for at in (self.started_at, self.finished_at) if at is not None), default=None
        )


def register_reports(
    origin: Origin, status: TaskStatus, now: int, given: Given, tracker: Lifecycle
) -> list[Report]:
    """Give the reports of work that is registered with a status."""
    origin.registered = True
    reports = [Report(origin, Witness.SENT, TaskStatus.PENDING)]
    if status is TaskStatus.PENDING:
        return reports
    started = given.started_at
    if status is TaskStatus.STARTED:
        run = Report(
            origin, Witness.STARTED, status, started_at=now if started is None else started
        )
    else:
        finished = now if given.finished_at is None else given.finished_at
        witness = Witness.HANDED_BACK if status is TaskStatus.RETRY else Witness.ENDED
        run = Report(origin, witness, status, started_at=started, finished_at=finished)
        run.duration = None if started is None else max(0, finished - started) / 1e6
    run.run_id = "manual:1"
    run.result = given.result
    _blame(run, given.error, tracker)
    return [*reports, run]


def unless_known(reports: list[Report]) -> Callable[[History], Iterable[Report]]:
    """Give the change that registering makes to a record that exists: facts, but no second run."""

    def change(history: History) -> Iterable[Report]:
        is_known = bool(history.runs())
        return [report for report in reports if not (is_known and report.is_run)]

    return change


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What `Tracker.update` was asked for; ``result`` is JSON text."""

    status: TaskStatus | None
    result: str | None
    error: str | BaseException | None
    traceback: str | None
    metadata: Mapping[str, Any]

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InvalidValue: A result, error or traceback without a status.
        """
        if self.status is None and (self.result or self.error or self.traceback):
            raise InvalidValue(
                "a result, error or traceback needs the status that it comes with: "
                "update(id, 'success', result=...), update(id, 'failed', error=...)"
            )

    def on(self, now: int, tracker: Lifecycle) -> Callable[[History], Iterable[Report]]:
        """Give the function that makes the reports, filled from the record as it is."""

        def change(history: History) -> Iterable[Report]:
            shown = history.shown()
            shown.origin.echoes = True
            stamp: Stamp = (shown.shown_attempt, shown.started_at or 0, now)
            reports = []
            if self.metadata:
                patch = patch_of(dict(self.metadata), stamp, tracker.encoder)
                reports.append(Report(shown.origin, Witness.SENT, TaskStatus.PENDING, patch=patch))
            settled = shown.status.is_final and shown.witness is not Witness.PRESUMED
            if self.status is not None and not settled:
                run = self._run(history, shown, now, tracker)
                reports += [] if run is None else [run]
            return reports

        return change

    def _run(self, history: History, shown: Report, now: int, tracker: Lifecycle) -> Report | None:
        """Give the report that makes the record show the status; None where it is late."""
        status = self.status
        is_same = status is shown.status and shown.witness is not Witness.PRESUMED
        if status is None or status is TaskStatus.PENDING or is_same:
            return None
        takes_over = shown.is_run and shown.witness in {Witness.STARTED, Witness.PRESUMED}
        if status is TaskStatus.STARTED or not takes_over:
            run = Report(shown.origin, Witness.STARTED, status, attempt=shown.shown_attempt)
            run.run_id = _free_name(history, run.attempt)
        else:
            run = replace(shown, result=None, patch=None)
        if status is TaskStatus.STARTED:
            run.started_at = now
            return run
        run.witness = Witness.HANDED_BACK if status is TaskStatus.RETRY else Witness.ENDED
        run.status = status
        run.finished_at = now
        run.duration = None if run.started_at is None else max(0, now - run.started_at) / 1e6
        run.result = self.result
        self._describe(run, tracker)
        return run

    def _describe(self, run: Report, tracker: Lifecycle) -> None:
        run.error = run.error_type = run.error_class = run.traceback = None
        _blame(run, self.error, tracker)
        if self.traceback is not None:
            run.traceback = tracker.encoder.text(self.traceback, 32_768)


def _blame(run: Report, error: str | BaseException | None, tracker: Lifecycle) -> None:
    """Put an error that somebody told into a report."""
    if isinstance(error, BaseException):
        describe(run, error, tracker)
    elif error is not None:
        run.error = tracker.encoder.text(str(error))


def _free_name(history: History, attempt: int) -> str:
    """Name a run by hand as no run of the record is named."""
    name = f"manual:{attempt}"
    number = 1
    while name in history.items:
        number += 1
        name = f"manual:{attempt}:{number}"
    return name
