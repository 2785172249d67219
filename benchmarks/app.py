"""What a `taskiq worker` and the senders of a benchmark load: a broker told by the environment."""

from __future__ import annotations

import json
import os
import time

import workload
from redis.asyncio import Redis
from taskiq import SimpleRetryMiddleware, TaskiqEvents, TaskiqState
from variants import Target, build

TARGET = Target(
    queue=os.environ["BENCH_QUEUE"],
    redis=os.environ["BENCH_REDIS"],
    database=os.environ.get("BENCH_DATABASE", ""),
    sink=os.environ.get("BENCH_SINK", ""),
)

broker = build(os.environ["BENCH_VARIANT"], TARGET, signals=os.environ.get("BENCH_SIGNALS") == "1")
if os.environ.get("BENCH_RETRIES") == "1":
    broker.add_middlewares(SimpleRetryMiddleware())


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def tell(_: TaskiqState) -> None:
    """Say which process does the work; its CPU time is read from outside."""
    client = Redis.from_url(TARGET.redis)
    await client.set(f"{TARGET.queue}:worker", os.getpid())
    await client.aclose()


@broker.task("bench:noop")
async def noop() -> None:
    pass


@broker.task("bench:mixed", retry_on_error=True, max_retries=workload.ATTEMPTS)
async def mixed(number: int) -> int:
    """Succeed, fail for good, or fail once or twice and succeed then; each with its own words."""
    attempt = _tries[number] = _tries.get(number, 0) + 1
    if attempt <= len(workload.expected(number).errors):
        raise ValueError(workload.words(number, attempt))
    return number


@broker.task("bench:late")
async def late(sent: float) -> None:
    """Note how long it took until the body began; the clock is the machine's."""
    _delays.append(time.monotonic() - sent)


@broker.task("bench:tell")
async def tell_delays() -> None:
    """Hand out what was noted."""
    told = json.dumps(_delays)
    _delays.clear()
    client = Redis.from_url(TARGET.redis)
    await client.rpush(f"{TARGET.queue}:delays", told)
    await client.aclose()


_delays: list[float] = []
_tries: dict[int, int] = {}
