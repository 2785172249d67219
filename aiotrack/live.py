"""Wake-ups: who follows an execution hears that it changed, and then reads it.

An event carries no state, only task_ids: what a follower sees always comes from the database, and
is durable. Between processes events travel through Redis, where there is one.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from aiotrack.errors import InvalidSetting

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from aiotrack.redis.events import Events

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Changed executions that one listener may leave unread."""


class Listener:
    """Collects what changed since it was last asked.

    Args:
        task_id: As it is stored; None hears of every execution.
    """

    def __init__(self, task_id: str | None = None) -> None:
        self.is_overrun = False
        """More changed than its owner read; nothing is collected any more."""
        self.is_all = False
        """Anything may have changed: some events were lost."""
        self.task_id = task_id
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    def tell(self, task_ids: AbstractSet[str] | None) -> None:
        """Note that these changed; None: anything may have."""
        if task_ids is None:
            self.is_all = True
        elif self.task_id is None:
            if not self.is_overrun:
                self._changed |= task_ids
                self.is_overrun = len(self._changed) > MAX_WAITING
        elif self.task_id in task_ids:
            self._changed.add(self.task_id)
        else:
            return
        self._wake.set()

    async def changed(self, timeout: float) -> set[str]:
        """Wait for a change, at most *timeout* seconds, and give what was told meanwhile."""
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return set()
        self._wake.clear()
        changed, self._changed = self._changed, set()
        return changed


class Live:
    """The wake-ups of one event loop.

    Args:
        redis: URL or client; None: only this process' own changes are heard of.
        namespace: Begins the channel's name.
    """

    def __init__(self, redis: str | Redis | None, namespace: str) -> None:
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self.is_heard = redis is not None
        """Whether telling reaches anybody; without Redis nobody before the first listens here."""
        self._redis = redis
        self._namespace = namespace
        self._events: Events | None = None

    @property
    def is_pushed(self) -> bool:
        """Whether what other processes change is heard of; else they have to be asked."""
        return self._events is not None and self._events.is_pushed

    @property
    def watchers(self) -> int:
        """How many listeners hear of every execution."""
        return sum(one.task_id is None for one in self._listeners)

    def tell(self, task_ids: AbstractSet[str]) -> None:
        """Wake whoever follows these: what is told is durable."""
        self._hear(task_ids)
        events = self._connected()
        if events is not None:
            events.publish(task_ids)

    async def listen(self, task_id: str | None = None) -> Listener:
        """Hear of changes for as long as the listener is kept.

        Args:
            task_id: As it is stored; None hears of every execution.
        """
        listener = Listener(task_id)
        self._listeners.add(listener)
        self.is_heard = True
        events = self._connected()
        if events is not None:
            await events.subscribe()
        return listener

    async def close(self) -> None:
        """Send what is left, and disconnect until the next use."""
        events, self._events = self._events, None
        if events is not None:
            await events.close()

    def _hear(self, task_ids: AbstractSet[str] | None) -> None:
        if self._listeners:
            for listener in tuple(self._listeners):
                listener.tell(task_ids)

    def _connected(self) -> Events | None:
        if self._events is None and self._redis is not None:
            from aiotrack.redis.events import Events
            from aiotrack.redis.keys import live_channel

            try:
                self._events = Events(self._redis, live_channel(self._namespace), self._hear)
            except InvalidSetting as error:
                log.error("live events do not travel: %s", error)
                self._redis = None
        return self._events
