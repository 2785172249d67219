"""Wake-ups: who follows an execution hears that it changed, and then reads it.

An event carries no state, only the task_ids: what a follower sees always comes from the database.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Set as AbstractSet

MAX_WAITING = 10_000
"""Changed executions that one listener may leave unread before it is closed."""


class Listener:
    """Collects what changed since it was last asked.

    Args:
        task_id: As it is stored; None hears of every execution.
    """

    def __init__(self, task_id: str | None = None) -> None:
        self.task_id = task_id
        self.is_overrun = False
        """More changed than anybody waited for; nothing is collected any more."""
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    def tell(self, task_ids: AbstractSet[str]) -> None:
        """Note that these changed."""
        if self.task_id is not None:
            if self.task_id in task_ids:
                self._changed.add(self.task_id)
        elif not self.is_overrun:
            self._changed.update(task_ids)
            self.is_overrun = len(self._changed) > MAX_WAITING
        if self._changed:
            self._wake.set()

    async def changed(self, timeout: float) -> set[str]:
        """Wait for a change, at most *timeout* seconds; the empty set when there was none."""
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return set()
        self._wake.clear()
        changed, self._changed = self._changed, set()
        return changed


class Live:
    """The wake-ups of one event loop."""

    def __init__(self) -> None:
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()

    def tell(self, task_ids: AbstractSet[str]) -> None:
        """Wake whoever follows these: what is told is durable."""
        for listener in self._listeners:
            listener.tell(task_ids)

    def listen(self, task_id: str | None = None) -> Listener:
        """Hear of changes for as long as the listener is kept.

        Args:
            task_id: As it is stored; None hears of every execution.
        """
        listener = Listener(task_id)
        self._listeners.add(listener)
        return listener
