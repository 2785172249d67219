"""The project whose messages have priorities: every body tells Redis when it begins and ends.

Workers load ``tests.acceptance.levels:broker``.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import NamedTuple

from redis.asyncio import Redis

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.brokers import PriorityStreamBroker

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"

LEASE = 3.0
"""Seconds after which a message counts as its dead worker's."""


class Body(NamedTuple):
    """What a body told: which task, of which level, in which process, and when by its clock."""

    number: int
    level: int
    pid: int
    at: float


class Levels:
    """A broker, and what its bodies tell.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue.
        queue: Its name, and prefix of all other keys.
    """

    def __init__(self, *, database: str, redis: str, queue: str) -> None:
        self.queue = queue
        self.redis = Redis.from_url(redis)
        self.tracker = Tracker(database)
        self.broker = PriorityStreamBroker(redis, queue_name=queue, lease=LEASE)
        self.broker.add_middlewares(TrackerMiddleware(self.tracker))

        @self.broker.task("levels.work")
        async def work(number: int, level: int, seconds: float) -> None:
            await self.tell("begun", number, level)
            await asyncio.sleep(seconds)
            await self.tell("done", number, level)

        @self.broker.task("levels.block")
        async def block(number: int, seconds: float) -> None:
            await self.tell("begun", number, 1)
            time.sleep(seconds)  # noqa: ASYNC251 - it blocks the loop: that is what it is for
            await self.tell("done", number, 1)

        self.work, self.block = work, block

    async def tell(self, what: str, number: int, level: int) -> None:
        """Say that a body has begun, or is done."""
        line = f"{number} {level} {os.getpid()} {time.monotonic()}"
        await self.redis.rpush(f"{self.queue}-{what}", line)

    async def told(self, what: str) -> list[Body]:
        """Give the bodies that have ``begun`` or are ``done``, in order."""
        lines = [one.split() for one in await self.redis.lrange(f"{self.queue}-{what}", 0, -1)]
        return [Body(int(one[0]), int(one[1]), int(one[2]), float(one[3])) for one in lines]

    async def is_drained(self) -> bool:
        """Whether nothing is left in any stream."""
        names = [self.queue, *(f"{self.queue}:{level}" for level in range(2, 11))]
        return not sum([await self.redis.xlen(name) for name in names])


if QUEUE_VARIABLE in os.environ:
    broker = Levels(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
    ).broker
