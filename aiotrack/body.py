"""The wrapper around a task's function: it may keep the body from running, and judges its end.

TaskIQ has no hook around the body alone: exceptions in `pre_execute` lose the message, and at
`on_error` retry middlewares may have decided already.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import traceback
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from taskiq import NoResultError
from taskiq.receiver import Receiver

from aiotrack.classes import INVALID_INPUT
from aiotrack.current import CURRENT, Run
from aiotrack.errors import TaskCancelled
from aiotrack.traces import current_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask

log = logging.getLogger(__name__)

_WRAPPED = "__aiotrack__"


class Revoked(NoResultError):
    """A run ends because somebody asked for it: retry middlewares leave it alone."""


def find_task(
    brokers: Iterable[AsyncBroker], name: str
) -> tuple[AsyncBroker, AsyncTaskiqDecoratedTask[Any, Any]] | None:
    """Give the first of some brokers that knows a task, and the task."""
    for broker in brokers:
        task: AsyncTaskiqDecoratedTask[Any, Any] | None = broker.find_task(name)
        if task is not None:
            return broker, task
    return None


def wrap(task: AsyncTaskiqDecoratedTask[Any, Any]) -> None:
    """Put the wrapper around the function of a task; TaskIQ looks for it after `pre_execute`."""
    function, task_name = task.original_func, task.task_name
    if hasattr(function, _WRAPPED):
        return
    if inspect.iscoroutinefunction(function):
        task.original_func = _around(function, task_name)
    elif not _is_pooled():  # there it is pickled by its name
        task.original_func = _around_sync(function, task_name)


def _is_pooled() -> bool:
    """Whether the receiver that has called us runs sync bodies in a pool of processes."""
    frame = inspect.currentframe()
    while frame is not None:
        receiver = frame.f_locals.get("self")
        if isinstance(receiver, Receiver):
            return isinstance(receiver.executor, ProcessPoolExecutor)
        frame = frame.f_back
    return False


def _around(function: Callable[..., Any], task_name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    async def body(*args: Any, **kwargs: Any) -> Any:
        run = _enter(task_name)
        if run is None:
            return await function(*args, **kwargs)
        run.body = asyncio.current_task(None if run.core is None else run.core.loop)
        try:
            value = await (function if run.twin is None else body)(*args, **kwargs)
        except BaseException as error:
            _failed(run, functools.partial(function, *args, **kwargs), error)
            raise
        finally:
            uncancel(run)
        if run.check is not None:
            _returned(run, run.check, value)
        return value

    setattr(body, _WRAPPED, function)
    return body


def _around_sync(function: Callable[..., Any], task_name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def body(*args: Any, **kwargs: Any) -> Any:
        run = _enter(task_name)
        if run is None:
            return function(*args, **kwargs)
        try:
            value = (function if run.twin is None else body)(*args, **kwargs)
        except BaseException as error:
            _failed(run, functools.partial(function, *args, **kwargs), error)
            raise
        if run.check is not None:
            _returned(run, run.check, value)
        return value

    setattr(body, _WRAPPED, function)
    return body


def _failed(run: Run, call: functools.partial[Any], error: BaseException) -> None:
    """Judge the error that a body ended with.

    Raises:
        Revoked: In its place: the body ended because that was asked for.
    """
    if is_ours(run, error):
        raise Revoked from None
    _judge_arguments(run, call, error)
    _raised(run, error)


def _judge_arguments(run: Run, call: functools.partial[Any], error: BaseException) -> None:
    """Tell arguments that the function does not take from a TypeError of its own code."""
    if type(error) is not TypeError:
        return
    try:
        code = getattr(inspect.unwrap(call.func), "__code__", None)
        if any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__)):
            return  # it ran, with what a decorator gave it
        inspect.signature(call.func).bind(*call.args, **call.keywords)
    except TypeError:
        run.error_class = INVALID_INPUT
    except Exception:  # it has no signature, or a strange one: the body's error is what counts
        log.debug("the arguments of %s cannot be judged", run.name, exc_info=True)


def _enter(task_name: str) -> Run | None:
    """Give the run whose body is called; None when somebody calls the function by himself.

    Of the runs of several trackers, the next that has not entered: each puts a wrapper of its own
    around the others.

    Raises:
        Revoked: It is not wanted any more.
    """
    run = CURRENT.get()
    while run is not None and run.is_entered:
        run = run.twin
    if run is None or run.is_over or run.name != task_name:
        return None
    one: Run | None = run
    while one is not None:
        if one.cancel is not None:
            raise Revoked  # before any has entered: what never ran is told as such
        one = one.twin
    run.is_entered = True
    run.origin.trace_id = current_trace() or run.origin.trace_id
    return run


def is_ours(run: Run, error: BaseException) -> bool:
    """Tell a cancellation that was asked for from a time-out, a shutdown or another task's."""
    if run.cancel is None:
        return False
    left = [error]
    while left:  # a task group's children look, too; not by recursion: groups may be deep
        one = left.pop()
        if isinstance(one, BaseExceptionGroup):
            left.extend(one.exceptions)
        elif isinstance(one, TaskCancelled):
            if one.task_id != run.origin.task_id:
                return False
        elif not (run.is_interrupted and isinstance(one, asyncio.CancelledError)):
            return False
    return True


def uncancel(run: Run) -> None:
    """Leave the body, and take our cancellation back.

    On 3.13 one that is left over breaks the next task group.
    """
    body, run.body = run.body, None
    if run.is_interrupted and body is not None:
        body.uncancel()


def _raised(run: Run, error: BaseException) -> None:
    if run.core is not None and not isinstance(error, NoResultError):
        for hook in run.core.on_raise:
            try:
                hook(run, error)
            except Exception:
                log.exception("a feature failed on an error of %s", run.name)


def _returned(run: Run, check: Callable[[Any], None], value: Any) -> None:
    """Check what a body gave; what `prevent_duplicate_task` answers in its place is not its own."""
    if run.skipped is not None and value is run.skipped:
        return
    try:
        check(value)
    except BaseException as error:
        _raised(run, error)
        raise


__all__ = ["Revoked", "find_task", "is_ours", "uncancel", "wrap"]
