"""The project whose workers come, block, are killed, and leave.

Workers load ``tests.acceptance.crew:broker``.
"""

from __future__ import annotations

import asyncio
import os
import time

from taskiq import AsyncBroker
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"

BEAT = float(os.environ.get("ACCEPTANCE_BEAT", "0.5"))
"""Seconds between two beats in these tests."""


class Crew:
    """A broker whose tasks take as long as they are told to.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue.
        queue: Name of the stream or list.
        kind: ``stream`` or ``list``.
    """

    def __init__(self, *, database: str, redis: str, queue: str, kind: str) -> None:
        self.tracker = Tracker(database, settings={"heartbeat_seconds": BEAT})
        if kind == "stream":
            self.broker: AsyncBroker = RedisStreamBroker(
                redis, queue_name=queue, consumer_id="0", xread_block=300
            )
        else:
            self.broker = ListQueueBroker(redis, queue_name=queue, socket_timeout=None)
        self.broker.add_middlewares(TrackerMiddleware(self.tracker))

        @self.broker.task("crew.nap")
        async def nap(seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "slept"

        @self.broker.task("crew.block")
        async def block(seconds: float) -> str:
            time.sleep(seconds)  # noqa: ASYNC251 - it blocks the loop: that is what it is for
            return "blocked"

        @self.broker.task("crew.again", on_lost="requeue")
        async def again(seconds: float, *, note: str) -> str:
            await asyncio.sleep(seconds)
            return note

        self.nap, self.block, self.again = nap, block, again


if QUEUE_VARIABLE in os.environ:
    broker = Crew(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
        kind=os.environ["ACCEPTANCE_BROKER"],
    ).broker
