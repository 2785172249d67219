"""Brokers of a test's own queue, and workers in this loop that run what was sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from taskiq import AckableMessage, AsyncBroker
from taskiq.receiver import Receiver

from aiotrack.brokers import PriorityStreamBroker

MakeBroker = Callable[..., PriorityStreamBroker]
SOON = 20.0
"""Seconds after which what should have come is a fault; nothing here takes one of them."""


@pytest.fixture
async def redis(redis_url: str, queue_name: str) -> AsyncIterator[Any]:
    """A client that sees the keys; they are deleted at the end."""
    async with Redis.from_url(redis_url) as redis:
        yield redis
        if keys := [key async for key in redis.scan_iter(f"{queue_name}*")]:
            await redis.delete(*keys)


@pytest.fixture
async def make_broker(redis_url: str, queue_name: str, redis: Any) -> AsyncIterator[MakeBroker]:
    """Makes brokers of the test's queue; shut down at the end."""
    made: list[PriorityStreamBroker] = []

    def make_broker(url: str = redis_url, **options: Any) -> PriorityStreamBroker:
        options.setdefault("queue_name", queue_name)
        made.append(PriorityStreamBroker(url, **options))
        return made[-1]

    yield make_broker
    for broker in made:
        await broker.shutdown()


@contextlib.asynccontextmanager
async def serving(broker: AsyncBroker, at_once: int = 1) -> AsyncIterator[Receiver]:
    """Run what is sent, as a worker does; at the end what was begun is waited for."""
    broker.is_worker_process = True
    receiver = Receiver(broker, max_async_tasks=at_once)
    finish = asyncio.Event()
    work = asyncio.create_task(receiver.listen(finish))
    try:
        yield receiver
    finally:
        finish.set()
        await work


class Hand:
    """Takes messages one by one, as a worker with one slot that never lets go of them."""

    def __init__(self, broker: AsyncBroker) -> None:
        self._messages: Any = broker.listen()
        self.taken: list[AckableMessage] = []

    async def take(self, seconds: float = SOON) -> AckableMessage:
        """Give the next message, or raise TimeoutError."""
        async with asyncio.timeout(seconds):
            self.taken.append(await anext(self._messages))
        return self.taken[-1]

    async def close(self) -> None:
        """Stop listening."""
        await self._messages.aclose()


def sleeper(broker: AsyncBroker, ran: list[Any]) -> Any:
    """Give a task that notes its argument, and waits for an event if it is told to."""

    @broker.task("note")
    async def note(value: Any, seconds: float = 0.0) -> None:
        ran.append(value)
        await asyncio.sleep(seconds)

    return note


async def pending(redis: Any, queue: str, group: str = "taskiq") -> int:
    """Give how many messages of the lowest level are with workers."""
    return int((await redis.xpending(queue, group))["pending"])
