"""Messages of one channel, over a connection of their own that is opened anew when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiotrack.redis.client import FAULTS, TIMEOUT
from aiotrack.redis.line import Line
from aiotrack.redis.wire import as_fault, connected, pack

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

SILENCE = 5.0
"""Seconds without a message after which the server is asked whether it is still there: a line that
was cut looks like a calm one."""

AGAIN = 1.0
"""Seconds until a server that was away is tried again."""


class Channel:
    """Listens from `open` to `close`.

    Args:
        client: Says where the server is.
        name: Of the channel.
        on_message: Called with each message.
        on_open: Called whenever the server begins to send; what came before is lost.
        on_fault: Called with what broke the connection.
    """

    def __init__(
        self,
        client: Redis,
        name: str,
        *,
        on_message: Callable[[bytes], None],
        on_open: Callable[[], None] = lambda: None,
        on_fault: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._name = name
        self._on_message = on_message
        self._on_open = on_open
        self._on_fault = on_fault
        self._listening: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._heard_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether messages arrive."""
        return self._opened.is_set()

    async def open(self, within: float = TIMEOUT) -> bool:
        """Listen, and wait until the server knows it; False when that takes so many seconds."""
        if self._listening is None or self._listening.done():
            loop = asyncio.get_running_loop()
            self._listening = loop.create_task(self._listen(), context=contextvars.Context())
        if not self.is_open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._opened.wait()
        return self.is_open

    async def close(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening}, timeout=TIMEOUT)

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear(await connected(self._client))
            except FAULTS as error:
                self._on_fault(error)
            finally:
                self._opened.clear()
            await asyncio.sleep(AGAIN)

    async def _hear(self, connection: AbstractConnection) -> None:
        """Listen until the line ends; then raise what ended it."""
        loop = asyncio.get_running_loop()
        end: asyncio.Future[None] = loop.create_future()

        def hang_up(error: BaseException) -> None:
            if not end.done():
                end.set_exception(error if isinstance(error, FAULTS) else as_fault(error))

        def take(answer: Any) -> None:
            if isinstance(answer, Exception):
                hang_up(answer)
            else:
                self._take(answer)

        line = Line(connection, take, hang_up)
        self._heard_at = loop.time()
        line.write(pack(("SUBSCRIBE", self._name)))
        asking = asyncio.ensure_future(self._ask(line))
        try:
            await end
        finally:
            asking.cancel()
            line.close(at_once=True)

    async def _ask(self, line: Line) -> None:
        """Ask in a silence whether anybody is there, and hang up when there is no answer."""
        asked_at = -math.inf  # not time alone: a loop that stood still heard nothing either
        while True:
            await asyncio.sleep(SILENCE)
            now = asyncio.get_running_loop().time()
            if now - self._heard_at < SILENCE:
                continue
            if self._heard_at < asked_at:
                line.close(at_once=True)
                return
            asked_at = now
            line.write(pack(("PING",)))

    def _take(self, answer: Any) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        kind = answer[0] if isinstance(answer, list) else None
        if kind == b"message":
            self._on_message(answer[2])
        elif kind == b"subscribe":
            self._opened.set()
            self._on_open()
