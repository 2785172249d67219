"""R33: cancelled at every moment of a run: it ends truly, is acknowledged, and no callback dies."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from taskiq import SmartRetryMiddleware, TaskiqDepends
from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from aiotrack import TaskStatus, Tracker, TrackerMiddleware
from aiotrack.current import Cancel
from aiotrack.tracker import Cancellation

SHORT, LONG = 160, 2_000
STEPS = 60
"""Turns of the loop from the send of a task to its end, with some to spare."""


async def slow_dependency() -> AsyncIterator[int]:
    """Take a few steps before the body, and after it."""
    await asyncio.sleep(0)
    yield 1
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "runs", [SHORT, pytest.param(LONG, marks=[pytest.mark.chaos, pytest.mark.timeout(900)])]
)
async def test_a_cancel_at_any_moment(
    database_url: str,
    redis_url: str,
    queue_name: str,
    caplog: pytest.LogCaptureFixture,
    runs: int,
) -> None:
    """By the verb, and step by step by the message that it sends."""
    tracker = Tracker(database_url, redis=redis_url, settings={"namespace": queue_name})
    broker = RedisStreamBroker(
        redis_url, queue_name=queue_name, xread_block=100
    ).with_result_backend(
        RedisAsyncResultBackend(redis_url, prefix_str=queue_name, result_ex_time=60)
    )
    broker.add_middlewares(
        TrackerMiddleware(tracker), SmartRetryMiddleware(default_retry_label=True)
    )

    @broker.task("shop.steps")
    async def steps(number: int, one: int = TaskiqDepends(slow_dependency)) -> int:
        for _ in range(number % 7):
            await asyncio.sleep(0)
        for _ in range(number % 2 * 8):  # by the verb: it takes some milliseconds
            await asyncio.sleep(0.01)
        if number % 11 == 0:
            raise ValueError("its own")
        return number

    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    await broker.startup()
    receiver = asyncio.create_task(run_receiver_task(broker, max_async_tasks=20))
    feature = tracker.feature(Cancellation)
    outcomes: Counter[str] = Counter()

    async def run(number: int) -> str:
        sent = await steps.kicker().with_labels(retry_on_error=False).kiq(number)
        if number % 2:
            await asyncio.sleep(random.uniform(0, 0.03))
            outcomes[await tracker.cancel(sent.task_id)] += 1
        else:
            for _ in range(random.randrange(STEPS)):
                await asyncio.sleep(0)
            feature.hear({sent.task_id: Cancel("by a message")})
        return sent.task_id

    try:
        ids = []
        for start in range(0, runs, 20):
            ids += await asyncio.gather(*map(run, range(start, start + 20)))
        async with Redis.from_url(redis_url) as redis:
            for _ in range(200):
                (group,) = await redis.xinfo_groups(queue_name)
                if group["pending"] == 0 and group["lag"] == 0:
                    break
                await asyncio.sleep(0.05)
        statuses = Counter()
        for number, task_id in enumerate(ids):
            found = await tracker.get(task_id)
            statuses[found.status] += 1
            if found.status is TaskStatus.FAILURE:
                assert (0, "ValueError") == (number % 11, found.error_type), found
            elif found.status is TaskStatus.SUCCESS:
                assert number == found.result
            else:
                assert TaskStatus.REVOKED is found.status, found
    finally:
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)
        await broker.shutdown()
        asyncio.get_running_loop().set_exception_handler(None)
        async with Redis.from_url(redis_url) as redis:
            keys = [key async for key in redis.scan_iter(f"*{queue_name}*")]
            await redis.delete(*keys)

    print(dict(statuses), dict(outcomes))

    assert (0, 0) == (group["pending"], group["lag"])
    assert [] == complaints
    assert "outside its body" not in caplog.text
    assert statuses[TaskStatus.REVOKED] > runs / 4
