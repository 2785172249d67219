"""The project that the dashboard is shown over; its worker and its server load ``broker``."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from aiotrack import Tracker, TrackerMiddleware, task_lock
from aiotrack.brokers import PriorityStreamBroker

log = logging.getLogger("shop")

QUEUE_VARIABLE = "DASHBOARD_QUEUE"


class Shop(PriorityStreamBroker):
    """A broker with tasks of every kind.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of everything else.
        queue: Its queue, and the namespace of its tracker.
    """

    def __init__(self, database: str, redis: str, queue: str) -> None:
        super().__init__(redis, queue_name=queue)
        self.tracker = Tracker(database, redis=redis, settings={"namespace": queue})
        self.add_middlewares(TrackerMiddleware(self.tracker))
        add_tasks(self, self.tracker)


def add_tasks(broker: Shop, tracker: Tracker) -> None:
    """Register the tasks."""

    @broker.task("shop.add")
    async def add(one: int, other: int) -> int:
        """Succeed at once."""
        return one + other

    @broker.task("shop.tidy")
    async def tidy() -> None:
        """Need nothing."""

    @broker.task("shop.decline")
    async def decline(order: int) -> None:
        """Fail."""
        raise ValueError(f"order {order} was declined")

    @broker.task("shop.load")
    async def load(file: str, seconds: float = 30.0) -> str:
        """Take its time, and tell how far it is."""
        steps = max(1, int(seconds / 0.3))
        for step in range(steps):
            log.info("row %d of %s", step, file)
            await tracker.progress(current=step, total=steps, message=f"row {step} of {file}")
            await asyncio.sleep(0.3)
        return file

    @broker.task("shop.mutter")
    async def mutter(lines: int = 100) -> None:
        """Log, and tell nothing else."""
        for line in range(lines):
            log.info("line %d", line)
            await asyncio.sleep(0.3)

    @broker.task("shop.hold")
    async def hold(name: str, seconds: float = 60.0, key: str | None = None) -> None:
        """Hold a lock."""
        async with task_lock(name, key=key, ttl=3, wait=5, tracker=tracker):
            await asyncio.sleep(seconds)

    @broker.task("shop.echo")
    async def echo(value: Any, error: str | None = None) -> Any:
        """Say, log and give back what was sent."""
        log.warning("%s", value)
        await tracker.progress(50, message=str(value), step=str(value))
        if error is not None:
            raise RuntimeError(error)
        return value


if QUEUE_VARIABLE in os.environ:
    broker = Shop(
        os.environ["AIOTRACK_DATABASE_URL"],
        os.environ["AIOTRACK_REDIS_URL"],
        os.environ[QUEUE_VARIABLE],
    )
