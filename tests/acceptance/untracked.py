"""The project whose workers have no tracker: only its sender and its result backend tell.

Workers load ``tests.acceptance.untracked:broker``.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from taskiq import AsyncBroker, SimpleRetryMiddleware
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"


def make(redis: str, queue: str) -> AsyncBroker:
    """Make the broker with its tasks."""
    backend: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(redis, prefix_str=queue)
    broker = RedisStreamBroker(redis, queue_name=queue, consumer_id="0", xread_block=300)
    made = broker.with_result_backend(backend).with_middlewares(SimpleRetryMiddleware())

    @made.task("untracked.good")
    async def good(number: int) -> dict[str, int]:
        return {"number": number}

    @made.task("untracked.bad", retry_on_error=True, max_retries=3)
    async def bad(number: int) -> None:
        raise ValueError(f"no {number}")

    @made.task("untracked.slow", timeout=0.2)
    async def slow(number: int) -> None:
        await asyncio.sleep(30)

    return made


if QUEUE_VARIABLE in os.environ:
    broker = make(os.environ["ACCEPTANCE_REDIS_URL"], os.environ[QUEUE_VARIABLE])
