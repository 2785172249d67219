"""Pauses between tries while Redis is away: said once, longer and longer, never in step."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

log = logging.getLogger(__name__)

FIRST: Final = 0.1
LONGEST: Final = 5.0
"""Seconds."""


class Backoff:
    """The tries of one kind of work.

    Args:
        what: The work, for the log.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._pause = FIRST
        self._is_told = False

    async def pause(self, error: BaseException) -> None:
        """Wait after a fault; the first one in a row is a WARNING."""
        if not self._is_told:
            self._is_told = True
            log.warning("%s waits for Redis: %s", self._what, told(error))
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(LONGEST, self._pause * 2)

    def end(self) -> None:
        """Tell that it works."""
        if self._is_told:
            log.warning("%s goes on", self._what)
        self._is_told = False
        self._pause = FIRST


def told(error: BaseException) -> str:
    """Give an error's words, with what to do about one that does not end by itself."""
    text = str(error) or type(error).__name__
    if "WRONGTYPE" in text:
        return (
            f"{text}. The key of the queue holds no stream, but for example the messages of a "
            "ListQueueBroker: use another queue name"
        )
    if "CROSSSLOT" in text or "MOVED" in text:
        return f"{text}. A cluster is not supported: the streams must lie on one server"
    return text
