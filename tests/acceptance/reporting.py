"""A project that knows nothing of aiotrack: it reports with TaskIQ's own admin middleware.

Workers load ``tests.acceptance.reporting:broker``.
"""

from __future__ import annotations

import asyncio
import os

from redis.asyncio import Redis
from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends
from taskiq.middlewares.taskiq_admin_middleware import TaskiqAdminMiddleware
from taskiq_redis import RedisStreamBroker

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
URL_VARIABLE = "ACCEPTANCE_ADMIN_URL"
TOKEN = "operate:the-secret-of-the-middleware"


class Reporting:
    """A broker whose tasks end in every way.

    Args:
        redis: URL of the queue.
        queue: Name of the stream.
        admin: Where the middleware reports.
    """

    def __init__(self, *, redis: str, queue: str, admin: str) -> None:
        self.redis = Redis.from_url(redis)
        self.broker = RedisStreamBroker(redis, queue_name=queue, xread_block=300)
        self.broker.add_middlewares(
            SimpleRetryMiddleware(default_retry_count=3),
            TaskiqAdminMiddleware(admin, TOKEN.partition(":")[2], taskiq_broker_name="shop"),
        )

        @self.broker.task("shop.pay")
        async def pay(order: int) -> dict[str, int]:
            await asyncio.sleep(0.05)
            return {"paid": order}

        @self.broker.task("shop.refuse")
        async def refuse() -> None:
            raise ValueError("no money")

        @self.broker.task("shop.again", retry_on_error=True)
        async def again(until: int, context: Context = TaskiqDepends()) -> int:
            tries = int(context.message.labels.get("_retries", 0)) + 1
            if tries < until:
                raise OSError(f"try {tries}")
            return tries

        self.pay, self.refuse, self.again = pay, refuse, again


if URL_VARIABLE in os.environ:
    broker = Reporting(
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
        admin=os.environ[URL_VARIABLE],
    ).broker
