"""A sender and workers on hosts whose clocks are wrong: python -m tests.acceptance.hosts COUNT.

Workers load ``tests.acceptance.hosts:broker``. Before the tracker is made the host's clock is put
wrong by `SHIFT_VARIABLE` seconds; bodies and the sender tell the true time, by another way to ask.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from taskiq import SimpleRetryMiddleware
from taskiq_redis import RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
SHIFT_VARIABLE = "ACCEPTANCE_CLOCK"


def true_time() -> float:
    """Give the seconds since 1970 whatever the host believes."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def put_clock_wrong(seconds: float) -> None:
    """Let the host's clock go wrong by so many seconds."""
    setattr(time, "time", lambda: true_time() + seconds)  # noqa: B010 - a module's function
    setattr(time, "time_ns", lambda: int((true_time() + seconds) * 1e9))  # noqa: B010 - likewise


def make_broker() -> RedisStreamBroker:
    """Make the broker that the variables describe, with its task."""
    broker = RedisStreamBroker(
        os.environ["ACCEPTANCE_REDIS_URL"],
        queue_name=os.environ[QUEUE_VARIABLE],
        consumer_id="0",
        xread_block=300,
    )
    tracker = Tracker(os.environ["AIOTRACK_DATABASE_URL"])
    broker.add_middlewares(TrackerMiddleware(tracker), SimpleRetryMiddleware(default_retry_count=3))
    failed = set()

    @broker.task("hosts.work", retry_on_error=True)
    async def work(number: int) -> list[float]:
        begun = true_time()
        await asyncio.sleep(0.02)
        if number % 5 == 4 and number not in failed:
            failed.add(number)
            raise ValueError(number)
        return [begun, true_time()]

    return broker


async def main(count: int) -> None:
    """Send so many tasks; print what was true before and after each, by task_id."""
    await broker.startup()
    task = broker.find_task("hosts.work")
    assert task is not None
    sent = {}
    for number in range(count):
        before = true_time()
        told = await task.kiq(number)
        sent[told.task_id] = [before, true_time()]
    await broker.shutdown()
    print(json.dumps(sent))


if QUEUE_VARIABLE in os.environ:
    put_clock_wrong(float(os.environ[SHIFT_VARIABLE]))
    broker = make_broker()
    if __name__ == "__main__":
        asyncio.run(main(int(sys.argv[1])))
