"""Python's cyclic garbage collector in a worker process: see docs/decisions/007."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
from collections.abc import Iterable
from types import FrameType
from typing import Any

YOUNG = 5_000
"""New objects that a collection waits for at least: more than a hundred tasks in flight keep."""

_CALLBACK = "Receiver.callback"
"""What a message runs in; a task that awaits an in-place broker is another's."""

_RUN = ("taskiq.receiver.receiver", "run_task")
"""Where ``on_error`` is called from."""


def settle() -> None:
    """Let no collection walk again what is loaded by now, and collect no more often than needed."""
    gc.collect()
    gc.freeze()
    young, middle, old = gc.get_threshold()
    if 0 < young < YOUNG:  # 0: the user has turned it off
        gc.set_threshold(YOUNG, middle, old)


def frame_of_run(depth: int) -> FrameType | None:
    """Give the frame of TaskIQ's that runs this message: *depth* calls above the caller."""
    frame = inspect.currentframe()
    for _ in range(depth + 1):
        frame = None if frame is None else frame.f_back
    if frame is None:
        return None
    place = (frame.f_globals.get("__name__"), frame.f_code.co_name)
    return frame if place == _RUN else None


def cut_cycle(frame: FrameType, task: asyncio.Task[Any] | None) -> None:
    """Empty TaskIQ's own two frames of a failed run once its *task* is over.

    They hold the error, and the error's traceback holds them: all that the run had in its variables
    would stay in memory until a collection finds it. Never by way of the traceback: an error that
    two tasks share leads to frames of a task that goes on.
    """
    coroutine = None if task is None else task.get_coro()
    if task is not None and getattr(coroutine, "__qualname__", None) == _CALLBACK:
        frames = (frame, getattr(coroutine, "cr_frame", None))
        task.add_done_callback(lambda _: _empty(frames))


def _empty(frames: Iterable[FrameType | None]) -> None:
    for frame in frames:
        if frame is not None:
            with contextlib.suppress(RuntimeError):  # it goes on after all
                frame.clear()
