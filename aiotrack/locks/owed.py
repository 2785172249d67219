"""What was given up and Redis has not heard of yet: a lock that it may grant to nobody.

A server that stands still answers a request of before when it goes on: so giving up is tried until
it hears of it, for as long as the loop runs. Between two tries there is a timer and no task: a loop
that ends without a word leaves nothing behind that would complain.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

from aiotrack.locks.names import LONGEST
from aiotrack.redis.client import FAULTS

log = logging.getLogger(__name__)

SOONEST, LATEST = 0.25, 2.0
"""Seconds between two tries: each pause is twice as long as the one before it."""

MOST: Final = 10_000
"""How many are remembered; of more, the first end by themselves."""

AT_ONCE: Final = 100
"""How many are given up together, once the server has heard of one."""

SILENT: Final = "Redis did not answer in time"


class Owed:
    """Locks to be given up, by the token of their owner.

    Args:
        give_up: Asks the server, with name, token and mark; may be done twice.
        apart: Runs a coroutine in the background.
    """

    def __init__(
        self,
        give_up: Callable[[str, str, str], Awaitable[object]],
        apart: Callable[[Coroutine[object, object, object]], None],
    ) -> None:
        self._ask = give_up
        self._apart = apart
        self._owed: dict[str, tuple[str, str, float]] = {}
        """Token -> name, mark, and when no lease lasts any more."""
        self._timer: asyncio.TimerHandle | None = None
        self._pause = SOONEST
        self._is_told = False
        self._fault: str = SILENT
        self._is_resting = False
        self._is_closed = False

    def add(self, name: str, token: str, ended: str) -> None:
        """Give up a lock or a place in its queue, in the background."""
        self._owed[token] = (name, ended, asyncio.get_running_loop().time() + LONGEST)
        if len(self._owed) > MOST:
            del self._owed[next(iter(self._owed))]
        self._apart(self._give_up(token))

    def rest(self) -> None:
        """Begin no more tries: `close` makes the last one."""
        self._is_resting = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self, seconds: float) -> None:
        """Try what is left for the last time; what the server does not hear of ends by itself."""
        self.rest()
        left = [asyncio.ensure_future(self._give_up(token)) for token in self._owed]
        if left:
            _, late = await asyncio.wait(left, timeout=max(0.0, seconds))
            for task in late:
                task.cancel()
            await asyncio.wait(left)
        self._is_closed = True
        self._forget()

    async def _give_up(self, token: str) -> bool:
        """Try it; False when the server did not hear of it."""
        name, ended, _ = self._owed.get(token, ("", "", 0.0))
        if not name:
            return True  # too many came after it
        try:
            await self._ask(name, token, ended)
        except FAULTS as error:
            self._fault = str(error) or SILENT  # what took too long has no words of its own
            if self._is_closed:
                self._forget()
            elif not self._is_resting:
                self._tell(name)
                self._later()
            return False
        self._owed.pop(token, None)  # not when cancelled: `close` does it then
        return True

    def _later(self) -> None:
        if self._timer is None:
            pause = self._pause * random.uniform(0.8, 1.2)
            self._pause = min(LATEST, 2 * self._pause)
            loop, context = asyncio.get_running_loop(), contextvars.Context()  # of no run
            self._timer = loop.call_later(pause, self._again, context=context)

    def _again(self) -> None:
        self._timer = None
        self._apart(self._give_up_all())

    async def _give_up_all(self) -> None:
        """Try one, and all others when that was heard: a server that is away is asked once."""
        now = asyncio.get_running_loop().time()
        for token in [token for token, (_, _, until) in self._owed.items() if until < now]:
            del self._owed[token]
        first = next(iter(self._owed), None)
        if first is None:
            return
        self._owed[first] = self._owed.pop(first)  # who is refused for ever stops nobody else
        if not await self._give_up(first):
            return
        self._pause, self._is_told = SOONEST, False
        tokens = list(self._owed)
        for begin in range(0, len(tokens), AT_ONCE):
            await asyncio.gather(*map(self._give_up, tokens[begin : begin + AT_ONCE]))

    def _tell(self, name: str) -> None:
        """Say it once in an outage."""
        if not self._is_told:
            self._is_told = True
            log.warning(
                "lock %s could not be given up, and that is tried again: %s", name, self._fault
            )

    def _forget(self) -> None:
        """What is left now is given up by nobody."""
        names = sorted({name for name, _, _ in self._owed.values()})
        self._owed.clear()
        if names:
            told = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            log.warning("lock %s ends by itself: it could not be given up: %s", told, self._fault)
