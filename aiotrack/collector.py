"""Python's cyclic garbage collector in a worker process: see docs/decisions/007."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

YOUNG = 5_000
"""New objects that a collection waits for at least: more than a hundred tasks in flight keep."""

_RECEIVER = "taskiq.receiver.receiver"
"""The module whose frame is the first in the traceback of every task."""

_CALLBACK = "Receiver.callback"
"""What a message runs in; a task that awaits an in-place broker is another's."""


def settle() -> None:
    """Let no collection walk again what is loaded by now, and collect no more often than needed."""
    gc.collect()
    gc.freeze()
    young, middle, old = gc.get_threshold()
    if 0 < young < YOUNG:  # 0: the user has turned it off
        gc.set_threshold(YOUNG, middle, old)


def cut_cycle(error: BaseException, task: asyncio.Task[Any] | None) -> None:
    """Empty TaskIQ's own frames once *task*, in which a run failed, is over.

    They hold the error, and the error's traceback holds them: all that the failed run had in its
    variables would stay in memory until a collection finds it. The traceback stays as it is.
    """
    coroutine = None if task is None else task.get_coro()
    if task is not None and getattr(coroutine, "__qualname__", None) == _CALLBACK:
        task.add_done_callback(lambda _: _empty(error))


def _empty(error: BaseException) -> None:
    trace = error.__traceback__
    frame = None if trace is None else trace.tb_frame
    while frame is not None and frame.f_globals.get("__name__") == _RECEIVER:
        outer = frame.f_back
        frame.clear()
        frame = outer
