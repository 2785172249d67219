"""Tasks that end when and how the test says, so that two workers can run one message.

Workers load ``tests.acceptance.twins:broker``. The stream hands a message on as soon as it lies for
`IDLE`, when a new one comes.
"""

from __future__ import annotations

import asyncio
import os

from redis.asyncio import Redis
from taskiq_redis import RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware
from tests.waits import until

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
NAME_VARIABLE = "ACCEPTANCE_WORKER"
IDLE = 2.0
"""Seconds after which a message counts as its dead consumer's, which its worker may not be."""

PATIENCE = 60.0
"""Seconds that a worker may be paused; redis-py's default of five kills its listener after that."""


class Twins:
    """A broker with one task, and the word that ends it.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue.
        queue: Name of the stream, and prefix of all other keys.
    """

    def __init__(self, *, database: str, redis: str, queue: str) -> None:
        self.queue = queue
        self.redis = Redis.from_url(redis, decode_responses=True, socket_timeout=PATIENCE)
        self.tracker = Tracker(database)
        self.broker = RedisStreamBroker(
            redis,
            queue_name=queue,
            consumer_id="0",
            xread_block=200,
            idle_timeout=int(IDLE * 1000),
            unacknowledged_batch_size=50,
            socket_timeout=PATIENCE,
        )
        self.broker.add_middlewares(TrackerMiddleware(self.tracker))

        @self.broker.task("twins.work")
        async def work(number: int) -> str:
            name = os.environ[NAME_VARIABLE]
            await self.redis.sadd(f"{queue}-begun-{name}", number)
            while (word := await self.redis.get(self._key(name, number))) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            if word == "fail":
                raise ValueError(name)
            return name

        @self.broker.task("twins.tick", track=False)
        async def tick() -> None:
            """Be a new message."""

        self.work, self.tick = work, tick

    def _key(self, name: str, number: int) -> str:
        return f"{self.queue}-end-{name}-{number}"

    async def end(self, name: str, number: int, word: str) -> None:
        """Let the body of a task end in the worker with this name: ``ok`` or ``fail``."""
        await self.redis.set(self._key(name, number), word)

    async def rests(self) -> None:
        """Wait until the only worker asked its stream twice more.

        It claims what lies for `IDLE` after each delivery. One that is paused before that would do
        it when it goes on, and run what the other worker still works at a third time.
        """
        group, last, asked = self.broker.consumer_group_name, -1, 0

        async def has_asked() -> bool:
            nonlocal last, asked
            (consumer,) = await self.redis.xinfo_consumers(self.queue, group)
            asked, last = asked + (int(consumer["idle"]) < last), int(consumer["idle"])
            return asked >= 2

        await until("the worker asks for messages again", has_asked, 20, pause=0.005)

    async def begun(self, name: str) -> int:
        """Give how many bodies the worker with this name began."""
        return int(await self.redis.scard(f"{self.queue}-begun-{name}"))


if QUEUE_VARIABLE in os.environ:
    broker = Twins(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
    ).broker
