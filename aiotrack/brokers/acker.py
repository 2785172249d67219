"""Acknowledges messages: those that come together go together, over one connection."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from typing import Final

from aiotrack.brokers.backoff import Backoff
from aiotrack.brokers.held import Held, Key
from aiotrack.brokers.scripts import ACK
from aiotrack.redis.client import FAULTS
from aiotrack.redis.wire import Wire

log = logging.getLogger(__name__)

MOST: Final = 1000
"""Messages of one script; it keeps the server for about a microsecond each."""


class Acker:
    """The acknowledgements of one listener.

    Args:
        wire: The connection.
        group: Whose messages they are.
        held: Where they are held until then.
        lease: Seconds for which a failed acknowledgement is tried again.
    """

    def __init__(self, wire: Wire, group: str, held: Held, lease: float) -> None:
        self._wire, self._group, self._held, self._lease = wire, group, held, lease
        self._waiting: list[tuple[Key, asyncio.Future[None]]] = []
        self._work: asyncio.Task[None] | None = None

    def ack(self, key: Key) -> asyncio.Future[None]:
        """Acknowledge a message; done when the server has it, or when that was given up."""
        self._held.finish(key)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((key, done))
        if self._work is None:
            self._work = loop.create_task(self._send_all(), context=contextvars.Context())
        return done

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                try:
                    await self._send([key for key, _ in batch])
                finally:
                    self._held.remove(key for key, _ in batch)
                    for _, done in batch:
                        if not done.done():
                            done.set_result(None)
        finally:
            self._work = None

    async def _send(self, keys: list[Key]) -> None:
        """Acknowledge these; after a fault again, as long as their leases can be ours."""
        streams: dict[str, list[bytes]] = {}
        for key in keys:
            streams.setdefault(key.stream, []).append(key.id)
        words: list[object] = [self._group]
        for ids in streams.values():
            words += [len(ids), *ids]
        end = time.monotonic() + self._lease
        backoff = Backoff("acknowledging")
        while True:
            try:
                await self._wire.run(ACK, tuple(streams), *words)
            except FAULTS as error:
                if time.monotonic() >= end:
                    log.warning(
                        "%d messages could not be acknowledged, and are delivered again: %s",
                        len(keys),
                        error,
                    )
                    return
                await backoff.pause(error)
            except Exception:
                log.exception("%d messages could not be acknowledged", len(keys))
                return
            else:
                backoff.end()
                return
