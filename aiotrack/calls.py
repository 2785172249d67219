"""Calls of tracked sync functions, and what goes on after a call that only began the work."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aiotrack.by_hand import begin, end, leave, step_out
from aiotrack.current import CURRENT, Run
from aiotrack.model import TaskStatus
from aiotrack.report import Witness

if TYPE_CHECKING:
    from aiotrack.tracker import Tracker

T = TypeVar("T")

Inside = Callable[[Run], AbstractAsyncContextManager[Run]]
"""Records a block of async code as a run."""


def call(
    tracker: Tracker,
    work: Callable[[], T],
    inside: Inside,
    name: str,
    module: str | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> T:
    """Record a call of sync code through the loop that the tracker runs in.

    In that loop's thread the end is reported without waiting for its commit. A decorator's plain
    function may give the coroutine of an async one, or a future: the run goes on with it.
    """
    run = begin(
        tracker, name, module=module, args=args, kwargs=kwargs, created_by=None, metadata={}
    )
    tracker.report_from_anywhere(tracker.report_of(run, Witness.STARTED, TaskStatus.STARTED))
    run.token = CURRENT.set(run)
    tracker.in_threads.add(run)
    try:
        value = work()
    except BaseException as error:
        _over(tracker, run, error)
        raise
    if asyncio.isfuture(value):
        step_out(run)
        _end_with(tracker, run, value)
        return value
    if isinstance(value, Coroutine) and not hasattr(value, "__aenter__"):  # that one is entered
        tracker.in_threads.discard(run)
        step_out(run)
        return cast("T", _go_on(tracker, run, value, inside))
    run.result = value
    _over(tracker, run, None)
    return value


def _over(tracker: Tracker, run: Run, error: BaseException | None) -> None:
    tracker.in_threads.discard(run)
    report = end(tracker, run, error)
    leave(run)
    tracker.report_from_anywhere(report)


def _end_with(tracker: Tracker, run: Run, future: asyncio.Future[Any]) -> None:
    """End a run with the future that it gave; its caller has the very same."""

    def done(_: asyncio.Future[Any]) -> None:
        error: BaseException | None = asyncio.CancelledError()
        if not future.cancelled():
            # Asked for it, a future that nobody awaits would warn no more.
            error = future._exception  # noqa: SLF001 - both of Python's futures have it
            run.result = None if error is not None else future.result()
        _over(tracker, run, error)

    loop = future.get_loop()
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here:
        future.add_done_callback(done)
    else:
        with contextlib.suppress(RuntimeError):  # it was closed just now
            loop.call_soon_threadsafe(future.add_done_callback, done)


def _go_on(
    tracker: Tracker, run: Run, work: Coroutine[Any, Any, Any], inside: Inside
) -> Coroutine[Any, Any, Any]:
    """Give the coroutine that is awaited in place of *work*, in the context of its run."""

    async def rest() -> Any:
        async with inside(run):
            run.result = value = await work
            return value

    rest.__name__ = getattr(work, "__name__", rest.__name__)  # what a task or a warning shows
    rest.__qualname__ = getattr(work, "__qualname__", rest.__qualname__)
    made = rest()
    loop = tracker.living_loop()
    if loop is not None:
        dropped = weakref.finalize(made, _tell_dropped, loop, tracker, run, work)
        dropped.atexit = False
    return made


def _tell_dropped(
    loop: asyncio.AbstractEventLoop, tracker: Tracker, run: Run, work: Coroutine[Any, Any, Any]
) -> None:
    """Have it told that a coroutine was let go; the garbage collector may call this anywhere."""
    if not run.is_over:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_drop, tracker, run, work)


def _drop(tracker: Tracker, run: Run, work: Coroutine[Any, Any, Any]) -> None:
    work.close()
    report = tracker.report_of(run, Witness.ENDED, TaskStatus.FAILURE, run.elapsed())
    report.error = "the coroutine that it gave was never awaited"
    leave(run)
    tracker.report_from_anywhere(report)
