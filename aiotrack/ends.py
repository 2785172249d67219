"""The ends that nobody announces: of an event loop, of a process."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from multiprocessing.util import Finalize
from typing import Any

INTERRUPTS = 5
"""How often *work* at a process' end begins again; meanwhile signals are ignored."""


def at_loop_end(work: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Have *work* awaited when the running loop ends; its tasks are over by then.

    An event loop has one hook for its end: `asyncio.run`, web servers and test runners close every
    async generator that was begun in it. So *work* is what a generator does when it is closed.

    Returns:
        The generator; ``anext(it, None)`` calls *work* off.
    """

    async def wait() -> AsyncGenerator[None, None]:
        try:
            yield
        except GeneratorExit:
            # The loop warns of generators that begin now: nobody would close them. Ours end here.
            sys.set_asyncgen_hooks(firstiter=None)
            await work()
            raise

    guard = wait()
    with contextlib.suppress(StopIteration):  # begun by hand: a task would have to be awaited
        guard.asend(None).send(None)
    return guard


def at_process_end(work: Callable[[], None]) -> Finalize:
    """Have *work*, which may be repeated, called when this process ends; not when a child does.

    `atexit` would not do: before Python 3.13 it says nothing in processes of `multiprocessing`, and
    TaskIQ's workers are such.

    Returns:
        What can ``cancel()`` that.
    """

    def insist() -> None:
        known: dict[signal.Signals, Any] = {}
        for _ in range(INTERRUPTS):
            try:
                with contextlib.suppress(ValueError):  # not the main thread
                    for number in (signal.SIGINT, signal.SIGTERM):
                        known.setdefault(number, signal.getsignal(number))
                        signal.signal(number, signal.SIG_IGN)
                work()
            except KeyboardInterrupt:  # the fifth signal to a worker of TaskIQ, and each after it
                continue
            break
        for number, handler in known.items():  # what ends after us may be slow, and interrupted
            with contextlib.suppress(ValueError, TypeError):  # TypeError: it was not Python's
                signal.signal(number, handler)

    return Finalize(None, insist, exitpriority=0)
