"""The project whose schedules are watched: a task that does nothing, as often as a schedule says.

Workers load ``tests.acceptance.ticks:broker``, schedulers ``tests.acceptance.ticks:scheduler``.
"""

from __future__ import annotations

import os

from taskiq import TaskiqScheduler
from taskiq_redis import RedisStreamBroker

from aiotrack import DefinitionScheduleSource, Tracker, TrackerMiddleware
from aiotrack.brokers import PriorityStreamBroker

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
KIND_VARIABLE = "ACCEPTANCE_BROKER"
"""``stream`` or ``priority``."""


class Ticks:
    """A broker, its tracker, and the scheduler of its definitions.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue and the schedules.
        queue: Name of the stream, and namespace of the schedules.
        kind: ``stream``, TaskIQ's own broker, or ``priority``, ours.
    """

    def __init__(self, *, database: str, redis: str, queue: str, kind: str = "stream") -> None:
        self.tracker = Tracker(database, redis=redis, settings={"namespace": queue})
        self.broker: RedisStreamBroker = (
            PriorityStreamBroker(redis, queue_name=queue, lease=3)
            if kind == "priority"
            else RedisStreamBroker(
                redis, queue_name=queue, consumer_id="0", xread_block=300, xread_count=50
            )
        )
        self.broker.add_middlewares(TrackerMiddleware(self.tracker))
        self.scheduler = TaskiqScheduler(self.broker, [DefinitionScheduleSource(self.tracker)])

        @self.broker.task("ticks.tick")
        async def tick(number: int) -> int:
            return number

        self.tick = tick


if QUEUE_VARIABLE in os.environ:
    project = Ticks(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
        kind=os.environ.get(KIND_VARIABLE, "stream"),
    )
    broker, scheduler = project.broker, project.scheduler
