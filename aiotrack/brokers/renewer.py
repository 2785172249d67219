"""A thread that renews the leases of what a worker holds, with a loop and a connection of its own.

So a body that blocks its event loop keeps its message, for as long as the process lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from aiotrack.brokers.backoff import told
from aiotrack.brokers.held import Held, Key
from aiotrack.brokers.scripts import RENEW
from aiotrack.redis.client import FAULTS, make_client
from aiotrack.redis.wire import Wire

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

MOST: Final = 500
"""Messages of one script; two commands each keep the server for some two microseconds."""


class Renewer:
    """The thread of one listener; it ends after `close`, when nothing is held any more.

    Args:
        redis: Says where the server is.
        group: Whose messages they are.
        consumer: Who holds them.
        held: What is held.
        lease: Seconds; all is renewed each third of it.
    """

    def __init__(self, redis: Redis, group: str, consumer: str, held: Held, lease: float) -> None:
        self._redis, self._group, self._consumer = redis, group, consumer
        self._held, self._lease = held, lease
        self._is_closed = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._is_told = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="aiotrack-leases", daemon=True).start()

    def close(self) -> None:
        """Let the thread end as soon as nothing is held."""
        self._is_closed.set()
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # it ended just now
                loop.call_soon_threadsafe(wake.set)

    def _run(self) -> None:
        try:
            asyncio.run(self._renew_all())
        except Exception:
            log.exception("leases are not renewed any more: long tasks may run twice")

    async def _renew_all(self) -> None:
        client = make_client(self._redis)
        wire = Wire(client)
        self._wake, self._loop = asyncio.Event(), asyncio.get_running_loop()
        try:
            while True:
                keys = self._held.keys()
                if not keys and self._is_closed.is_set():
                    return
                is_done = True
                for at in range(0, len(keys), MOST):
                    is_done = await self._renew(wire, keys[at : at + MOST]) and is_done
                pause = self._lease / 3 if is_done else min(1.0, self._lease / 10)
                await self._sleep(pause)
        finally:
            await wire.close()
            await client.aclose(close_connection_pool=True)

    async def _sleep(self, seconds: float) -> None:
        """Wait; a close is heard at once, and then what is held is looked at each second."""
        if self._is_closed.is_set():
            await asyncio.sleep(min(seconds, 1.0))
            return
        assert self._wake is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _renew(self, wire: Wire, keys: Sequence[Key]) -> bool:
        """Renew some; False when that is to be tried again soon."""
        places = {stream: at for at, stream in enumerate({key.stream for key in keys}, 1)}
        words = [word for key in keys for word in (places[key.stream], key.id)]
        try:
            lost = await wire.run(RENEW, tuple(places), self._group, self._consumer, *words)
        except FAULTS as error:
            if not self._is_told:
                self._is_told = True
                log.warning("leases are not renewed for now: %s", told(error))
            return False
        except Exception:  # the next try may do better
            log.exception("leases were not renewed")
            return False
        if self._is_told:
            self._is_told = False
            log.warning("leases are renewed again")
        self._lose([keys[at] for at in lost])
        return True

    def _lose(self, lost: Sequence[Key]) -> None:
        gone = self._held.lose(lost)
        if not gone:
            return  # acknowledged meanwhile
        log.warning(
            "%d messages are not this worker's any more, and may run twice: it did nothing for "
            "longer than the lease of %g s, or Redis lost its data. The first: %s of %s",
            len(gone),
            self._lease,
            gone[0].id.decode(),
            gone[0].stream,
        )
