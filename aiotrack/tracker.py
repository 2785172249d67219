"""The tracker: everything that users call, in one object."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar, cast, overload

from aiotrack import by_hand
from aiotrack.alerts import Alerts, Watch
from aiotrack.audit import AuditLog
from aiotrack.body import uncancel
from aiotrack.calls import call
from aiotrack.cancellation import Cancellation, Cancelling
from aiotrack.checkpoints import Checkpoints
from aiotrack.current import CURRENT, Run, run_here
from aiotrack.errors import InvalidValue
from aiotrack.following import Following
from aiotrack.health import Checking, Checks
from aiotrack.labels import parameters
from aiotrack.locks.verbs import Listing, Locks, task_lock
from aiotrack.logs import Logs, follow, page
from aiotrack.metrics import Metrics
from aiotrack.model import LogLine, Page, TaskStatus
from aiotrack.progress import YIELD_EVERY, YIELDS, Progress, progress_values
from aiotrack.report import Report, Witness
from aiotrack.reruns import Reruns
from aiotrack.schedules import Timetables
from aiotrack.scheduling import Scheduling
from aiotrack.submission import Submission, Submitting
from aiotrack.summaries import Summing
from aiotrack.sweeping import Sweeping
from aiotrack.sweeps import Sweeps
from aiotrack.validation import Validation
from aiotrack.workers import Workers

if TYPE_CHECKING:
    from aiotrack.locks.lock import TaskLock

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Tracker(
    Following, Checkpoints, Cancelling, Reruns, Sweeping, Submitting, Scheduling, Checking, Summing
):
    """Records executions in a database, and reads them back.

    Usable in web, worker and scheduler processes, and without any broker. Nothing is opened before
    the first use; each event loop gets connections of its own.

    Args:
        database: An SQLAlchemy URL or engine. Default: ``AIOTRACK_DATABASE_URL``, else the file
            ``aiotrack.db`` in the working directory.
        redis: ``redis://...`` or a client. Default: ``AIOTRACK_REDIS_URL``, else none.
        settings: `Settings`, or a mapping of some of them; they win over the environment.

    Raises:
        InvalidSetting: A value cannot be used; the message names it.
    """

    features: ClassVar = (
        *(Locks, Logs, Sweeps, Cancellation, Validation, Workers, Submission, Timetables),
        *(Checks, Metrics, Alerts),
    )

    @property
    def locks(self) -> Listing:
        """Who holds which lock: ``list(task_id=...)``, ``info(name)``, ``force_release(name)``."""
        return Listing(self, self.audit.append)

    @property
    def alerts(self) -> Watch:
        """What somebody ought to see to: ``list()``, ``check()``, ``on(receiver)``."""
        return Watch(self, self.receivers)

    @property
    def audit(self) -> AuditLog:
        """Who did what to what: ``list(actor=..., target=...)``, and ``append`` for your own."""
        return AuditLog(self)

    def lock(
        self,
        name: str,
        *,
        key: object = None,
        ttl: float = 60.0,
        wait: float = 0.0,
        renew: bool = True,
        on_lost: str = "cancel",
    ) -> TaskLock:
        """Make a lock in this tracker's Redis; see `aiotrack.task_lock`."""
        return task_lock(
            name, key=key, ttl=ttl, wait=wait, renew=renew, on_lost=on_lost, tracker=self
        )

    def report_of(
        self, run: Run, witness: Witness, status: TaskStatus, duration: float | None = None
    ) -> Report:
        """Make a report of a run, with the progress that it has not told yet."""
        run.is_told = True
        finished = None
        if duration is not None:
            ran = int(duration * 1_000_000)
            finished = max(run.started_at + ran, self.clock.now())  # the clock may be set back
        report = Report(
            run.origin,
            witness,
            status,
            run.run_id,
            run.attempt,
            run.requeues,
            run.is_set_aside,
            run.worker,
            run.started_at,
            finished,
            duration,
        )
        if run.cancel is not None and witness is Witness.ENDED:
            report.cancel_reason, report.cancelled_by = run.cancel.reason, run.cancel.by
        if run.progress is not None:
            report.patch = run.progress.take(self._stamp(run), self.encoder)
        return report

    def _stamp(self, run: Run) -> tuple[int, int, int]:
        return (run.attempt, run.started_at, run.started_at + int(run.elapsed() * 1_000_000))

    async def progress(
        self,
        percent: float | None = None,
        message: str | None = None,
        step: str | None = None,
        *,
        current: float | None = None,
        total: float | None = None,
        task_id: str | int | None = None,
        **extra: Any,
    ) -> None:
        """Tell how far the work is.

        Inside a run no id is needed. Calls are coalesced, the last one is never lost, and a loop of
        them lets other tasks run every 10 ms. Outside a run, without *task_id*, nothing happens.

        Args:
            percent: 0 to 100; rounded down and clamped, nonsense is ignored and counted.
            message: What is being done.
            step: The name of the step.
            current: How much is done, of *total*; gives the percentage.
            total: How much there is.
            task_id: Of another execution; that of the run here changes nothing.
            **extra: More metadata.

        Raises:
            TypeError: Both *percent* and *total* are given.
            ExecutionNotFound: *task_id* is given and unknown.
        """
        values = progress_values(percent, message, step, current, total, extra, self.count_nonsense)
        run = run_here(self)
        if task_id is not None and not _is_of(run, self, task_id):
            await self.update(task_id, metadata=values)
            return
        if run is None:
            log.debug("progress outside a run is not recorded")
            return
        progress = run.progress
        if progress is None:
            progress = self._progress_of(run, run.loop or asyncio.get_running_loop())
        progress.put(values)
        now = time.monotonic()
        if now - progress.yielded_at >= YIELD_EVERY:
            for _ in range(YIELDS):
                await asyncio.sleep(0)
            progress.yielded_at = time.monotonic()

    def progress_sync(
        self,
        percent: float | None = None,
        message: str | None = None,
        step: str | None = None,
        *,
        current: float | None = None,
        total: float | None = None,
        **extra: Any,
    ) -> None:
        """Tell how far the work here is, from a task that runs in a thread. As `progress`."""
        if "task_id" in extra:
            raise TypeError("progress_sync() tells of the run here: await progress() for others")
        values = progress_values(percent, message, step, current, total, extra, self.count_nonsense)
        run = run_here(self)
        if run is None:
            log.debug("progress outside a run is not recorded")
            return
        self.note(run, values)

    def note(self, run: Run, values: dict[str, Any]) -> None:
        """Keep metadata that a run tells, and write it soon. From any thread."""
        loop = run.loop or self._loop_here()
        if loop is None:
            log.debug("no event loop can write this progress: start the tracker first")
        else:
            (run.progress or self._progress_of(run, loop)).put(values)

    def _progress_of(self, run: Run, loop: asyncio.AbstractEventLoop) -> Progress:
        def hand_over() -> None:
            if run.is_over:
                made.forget()
                return
            if (report := run.started()).patch is not None:
                run.tracker.recorder().add(report)

        made = Progress(loop, hand_over)
        with self._making:  # two threads may tell their first progress at once
            run.progress = run.progress or made
        return run.progress

    def count_nonsense(self) -> None:
        """Count a percentage that is no number, in the ``counters`` of a recorder."""
        log.debug("a percentage that is no number is ignored")
        loop = self._loop_here()
        core = None if loop is None else self._cores.get(loop)
        if core is not None:
            core.recorder.counters["nonsense"] += 1

    @contextlib.asynccontextmanager
    async def track(
        self,
        name: str,
        *,
        module: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        created_by: str | int | None = None,
        metadata: Mapping[str, Any] | None = None,
        task_id: str | int | None = None,
    ) -> AsyncIterator[Run]:
        """Record a block of asyncio work that no broker carries.

        Start, end, error and progress are recorded; exceptions pass through. The value given has
        the ``task_id``.

        Args:
            name: Stored as the task's name.
            module: Business scope; default: the first part of *name*.
            args: Stored as positional arguments.
            kwargs: Stored as keyword arguments.
            created_by: Who asked for it.
            metadata: Key-value pairs of the record.
            task_id: Default: a new one.
        """
        run = by_hand.begin(
            self,
            name,
            module=module,
            args=args,
            kwargs=kwargs or {},
            created_by=created_by,
            metadata=metadata or {},
            task_id=task_id,
        )
        async with self._inside(run):
            yield run

    @contextlib.asynccontextmanager
    async def _inside(self, run: Run) -> AsyncIterator[Run]:
        run.home = asyncio.get_running_loop()
        recorder = self.recorder()
        recorder.begin(run)
        run.token = CURRENT.set(run)
        run.body = asyncio.current_task()
        self.core().feature(Cancellation).on_begin(run)
        error: BaseException | None = None
        try:
            yield run
        except BaseException as raised:
            error = raised
            raise
        finally:
            uncancel(run)
            report = by_hand.end(self, run, error)
            by_hand.leave(run)
            writing = asyncio.ensure_future(recorder.commit(report))
            writing.add_done_callback(lambda _: recorder.end(run))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                if writing.cancelling():  # the loop ends, and it may not have begun
                    recorder.add(report)
                raise

    @overload
    def tracked(self, name: Callable[P, T], /) -> Callable[P, T]: ...

    @overload
    def tracked(
        self, name: str | None = None, *, module: str | None = None
    ) -> Callable[[Callable[P, T]], Callable[P, T]]: ...

    def tracked(
        self, name: str | Callable[..., Any] | None = None, *, module: str | None = None
    ) -> Any:
        """Record every call of an async or sync function; exceptions pass through.

        ``@tracker.tracked`` without parentheses does the same.

        Args:
            name: Stored as the task's name; default: the function's module and name.
            module: Business scope; default: the first part of the name.

        Raises:
            InvalidValue: It is a generator: its body does not run in the call.
        """
        if callable(name):
            return self.tracked()(name)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            title = name or f"{function.__module__}:{function.__qualname__}"
            names = parameters(function)
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise InvalidValue(f"{title} is a generator: track what iterates over it")
            if any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):

                @wraps(function)
                async def around(*args: P.args, **kwargs: P.kwargs) -> Any:
                    given = by_hand.named(args, names)
                    async with self.track(title, module=module, args=given, kwargs=kwargs) as run:
                        run.result = value = await cast("Any", function)(*args, **kwargs)
                        return value

                return cast("Callable[P, T]", around)

            @wraps(function)
            def around_sync(*args: P.args, **kwargs: P.kwargs) -> T:
                self._hear_cancels()
                given = by_hand.named(args, names)
                work = partial(function, *args, **kwargs)
                return call(self, work, self._inside, title, module, given, kwargs)

            return around_sync

        return decorate

    async def logs(
        self,
        task_id: str | int,
        *,
        attempt: int | None = None,
        level: str | int | None = None,
        limit: int = 200,
        after: str | None = None,
    ) -> Page[LogLine]:
        """Give a page of what an execution logged, in the order of its attempts.

        Of an execution that another process ended within the last half second it waits for the
        rest of that: its last lines are written a moment after its end.

        Args:
            task_id: The execution.
            attempt: Only this attempt's lines.
            level: The lowest level, a name or a number.
            limit: Lines of the page, 1 to 10,000.
            after: ``next`` of the page before, with the same filters.

        Raises:
            ExecutionNotFound: There is no such execution, nor a line of a `TaskLogCollector`.
            InvalidQuery: A level, limit, attempt or cursor that cannot be served.
            StoreUnavailable: The database did not answer.
        """
        writer = (await self._flushed()).feature(Logs)
        return await page(writer, task_id, attempt=attempt, level=level, limit=limit, after=after)

    async def tail(self, task_id: str | int) -> AsyncIterator[LogLine]:
        """Yield what an execution logged and, as it comes, what it logs; ends when it is over.

        A slow consumer misses nothing that is kept: lines are read from the database.

        Args:
            task_id: The execution.

        Raises:
            ExecutionNotFound: There is no such execution.
            StoreUnavailable: The database did not answer.
        """
        lines = follow((await self._flushed()).feature(Logs), task_id)
        async with contextlib.aclosing(lines):
            async for line in lines:
                yield line


def _is_of(run: Run | None, tracker: Tracker, task_id: str | int) -> bool:
    """Whether a run is what *tracker* knows by an id: its progress need not be read and locked."""
    return run is not None and run.tracker is tracker and run.task_id == str(task_id)
