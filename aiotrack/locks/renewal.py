"""Leases are made longer by a thread, with a loop and a connection of its own.

So a body that blocks its event loop does not lose its lock. A loop that does nothing at all any
more does, after `STALL`: nobody would ever free what a dead-locked process holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiotrack.locks.grants import margin
from aiotrack.locks.space import Space
from aiotrack.redis.client import FAULTS

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

STALL: Final = 60.0
"""Seconds without a turn of the event loop after which its locks are not renewed any more."""

IDLE: Final = 1.0
"""Seconds of the thread's longest sleep; a lease that is due sooner wakes it."""

KEPT: Final = 30.0
"""Seconds without a lease after which the thread ends."""

RETRY: Final = 0.1
"""Seconds until a renewal that failed is tried again, as long as the lease lasts."""


@dataclass(slots=True, eq=False)
class Lease:
    """A lock that is being renewed.

    Attributes:
        name: Which lock.
        token: Its owner's.
        ttl: Seconds.
        deadline: Monotonic seconds until which it is surely ours.
        until: Monotonic seconds at which it ends, whatever its holder does.
        on_lost: Called in the event loop with this and the reason.
    """

    name: str
    token: str
    ttl: float
    deadline: float
    until: float
    on_lost: Callable[[Lease, str], None]
    due: float = field(default=0.0)
    is_over: bool = False


class Renewer:
    """The thread that renews one event loop's leases; it ends when there are none.

    Args:
        redis: URL or client.
        namespace: Begins every key.
        loop: The event loop of the holders.
    """

    def __init__(self, redis: str | Redis, namespace: str, loop: asyncio.AbstractEventLoop) -> None:
        self._redis = redis
        self._namespace = namespace
        self._loop = loop
        self._leases: dict[str, Lease] = {}
        self._thread: threading.Thread | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._guard = threading.Lock()
        self._is_ticking = False
        self._turned_at = time.monotonic()
        self._silent = 0.0
        self._sleeps_until = 0.0
        self._is_closed = False

    def add(self, lease: Lease) -> None:
        """Renew a lease each third of its time; one that was handed over ends sooner."""
        now = time.monotonic()
        lease.due = now + min(lease.ttl / 3, (lease.deadline - now) / 2)
        with self._guard:
            self._leases[lease.token] = lease
            self._silent = 0.0
            if self._thread is None or not self._thread.is_alive():
                self._own_loop = self._wake = None
                self._thread = threading.Thread(
                    target=self._run, name="aiotrack-locks", daemon=True
                )
                self._thread.start()
            own, wake = self._own_loop, self._wake
        if own is not None and wake is not None and lease.due < self._sleeps_until:
            with contextlib.suppress(RuntimeError):  # it ended just now
                own.call_soon_threadsafe(wake.set)

    def drop(self, lease: Lease) -> None:
        """Renew it no more."""
        lease.is_over = True
        with self._guard:
            self._leases.pop(lease.token, None)

    def close(self) -> None:
        """End the thread as soon as it has nothing to renew."""
        self._is_closed = True
        with self._guard:
            own, wake = self._own_loop, self._wake
        if own is not None and wake is not None:
            with contextlib.suppress(RuntimeError):
                own.call_soon_threadsafe(wake.set)

    def _run(self) -> None:
        try:
            asyncio.run(self._renew_all())
        except Exception:
            log.exception("locks are not renewed any more: they end with their leases")

    async def _renew_all(self) -> None:
        space = Space(self._redis, self._namespace)
        wake = asyncio.Event()
        with self._guard:
            self._own_loop, self._wake = asyncio.get_running_loop(), wake
        busy_at = time.monotonic()
        try:
            while True:
                with self._guard:
                    leases = list(self._leases.values())
                if leases:
                    busy_at = time.monotonic()
                elif self._is_closed or time.monotonic() - busy_at > KEPT:
                    with self._guard:
                        if not self._leases:
                            self._thread = None
                            return
                self._tick()
                now = time.monotonic()
                due = [lease for lease in leases if lease.due <= now]
                await asyncio.gather(*(self._renew(space, lease) for lease in due))
                with self._guard:  # who adds one that is due sooner wakes us: it costs him the GIL
                    leases = list(self._leases.values())
                    now = time.monotonic()
                    due_at = min((lease.due for lease in leases), default=math.inf)
                    self._sleeps_until = min(due_at, now + IDLE)
                    wake.clear()
                await _set_within(wake, max(0.0, self._sleeps_until - now))
        finally:
            await space.close()

    def _tick(self) -> None:
        """Ask the holders' loop for a sign of life.

        Its silence is counted by our own turns: a process that is paused as a whole is not stuck.
        """
        now = time.monotonic()
        turn, self._turned_at = min(now - self._turned_at, 2 * IDLE), now
        if self._is_ticking:
            self._silent += turn
            return
        self._silent, self._is_ticking = 0.0, True

        def tick() -> None:
            self._is_ticking = False

        try:
            self._loop.call_soon_threadsafe(tick)
        except RuntimeError:  # it is closed: nobody holds anything
            with self._guard:
                self._leases.clear()

    async def _renew(self, space: Space, lease: Lease) -> None:
        now = time.monotonic()
        if now >= lease.until:
            self._lose(lease, "it was held for as long as it may be")
            return
        if self._silent > STALL:
            self._lose(lease, f"its event loop did nothing for {STALL:g} s")
            return
        ttl = min(lease.ttl, lease.until - now)
        try:
            is_ours = await space.extend(lease.name, lease.token, ttl)
        except FAULTS as error:
            if time.monotonic() >= lease.deadline:
                self._lose(lease, f"Redis did not answer: {error}")
            lease.due = time.monotonic() + RETRY * min(1.0, lease.ttl)
            return
        except Exception:  # the other leases need this thread
            log.exception("lock %s was not renewed", lease.name)
            lease.due = time.monotonic() + RETRY
            return
        if is_ours:
            lease.deadline = now + ttl - margin(ttl)
            lease.due = min(now + lease.ttl / 3, lease.until)
        else:
            self._lose(lease, "its lease ended, or somebody took it away")

    def _lose(self, lease: Lease, reason: str) -> None:
        if lease.is_over:
            return
        self.drop(lease)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lease.on_lost, lease, reason)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
