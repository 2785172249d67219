"""The one connection of a writer: opened, watched while it writes, given up when it breaks."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from aiotrack.errors import StoreUnavailable
from aiotrack.repository.ending import Ending

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

LIMIT = 5.0
"""Seconds for a connect, and for a whole write: an engine that was given to us may have no limits,
BEGIN, COMMIT and ROLLBACK take none from here, and the driver none when it closes a statement that
it has kept for long."""

CLOSE_TIMEOUT = 0.5
"""Seconds for the goodbye to a server that may be gone: TaskIQ leaves five for the whole end."""

REST = 0.1
"""Seconds between two writes after which their session may have been ended for its idleness."""

SOON = 1.0
"""Seconds within which a session that had ended is found out; what takes longer is an outage."""

LATE = 0.1
"""Seconds by which a timer comes late when a body has blocked the loop."""

GRACE = 0.5
"""Seconds for a write whose time ran out while the loop was blocked: its answer may have come."""

BROKEN = (
    SQLAlchemyError,
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
)
"""What a connection raises that was cut, ended or answered with nonsense."""

_CUT = (ConnectionError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)
"""What it raises when it has ended already."""

_IDLE = "57P05"
"""SQLSTATE of a session that was ended for its idleness: it did nothing of what it was told."""


class Session:
    """A connection from an engine; its user holds a lock meanwhile.

    Args:
        engine: Gives it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._held: Any = None
        self.driver: Any = None
        """The driver's own in it: to find it out takes as long as the rest of the way here."""
        self.prepared: dict[str, Callable[..., Awaitable[Sequence[Any]]]] = {}
        """Runs a hot statement on it: the driver has not to look for it by its text each time."""
        self.until = math.inf
        """When the write that is going on must be over, by the monotonic clock."""
        self._begun = self._spared = -math.inf
        self._has_rested = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._ending = Ending()

    def begin(self) -> None:
        """Begin a write: its time runs."""
        now = time.monotonic()
        self._has_rested = now - self._begun > REST
        self._begun = now
        self.until = now + LIMIT
        if self._watchdog is None:
            self._watch()

    async def open(self) -> None:
        """Connect. Whatever goes wrong here is never the data's fault.

        The driver's own errors come raw, wrapped or translated: 'the database system is starting
        up' is neither SQLAlchemy's nor asyncpg's.
        """
        self.until = math.inf
        self._has_rested = True  # what a pool gives may have
        self.drop()  # it was cut while it rested
        await self._ending.over()
        try:
            async with asyncio.timeout(LIMIT):
                held: Any = await self._engine.raw_connection()
                while held.driver_connection.is_closed():  # another one that rested
                    held.invalidate()
                    held = await self._engine.raw_connection()
        except Exception as error:
            raise StoreUnavailable(f"cannot connect to the database: {error!r}") from error
        self._held, self.driver = held, held.driver_connection
        self.until = time.monotonic() + LIMIT
        if self._watchdog is None:
            self._watch()

    def drop(self) -> None:
        """Forget a connection that may be in an unknown state."""
        held, driver, self._held, self.driver, self.prepared = (
            self._held,
            self.driver,
            None,
            None,
            {},
        )
        if held is not None:
            self._ending.begin(held, driver)

    def may_repeat(self, error: Exception, *, is_safe: bool) -> bool:
        """Tell whether a write only found out that its connection had ended while it rested.

        Args:
            error: What was raised, one of `BROKEN`.
            is_safe: The write may be done twice: nobody knows whether it was.
        """
        is_in_time = time.monotonic() - self._begun <= SOON and self.driver is not None
        self._begun = -math.inf  # only once
        is_idle = getattr(error.__cause__, "sqlstate", None) == _IDLE
        is_harmless = is_idle or (is_safe and isinstance(error, _CUT))
        return self._has_rested and is_in_time and is_harmless

    async def close(self) -> None:
        """Close it, until it is opened again."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        self.drop()
        await self._ending.over(CLOSE_TIMEOUT)

    def _watch(self) -> None:
        """End a write that takes too long; one timer looks at all, one for each costs a lone task.

        Ended, the driver raises whatever it waits for, and the write is one that failed.
        """
        watchdog, self._watchdog = self._watchdog, None
        loop = asyncio.get_running_loop()
        left = self.until - time.monotonic()
        if left <= 0:
            is_late = watchdog is not None and loop.time() - watchdog.when() > LATE
            if is_late and self.until != self._spared:
                left = GRACE
                self.until = self._spared = time.monotonic() + GRACE
            else:
                self.until = math.inf
                self.drop()
        if 0 < left < math.inf:
            context = contextvars.Context()  # of no run
            self._watchdog = loop.call_later(left, self._watch, context=context)
