"""How a writer's connection ends: its server hears that nobody waits for its statement any more.

While a statement waits for a lock, its server does not look whether the client is still there. So
without a word every retry would leave one more session that waits, until nobody gets one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Any, Final

GOODBYE: Final = 1.0
"""Seconds for it: a cancel takes a connection of its own, and what it ends has to answer."""


class Ending:
    """The connection that a writer gives up; at most one, as the next opens after its end."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self, held: Any, driver: Any) -> None:
        """End a connection in whatever state it is; nobody uses it any more.

        Args:
            held: What the engine gave; its pool may fill the place when the connection has gone.
            driver: The driver's own connection in it.
        """
        if driver.is_closed():
            _give_back(held)
            return
        loop, context = asyncio.get_running_loop(), contextvars.Context()  # of no run
        self._task = loop.create_task(_end(held, driver), context=context)

    async def over(self, patience: float | None = None) -> None:
        """Wait until it has gone; after *patience* (seconds) it goes without a word."""
        if self._task is not None and not self._task.done():
            _, late = await asyncio.wait({self._task}, timeout=patience)
            for task in late:
                task.cancel()
                await asyncio.wait({task})
        self._task = None


async def _end(held: Any, driver: Any) -> None:
    """Let the driver cancel what runs: cut off at once, it would not even send that."""
    try:
        with contextlib.suppress(Exception):
            await driver.close(timeout=GOODBYE)
    finally:
        _give_back(held)


def _give_back(held: Any) -> None:
    with contextlib.suppress(Exception):
        held.invalidate()
