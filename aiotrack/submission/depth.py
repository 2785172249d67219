"""How many messages wait in a broker's queues: told by the broker, or read from Redis.

A broker that has a coroutine ``queue_states() -> list[Queue]`` tells by itself. The stock list and
stream brokers of taskiq-redis are read here; of all others nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiotrack.errors import QueueFull
from aiotrack.labels import word
from aiotrack.model import Queue

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from taskiq import AsyncBroker

log = logging.getLogger(__name__)

ANSWER: Final = 2.0
"""Seconds for a broker to tell."""

BELIEVED: Final = 1.0
"""Seconds that a depth is believed."""

TENTH: Final = 10
"""Of the room that a depth left, one part in so many may be filled before it is asked for again."""


@dataclass(slots=True)
class _Seen:
    """What is known of a queue: until when, and for how many more sends, it is believed."""

    until: float = 0.0
    sends: float = 0.0
    room: float = 0.0
    """Messages that it takes, those that are on their way counted."""
    sending: int = 0
    """Messages that are on their way."""
    unsure: int = 0
    """Those that were when a look began: it may have seen them, or not."""
    looks: int = 0
    """Looks that were answered."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Gate:
    """Refuses sends to a queue that is full, as one event loop sees it.

    A depth is believed for a second at most, and for sends that fill a tenth of the room that it
    left: near the limit each send asks. Those that ask at once share one look, and each takes its
    place before it is sent: what one event loop sends alone never passes the limit. Several
    processes together may, by what they send until they ask again.

    Args:
        limit: Messages; 0: any number.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[tuple[AsyncBroker, str], _Seen] = {}

    async def check(self, broker: AsyncBroker, labels: Mapping[str, Any]) -> None:
        """Tell whether a send would pass now; it takes no place.

        Raises:
            QueueFull: As many wait as the limit allows. Where nobody knows, none is too many.
        """
        if self._limit:
            await self._free(broker, target(broker, labels))

    @contextlib.asynccontextmanager
    async def place(self, broker: AsyncBroker, labels: Mapping[str, Any]) -> AsyncIterator[None]:
        """Let a send pass, which is the body; when that raises, its place is free again.

        Raises:
            QueueFull: As many wait as the limit allows. Where nobody knows, none is too many.
        """
        if self._limit == 0:
            yield
            return
        seen = await self._free(broker, target(broker, labels))
        seen.sends -= 1
        seen.room -= 1
        seen.sending += 1
        try:
            yield
        except BaseException:
            seen.room += 1
            seen.unsure -= 1
            raise
        finally:
            seen.sending -= 1

    async def _free(self, broker: AsyncBroker, name: str) -> _Seen:
        """Give a queue that has room. Who takes it does so before anybody else runs."""
        seen = self._seen.setdefault((broker, name), _Seen())
        if seen.sends < 1 or time.monotonic() > seen.until:
            known = seen.looks
            async with seen.asking:
                if seen.looks == known:  # else one was answered since we came
                    await self._look(broker, name, seen)
        if seen.room < 1:
            raise QueueFull(name, int(self._limit - seen.room), self._limit)
        return seen

    async def _look(self, broker: AsyncBroker, name: str, seen: _Seen) -> None:
        seen.unsure = seen.sending
        depth = await _depth(broker, name)
        room = float("inf") if depth is None else self._limit - depth - seen.unsure
        seen.until, seen.sends, seen.room = time.monotonic() + BELIEVED, room / TENTH, room
        seen.looks += 1


def target(broker: AsyncBroker, labels: Mapping[str, Any]) -> str:
    """Give the queue that a message goes to. The stock brokers know no label ``queue``."""
    own = None if _is_stock(broker) else word(labels.get("queue"))
    return own or word(labels.get("queue_name")) or str(getattr(broker, "queue_name", ""))


async def states(broker: Any) -> list[Queue]:
    """Give a broker's queues; none if it cannot tell, or does not answer in time."""
    try:
        async with asyncio.timeout(ANSWER):
            ask = getattr(broker, "queue_states", None)
            if callable(ask):
                return list(await ask())
            if _is_stock(broker):
                names = [broker.queue_name, *getattr(broker, "additional_streams", ())]
                found = [await _stock(broker, name) for name in names]
                return [one for one in found if one is not None]
    except Exception as error:
        log.warning("the queues of %s are not known: %r", type(broker).__name__, error)
    return []


async def _depth(broker: AsyncBroker, name: str) -> int | None:
    """Give how many wait in one queue, None where nobody knows."""
    try:
        async with asyncio.timeout(ANSWER):
            ask = getattr(broker, "queue_states", None)
            if callable(ask):
                return next((one.depth for one in await ask() if one.name == name), None)
            if _is_stock(broker):
                found = await _stock(broker, name)
                return None if found is None else found.depth
    except Exception as error:  # whatever is wrong, the send itself will say it better
        log.debug("how many wait in %s is not known: %r", name, error)
    return None


def _is_stock(broker: Any) -> bool:
    from taskiq_redis import ListQueueBroker, RedisStreamBroker

    is_theirs = isinstance(broker, ListQueueBroker | RedisStreamBroker)
    return is_theirs and not hasattr(broker, "queue_states")


async def _stock(broker: Any, name: str) -> Queue | None:
    from redis.asyncio import Redis
    from taskiq_redis import ListQueueBroker

    async with Redis(connection_pool=broker.connection_pool) as redis:
        if isinstance(broker, ListQueueBroker):
            return Queue(name=name, depth=await redis.llen(name))
        return await _stream(redis, name, broker.consumer_group_name)


async def _stream(redis: Redis, name: str, group: str) -> Queue | None:
    """Give what no worker of a group has taken; None where the server does not count that.

    What workers have taken stays in the stream: its length says nothing.
    """
    if not await redis.exists(name):
        return Queue(name=name, depth=0)
    last, waiting = "-", None
    for one in await redis.xinfo_groups(name):
        if _text(one["name"]) == group:
            last, waiting = f"({_text(one['last-delivered-id'])}", one.get("lag")
            break
    else:
        waiting = await redis.xlen(name)
    oldest = await redis.xrange(name, min=last, count=1)
    if not oldest:
        return Queue(name=name, depth=0)
    if waiting is None:
        return None
    seconds, micros = await redis.time()
    sent = int(_text(oldest[0][0]).partition("-")[0])
    return Queue(name=name, depth=waiting, oldest_age=max(0.0, seconds + micros / 1e6 - sent / 1e3))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
