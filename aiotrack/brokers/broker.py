"""The broker: what users make, send with and listen to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import platform
import secrets
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, ReadOnlyError
from taskiq import AckableMessage, BrokerMessage
from taskiq_redis import RedisStreamBroker

from aiotrack.brokers import letters, streams
from aiotrack.brokers.backoff import told
from aiotrack.brokers.listener import PATIENCE, Listener, Terms
from aiotrack.brokers.scripts import GROUPS
from aiotrack.errors import InvalidValue
from aiotrack.labels import word
from aiotrack.model import Queue
from aiotrack.redis.client import FAULTS, make_client, unreadable
from aiotrack.redis.wire import Wire, pack

log = logging.getLogger(__name__)

QUEUES_VARIABLE: Final = "AIOTRACK_QUEUES"

TRYING: Final = 3.0
"""Seconds for which a send tries to reach a server that restarts."""

FAREWELL: Final = 1.0
"""Seconds of a shutdown that saying farewell may take; TaskIQ gives all of it five."""

KNOWN: Final = 1000
"""Queues that are remembered of those that were sent to."""

_STOCK: Final = {
    "consumer_id": "all that was sent is taken, also before the first worker came",
    "mkstream": "streams are always made",
    "xread_block": "an idle worker hears at once",
    "xread_count": "a worker takes what it can run",
    "approximate": "maxlen is approximate",
    "idle_timeout": "'lease' is what it was for",
    "unacknowledged_batch_size": "a worker takes over what it can run",
    "unacknowledged_lock_timeout": "nothing is locked",
}
"""Arguments of RedisStreamBroker that mean nothing here, and why."""


class PriorityStreamBroker(RedisStreamBroker):
    """Queues with priorities on Redis streams; each message is run until it is acknowledged.

    *Order.* Of every ten messages that a worker takes, nine are the most urgent ones that wait,
    those of one priority in the order in which they were sent; the tenth is that which has waited
    longest, whatever its priority: the lowest is never starved. Queues are equals: priority 10 of
    all comes before priority 9 of any. A worker takes what it can run at once and no more, so the
    order is decided as late as can be; what was taken runs at the same time.

    *Nothing is lost.* A message is deleted when it is acknowledged, not before. While a worker
    lives, a thread keeps the lease of what it holds, also when a task blocks the event loop. What a
    killed worker held is taken over within a lease and a half, also on an idle queue. After
    ``max_deliveries`` without an acknowledgement a message is kept aside, see `dead_letters`. So a
    task may run more than once: when its worker is killed, or stands still for longer than the
    lease.

    *Redis away.* A worker waits, and goes on. A send tries to reach it for three seconds, then
    raises; it raises also when it cannot know whether the message was taken, and is never repeated.

    It serves what a stock ``RedisStreamBroker`` with the same queue and group sent, and stock
    senders may go on. One group for each queue: what is acknowledged is gone for all. Redis >= 6.2
    or Valkey, not a cluster.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        queue_name: Where a message goes that has no label ``queue``.
        queues: What a worker listens to; default: the environment's ``AIOTRACK_QUEUES``, with
            commas, else *queue_name* alone.
        lease: Seconds, or a timedelta, after which a message whose worker fell silent is taken over
            by another one.
        max_deliveries: How often a message may be given to workers.
        consumer_group_name: Workers of one group share the messages.
        consumer_name: Begins the names of the consumers; each listener adds process and chance.
        maxlen: About so many messages of a stream are kept, the oldest are dropped, run or not;
            None keeps all.
        max_connection_pool_size: Of taskiq-redis' own pool, which nothing here uses.
        **connection_kwargs: How to connect, as for `redis.asyncio.Connection`; time-outs are our
            own.

    Raises:
        InvalidValue: An argument cannot be meant so.
    """

    def __init__(
        self,
        url: str,
        queue_name: str = "taskiq",
        queues: Iterable[str] | None = None,
        *,
        lease: float | timedelta = 60.0,
        max_deliveries: int = 5,
        consumer_group_name: str = "taskiq",
        consumer_name: str | None = None,
        maxlen: int | None = None,
        max_connection_pool_size: int | None = None,
        **connection_kwargs: Any,
    ) -> None:
        if connection_kwargs.pop("additional_streams", None):
            raise InvalidValue("additional_streams: list the queues in 'queues'")
        for name in _STOCK.keys() & connection_kwargs.keys():
            del connection_kwargs[name]
            log.warning("PriorityStreamBroker needs no %s: %s", name, _STOCK[name])
        self.lease = _seconds(lease)
        self.max_deliveries = _whole("max_deliveries", max_deliveries)
        maxlen = None if maxlen is None else _whole("maxlen", maxlen)
        queue_name = streams.checked(queue_name)
        try:
            super().__init__(
                url,
                queue_name=queue_name,
                max_connection_pool_size=max_connection_pool_size,
                consumer_group_name=consumer_group_name,
                consumer_name=consumer_name,
                consumer_id="0",
                maxlen=maxlen,
                **connection_kwargs,
            )
        except ValueError:
            raise InvalidValue(f"url: {unreadable(url)}") from None
        self.queues = _queues(queues, self.queue_name)
        """What a worker listens to."""
        self._names = consumer_name or platform.node() or "worker"
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}
        self._sent_to: dict[str, None] = {}

    # ── sending ─────────────────────────────────────────────────────────────────────────────────
    async def kick(self, message: BrokerMessage) -> None:
        """Send a message to the queue and with the priority that its labels name.

        Raises:
            RedisError: The server refused it, or could not be reached: it was not sent.
            TimeoutError: Nobody knows whether it was taken.
            OSError: Likewise.
            InvalidValue: The label ``queue`` cannot name one.
        """
        queue, level = streams.place(message.labels, self.queue_name)
        if len(self._sent_to) < KNOWN:
            self._sent_to[queue] = None
        trim = () if self.maxlen is None else ("MAXLEN", "~", self.maxlen)
        name = streams.stream(queue, level)
        await self._send(pack(("XADD", name, *trim, "*", "data", message.message)))

    async def _send(self, command: bytes) -> None:
        """Send a command once; what was surely not done is tried again for `TRYING`."""
        end = time.monotonic() + TRYING
        while True:
            try:
                link = await self._wire().link()
            except FAULTS:
                if time.monotonic() >= end:
                    raise
            else:
                try:
                    await link.ask(command)
                except (BusyLoadingError, ReadOnlyError):
                    if time.monotonic() >= end:
                        raise
                else:
                    return
            await asyncio.sleep(0.1)

    def check_queue(self, queue: str) -> None:
        """Raise what a send to a queue would raise for its name.

        Raises:
            InvalidValue: It cannot be one.
        """
        streams.place({"queue": queue}, self.queue_name)

    # ── listening ───────────────────────────────────────────────────────────────────────────────
    def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Give the messages of the queues; it neither ends nor raises while Redis is away."""
        session = self._here()
        listener = Listener(self, self._terms(), self._consumer(), session.redis, session.wire)
        session.listeners.append(listener)
        return listener.messages()

    async def _declare_consumer_group(self) -> None:
        """Make the groups, if Redis is there: a listener makes those that are missing."""
        keys = streams.streams(self.queues)
        try:
            fault = await self._wire().run(GROUPS, keys, self.consumer_group_name, "")
        except FAULTS as error:
            log.warning("the broker starts without Redis: %s", told(error))
            return
        if fault:
            log.error("%s", told(ValueError(fault.decode(errors="replace"))))

    async def shutdown(self) -> None:
        """Hand back what was not begun, say farewell, and disconnect."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        try:
            if session is not None:
                await session.leave()
        finally:
            await super().shutdown()
            if session is not None:
                await session.close()

    # ── looking ─────────────────────────────────────────────────────────────────────────────────
    async def queue_states(self) -> list[Queue]:
        """Tell how it stands with the queues that it listens to, sends to, or has tasks for.

        ``depth`` is without what workers hold. ``consumers`` are those that were heard of within
        the last lease.

        Raises:
            RedisError: The server refused.
            TimeoutError: It did not answer in time.
            OSError: It cannot be reached.
        """
        names = dict.fromkeys([*self.queues, self.queue_name, *self._sent_to])
        for task in self.get_all_tasks().values():
            for label in ("queue", "queue_name"):
                if name := word(task.labels.get(label)):
                    names[name] = None
        wire, group = self._wire(), self.consumer_group_name
        asked = [letters.state(wire, name, group, self.lease) for name in names]
        return await asyncio.gather(*asked)

    async def dead_letters(
        self, queue: str | None = None, *, limit: int = 100
    ) -> list[letters.DeadLetter]:
        """Give what was set aside of a queue (default: the broker's own), the newest first."""
        return await letters.read(self._wire(), queue or self.queue_name, limit)

    async def revive(self, queue: str | None = None, *, ids: Iterable[str] | None = None) -> int:
        """Send what was set aside again, as new messages of the same priority.

        Args:
            queue: Which; default: the broker's own.
            ids: Of the letters; default: all that are there now.

        Returns:
            How many were sent.
        """
        chosen = None if ids is None else list(ids)
        return await letters.revive(self._wire(), queue or self.queue_name, chosen)

    # ── this loop's connection ──────────────────────────────────────────────────────────────────
    def _here(self) -> _Session:
        """Give the running loop's connection."""
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            for old in [old for old in self._sessions if old.is_closed()]:
                del self._sessions[old]
            redis = make_client(Redis(connection_pool=self.connection_pool))
            self._sessions[loop] = _Session(redis, Wire(redis, PATIENCE), [])
        return self._sessions[loop]

    def _wire(self) -> Wire:
        return self._here().wire

    def _terms(self) -> Terms:
        return Terms(
            queues=self.queues,
            group=self.consumer_group_name,
            lease=self.lease,
            max_deliveries=self.max_deliveries,
        )

    def _consumer(self) -> str:
        """Name a consumer as nobody else does: whose message it is decides who may renew it."""
        return f"{self._names}:{os.getpid()}:{secrets.token_hex(4)}"


@dataclass(slots=True)
class _Session:
    """What belongs to one event loop."""

    redis: Redis
    wire: Wire
    listeners: list[Listener]

    async def leave(self) -> None:
        """Say farewell for every consumer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                for listener in self.listeners:
                    await listener.leave()

    async def close(self) -> None:
        """Disconnect; who still acknowledges gets a connection for as long as that takes."""
        await self.wire.close()
        await self.redis.aclose(close_connection_pool=True)


def _seconds(lease: float | timedelta) -> float:
    seconds = lease.total_seconds() if isinstance(lease, timedelta) else lease
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidValue(f"lease is seconds or a timedelta, not {lease!r}")
    if not (math.isfinite(seconds) and seconds >= 0.1):
        raise InvalidValue(f"lease must be at least 0.1 s, not {lease!r}")
    return float(seconds)


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidValue(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def _queues(given: Iterable[str] | None, queue_name: str) -> tuple[str, ...]:
    if isinstance(given, str):
        raise InvalidValue(f"queues is a list of names: [{given!r}]")
    if given is None:
        given = os.environ.get(QUEUES_VARIABLE, "").split(",")
        given = list(filter(None, map(str.strip, given))) or [queue_name]
    found = tuple(dict.fromkeys(map(streams.checked, given)))
    if not found:
        raise InvalidValue("queues is empty: a worker would listen to nothing")
    return found
