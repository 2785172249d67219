"""The project whose long task goes on from its checkpoint after its worker was killed.

Workers load ``tests.acceptance.resumes:broker``. Every step says so in Redis before its checkpoint.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from redis.asyncio import Redis
from taskiq_redis import RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
STEPS = 12

IDLE = 1.5
"""Seconds after which a message counts as its dead consumer's, if new messages come."""


class Resumes:
    """A broker with a long task, async or in a thread, and what its bodies tell.

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
            idle_timeout=int(IDLE * 1000),
        )
        self.broker.add_middlewares(TrackerMiddleware(self.tracker))
        tracker = self.tracker

        async def tell(step: int) -> None:
            await self.redis.rpush(f"{queue}-steps", step)

        @self.broker.task("resumes.long")
        async def long() -> str:
            first = await tracker.last_checkpoint() or 0
            for step in range(first, STEPS):
                await tell(step)
                await asyncio.sleep(0.1)
                await tracker.checkpoint(step + 1)
            return f"from {first}"

        @self.broker.task("resumes.long_sync")
        def long_sync() -> str:
            first = tracker.last_checkpoint_sync() or 0
            with Path(os.environ["ACCEPTANCE_STEPS"]).open("a") as file:
                for step in range(first, STEPS):
                    print(step, file=file, flush=True)
                    time.sleep(0.1)
                    tracker.checkpoint_sync(step + 1)
            return f"from {first}"

        @self.broker.task("resumes.ping")
        async def ping() -> None: ...

        self.tasks = {"async": long, "sync": long_sync}
        self.ping = ping


if QUEUE_VARIABLE in os.environ:
    broker = Resumes(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
    ).broker
