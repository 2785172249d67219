"""Messages of one channel, over a connection of their own that is opened anew when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiotrack.redis.client import FAULTS, TIMEOUT
from aiotrack.redis.wire import connected, pack

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
            connection = None
            try:
                connection = await connected(self._client)
                await self._hear(connection)
            except FAULTS as error:
                self._on_fault(error)
            finally:
                self._opened.clear()
                if connection is not None:
                    with contextlib.suppress(*FAULTS):
                        await connection.disconnect(nowait=True)
            await asyncio.sleep(AGAIN)

    async def _hear(self, connection: AbstractConnection) -> None:
        await connection.send_packed_command(pack(("SUBSCRIBE", self._name)), check_health=False)
        self._heard_at = asyncio.get_running_loop().time()
        asking = asyncio.ensure_future(self._ask(connection))
        try:
            while True:  # a read that is cancelled would close the connection
                self._take(await connection.read_response(timeout=math.inf))
                self._heard_at = asyncio.get_running_loop().time()
        finally:
            asking.cancel()

    async def _ask(self, connection: AbstractConnection) -> None:
        """Ask in a silence whether anybody is there, and hang up when there is no answer."""
        asked_at = -math.inf  # not time alone: a loop that stood still heard nothing either
        while True:
            await asyncio.sleep(SILENCE)
            now = asyncio.get_running_loop().time()
            if now - self._heard_at < SILENCE:
                continue
            if self._heard_at < asked_at:
                await connection.disconnect(nowait=True)
                return
            asked_at = now
            with contextlib.suppress(*FAULTS):
                await connection.send_packed_command(pack(("PING",)), check_health=False)

    def _take(self, answer: Any) -> None:
        kind = answer[0] if isinstance(answer, list) else None
        if kind == b"message":
            self._on_message(answer[2])
        elif kind == b"subscribe":
            self._opened.set()
            self._on_open()
