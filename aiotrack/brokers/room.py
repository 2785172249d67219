"""How many messages a worker can run at once, beyond those it runs: it takes no more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiotrack.acks import receivers

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.brokers.held import Held

MOST: Final = 100
"""Messages that are taken at once: the server is kept for some 100 µs, and others get some, too."""


class Room:
    """The room of one listener.

    TaskIQ asks for a message when it can run one; how many more it could run stands in a semaphore
    of its receiver. Where that cannot be found, it is what was seen to be held at once, less what
    is held: a worker that runs one at a time takes one, and nobody keeps what it will not run.

    Args:
        broker: Whose receiver asks.
        held: What the worker holds.
    """

    def __init__(self, broker: AsyncBroker, held: Held) -> None:
        self._held = held
        found = receivers(broker)
        self._slots: asyncio.Semaphore | None = None
        self._is_unlimited = False
        if len(found) == 1:
            self._is_unlimited = found[0].get("sem", self) is None
            slots = found[0].get("sem_prefetch")
            self._slots = slots if isinstance(slots, asyncio.Semaphore) else None

    def size(self) -> int:
        """Give how many to take now, at least one: the one that was asked for."""
        if self._is_unlimited:
            return MOST
        free = getattr(self._slots, "_value", None)
        if not isinstance(free, int):
            free = self._held.most - len(self._held) - 1
        return min(MOST, max(0, free) + 1)
