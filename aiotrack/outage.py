"""How long the database has been away, and what the log hears of it: each outage is told once."""

from __future__ import annotations

import asyncio
import logging

from aiotrack.errors import StoreError

log = logging.getLogger(__name__)

PAUSE_FIRST, PAUSE_LAST = 0.05, 2.0
"""Seconds between tries while the database is away: doubled from the first to the last."""


class Outage:
    """The outage that a recorder is in, if it is in one.

    Args:
        loop: Whose clock counts.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.since: float | None = None
        """When it began, on the loop's clock; None: there is none."""
        self._is_told = False
        self._pause = PAUSE_FIRST

    def lasted(self, seconds: float) -> bool:
        """Whether it goes on, and has for so long."""
        return self.since is not None and self._loop.time() - self.since >= seconds

    def presume(self, seconds: float) -> None:
        """Take it that nobody has answered for so long: no answer came at all, not even a fault."""
        begun = self._loop.time() - seconds
        self.since = min(begun, self.since or begun)

    def failed(self, error: Exception) -> bool:
        """Take a write's fault; gives whether an outage begins with it."""
        if not self._is_told:
            self._is_told = True
            fault = None if isinstance(error, StoreError) else error  # also a fault of ours
            log.error("executions are not being recorded for now: %s", error, exc_info=fault)
        if self.since is not None:
            return False
        self.since = self._loop.time()
        return True

    def pause(self) -> float:
        """Give the seconds until the next try."""
        pause, self._pause = self._pause, min(2 * self._pause, PAUSE_LAST)
        return pause

    def end(self, backlog: int) -> None:
        """Take it that a write succeeded; *backlog* reports wait."""
        if self.since is not None and self._is_told:
            away = self._loop.time() - self.since
            log.warning("recording goes on after %.1f s, %d reports wait", away, backlog)
        self.since, self._is_told, self._pause = None, False, PAUSE_FIRST
