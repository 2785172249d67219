"""What one process tells all others at once: a channel to hear, a connection to tell."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiotrack.redis.channel import Channel
from aiotrack.redis.client import FAULTS, make_client
from aiotrack.redis.wire import Wire

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)


class Bulletin:
    """Both directions, for one event loop. A message may get lost: what it tells is kept elsewhere.

    Args:
        redis: URL or client.
        channel: From `aiotrack.redis.keys`.
        on_message: Called with each message, also with our own.
        on_change: Called when messages begin to arrive, and when they may arrive no more: what
            was told meanwhile is lost.

    Raises:
        InvalidSetting: It is no URL of Redis.
    """

    def __init__(
        self,
        redis: str | Redis,
        channel: str,
        *,
        on_message: Callable[[bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        self._client = make_client(redis)
        self._is_ours = self._client is not redis
        self._name = channel
        self._on_change = on_change
        self._wire = Wire(self._client)
        self._channel = Channel(
            self._client,
            channel,
            on_message=on_message,
            on_open=self._opened,
            on_fault=self._broke,
        )
        self._is_reported = False

    @property
    def is_open(self) -> bool:
        """Whether messages arrive."""
        return self._channel.is_open

    async def listen(self) -> None:
        """Begin to listen, without waiting for the server."""
        await self._channel.open(within=0)

    async def tell(self, message: str) -> bool:
        """Send a message; False when the server does not take it, within two seconds."""
        try:
            await self._wire.ask("PUBLISH", self._name, message)
        except FAULTS as error:
            self._complain(error)
            return False
        self._is_reported = False
        return True

    async def close(self) -> None:
        """Disconnect."""
        await self._channel.close()
        await self._wire.close()
        if self._is_ours:
            with contextlib.suppress(*FAULTS):
                await self._client.aclose(close_connection_pool=True)

    def _opened(self) -> None:
        self._is_reported = False
        self._on_change()

    def _broke(self, error: BaseException) -> None:
        self._complain(error)
        self._on_change()

    def _complain(self, error: BaseException) -> None:
        if not self._is_reported:
            self._is_reported = True
            log.warning("%s is not heard through Redis for now: %s", self._name, error)
