"""The project whose workers are killed: every body says so in Redis before and after its work.

Workers load ``tests.acceptance.kills:broker``. The stream gives a dead worker's messages to others
as soon as they lie for `IDLE`, if new messages come.
"""

from __future__ import annotations

import asyncio
import os
from uuid import uuid4

from redis.asyncio import Redis
from taskiq_redis import RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
SLOWER = float(os.environ.get("ACCEPTANCE_SLOWER", "1"))
"""How many times as long a body sleeps as usual."""

IDLE = 2.0
"""Seconds after which a message counts as its dead consumer's; every body is far quicker."""


class Kills:
    """A broker with one task, and what its bodies tell.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue.
        queue: Name of the stream, and prefix of all other keys.
    """

    def __init__(self, *, database: str, redis: str, queue: str) -> None:
        self.queue = queue
        self.redis = Redis.from_url(redis)
        self.tracker = Tracker(database)
        self.broker = RedisStreamBroker(
            redis,
            queue_name=queue,
            consumer_id="0",
            xread_block=300,
            xread_count=10,
            idle_timeout=int(IDLE * 1000),
            unacknowledged_batch_size=50,
            max_connection_pool_size=150,
        )
        self.broker.add_middlewares(TrackerMiddleware(self.tracker))

        @self.broker.task("kills.work")
        async def work(number: int) -> str:
            body = uuid4().hex
            await self.redis.rpush(f"{queue}-begun", f"{number} {body}")
            await asyncio.sleep((number % 7) / 100 * SLOWER)
            await self.redis.rpush(f"{queue}-done", f"{number} {body}")
            return body

        self.work = work

    async def pending(self) -> int:
        """Give how many messages are not read, or read and not acknowledged."""
        group = (await self.redis.xinfo_groups(self.queue))[0]
        return int(group["pending"]) + int(group["lag"])

    async def told(self, what: str) -> dict[int, set[str]]:
        """Give the bodies that have ``begun`` or are ``done``, by the number of their task."""
        found: dict[int, set[str]] = {}
        for line in await self.redis.lrange(f"{self.queue}-{what}", 0, -1):
            number, body = line.decode().split()
            found.setdefault(int(number), set()).add(body)
        return found


if QUEUE_VARIABLE in os.environ:
    broker = Kills(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
    ).broker
