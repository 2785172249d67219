"""A project with work that must not run twice; workers load ``tests.locks.guarded:broker``."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from redis.asyncio import Redis
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware, prevent_duplicate_task

QUEUE_VARIABLE = "GUARDED_QUEUE"
TIMEOUT_VARIABLE = "GUARDED_TIMEOUT"
REDIS_VARIABLE = "AIOTRACK_REDIS_URL"


def make_broker(url: str, queue: str, database: str, timeout: float) -> RedisStreamBroker:
    """Make the broker, with its task."""
    tracker = Tracker(database, redis=url, settings={"namespace": queue})
    broker = RedisStreamBroker(url, queue_name=queue, consumer_id="0", xread_block=300)
    broker = broker.with_result_backend(RedisAsyncResultBackend(url, prefix_str=queue))
    broker.add_middlewares(TrackerMiddleware(tracker))

    @broker.task("guarded.work")
    @prevent_duplicate_task("work", lock_param="what", timeout=timeout)
    async def work(what: str, seconds: float) -> str | dict[str, Any]:
        async with Redis.from_url(url) as client:
            await client.rpush(f"{queue}:bodies:{what}", os.getpid())
        await asyncio.sleep(seconds)
        return f"did {what}"

    return broker


if QUEUE_VARIABLE in os.environ:
    broker = make_broker(
        os.environ[REDIS_VARIABLE],
        os.environ[QUEUE_VARIABLE],
        os.environ["AIOTRACK_DATABASE_URL"],
        float(os.environ[TIMEOUT_VARIABLE]),
    )
