"""The project whose tasks meet every poison; workers load ``tests.acceptance.venom:broker``."""

from __future__ import annotations

import os
from typing import Any

from taskiq_redis import RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware
from tests.unit.poison import POISON

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
WAYS = ("argument", "result", "error")


class Venom:
    """A broker with a task for each way in which a value comes into a record.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue.
        queue: Name of the stream.
    """

    def __init__(self, *, database: str, redis: str, queue: str) -> None:
        self.tracker = Tracker(database)
        self.broker = RedisStreamBroker(redis, queue_name=queue, consumer_id="0", xread_block=300)
        self.broker.add_middlewares(TrackerMiddleware(self.tracker))

        @self.broker.task("venom.argument")
        async def argument(name: str) -> None:
            value = POISON[name]()
            async with self.tracker.track("venom.inner", args=[value], kwargs={"a": value}):
                """The broker's own arguments are JSON, so that they cannot be poison."""

        @self.broker.task("venom.result")
        async def result(name: str) -> Any:
            return [POISON[name]()]

        @self.broker.task("venom.error")
        async def error(name: str) -> None:
            value = POISON[name]()
            raise value if issubclass(type(value), Exception) else ValueError(value)

        self.tasks = {"argument": argument, "result": result, "error": error}


if QUEUE_VARIABLE in os.environ:
    broker = Venom(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
    ).broker
