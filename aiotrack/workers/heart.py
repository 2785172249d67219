"""Beats come from a thread, with a loop and one database connection of its own.

So a body that blocks its event loop does not make its worker lost. A loop that does nothing at all
any more does, after `STALL`: what a dead-locked process works on is never finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from aiotrack.errors import StoreError

if TYPE_CHECKING:
    from aiotrack.repository import Repository
    from aiotrack.repository.control.workers import Beat, Described, Registry

log = logging.getLogger(__name__)

STALL: Final = 60.0
"""Seconds without a turn of the event loop after which its worker beats no more."""

RETRY: Final = 1.0
"""Seconds until a beat that the database did not take is tried again, or the time of a beat."""

GOODBYE: Final = 0.4
"""Seconds that a stop waits for the farewell: TaskIQ leaves five for all of its broker's."""


class Heart:
    """The thread that beats for one event loop.

    Args:
        open_database: Gives the repository that the beats use, in the thread's loop.
        describe: Tells all of the worker; from the thread.
        beat: Tells what changes; from the thread.
        on_turn: Called in the worker's loop when it is its turn to look after lost workers; None
            where it never is.
    """

    def __init__(
        self,
        open_database: Callable[[], Repository],
        describe: Callable[[], Described],
        beat: Callable[[], Beat],
        on_turn: Callable[[], None] | None,
    ) -> None:
        self._open_database = open_database
        self._describe = describe
        self._beat = beat
        self._on_turn = on_turn
        self._loop = asyncio.get_running_loop()
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._is_ending = False
        self._gone = asyncio.Event()
        self._told: Described | None = None
        self._is_ticking = False
        self._turned_at = time.monotonic()
        self._silent = 0.0
        self._is_reported = False
        self.passes = 0
        """Turns that it leaves to other workers."""
        self._thread = threading.Thread(target=self._run, name="aiotrack-heart", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Beat now: there is news."""
        own, wake = self._own_loop, self._wake
        if own is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # it ended just now
                own.call_soon_threadsafe(wake.set)

    async def stop(self) -> None:
        """Say farewell, and end; a database that does not answer in time hears none."""
        self._is_ending = True
        self.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await self._gone.wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception:
            log.exception("this worker beats no more: it will be taken for lost")
        finally:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._gone.set)

    async def _live(self) -> None:
        from aiotrack.repository.control.workers import Registry

        repository = self._open_database()
        self._own_loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        try:
            registry = Registry(repository)
            while not self._is_ending:
                self._wake.clear()  # before we look: news that come later wake us again
                begun = time.monotonic()
                described = self._describe()
                is_told = self._is_alive() and await self._tell(registry, described)
                rest = described.beat_seconds - (time.monotonic() - begun)
                if not is_told:
                    rest = min(RETRY, described.beat_seconds)
                if not self._is_ending:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(max(0.0, rest)):
                            await self._wake.wait()
            if self._told is not None:
                with contextlib.suppress(StoreError):
                    await registry.farewell(self._told.id)
        finally:
            with contextlib.suppress(StoreError):
                await repository.close()
            await repository.engine.dispose()

    async def _tell(self, registry: Registry, described: Described) -> bool:
        """Beat, and find out whether it is our turn; False: the database did not take it."""
        try:
            beat = self._beat()
            if described != self._told or not await registry.beat(described.id, beat):
                await registry.register(described, beat)
                self._told = described
            if self.passes:
                self.passes -= 1
            elif self._on_turn is not None and self._silent == 0.0:
                period = 0.9 * described.beat_seconds  # its own next one must not come too early
                if await registry.take_turn(described.id, period):
                    self._loop.call_soon_threadsafe(self._on_turn)
        except Exception as error:  # also a fault of ours: the heart must outlive it
            if not self._is_reported:
                self._is_reported = True
                fault = None if isinstance(error, StoreError) else error
                log.warning("this worker cannot tell that it lives: %s", error, exc_info=fault)
            return False
        self._is_reported = False
        return True

    def _is_alive(self) -> bool:
        """Ask the worker's loop for a sign of life.

        Its silence is counted by our own turns: a process that is paused as a whole is not stuck.
        """
        now = time.monotonic()
        turn, self._turned_at = min(now - self._turned_at, STALL / 4), now
        if self._is_ticking:
            self._silent += turn
            return self._silent <= STALL
        self._silent, self._is_ticking = 0.0, True

        def tick() -> None:
            self._is_ticking = False

        try:
            self._loop.call_soon_threadsafe(tick)
        except RuntimeError:  # it is closed, and nobody stopped us
            self._is_ending, self._told = True, None
            return False
        return True
