"""A process with a tracker, a broker and tasks; and a scheduler whose seconds a test counts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Self

from redis.asyncio import Redis
from taskiq import InMemoryBroker, ScheduledTask, TaskiqScheduler
from taskiq.cli.scheduler.run import SchedulerLoop

from aiotrack import DefinitionScheduleSource, TaskDefinition, Tracker, TrackerMiddleware
from aiotrack.redis.keys import schedule_keys


class Site:
    """A tracker with Redis, a broker that runs tasks in place, and what Redis holds.

    Args:
        database: URL of the records.
        redis: URL of the schedules.
        namespace: Begins every key.
    """

    def __init__(self, database: str, redis: str, namespace: str) -> None:
        self.url = redis
        self.tracker = Tracker(database, redis=redis, settings={"namespace": namespace})
        self.broker = InMemoryBroker().with_middlewares(TrackerMiddleware(self.tracker))
        self.redis: Redis = Redis.from_url(redis)
        self.keys = schedule_keys(namespace)
        self.entries, self.changes, self.due, self.sending, self.version, self.made = self.keys

        @self.broker.task("shop.add", timeout=30)
        async def add(a: int, b: int = 2) -> int:
            return a + b

        @self.broker.task("shop.clean")
        async def clean(**rest: Any) -> int:
            return len(rest)

    async def __aenter__(self) -> Self:
        await self.broker.startup()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.broker.shutdown()
        await self.redis.delete(*self.keys)
        await self.redis.aclose()

    async def define(self, name: str = "count", **fields: Any) -> TaskDefinition:
        """Make a definition that is due every minute, unless told otherwise."""
        told = {
            "task_type": "shop.add",
            "schedule_kind": "interval",
            "schedule": {"seconds": 60},
            "parameters": {"a": 1},
        } | fields
        return await self.tracker.definitions.create(name=name, **told)

    async def rewind(self, definition: TaskDefinition, seconds: float) -> int:
        """Let a definition have been due so long ago; give that moment in milliseconds.

        An interval began two days before that.
        """
        moment = time.time_ns() // 1_000_000 - int(seconds * 1000)
        known = json.loads(await self.redis.hget(self.entries, str(definition.id)))  # type: ignore[misc]
        known["anchor"] = moment - 2 * 86_400_000
        await self.redis.hset(self.entries, str(definition.id), json.dumps(known))  # type: ignore[misc]
        await self.redis.zadd(self.due, {str(definition.id): moment})
        return moment

    async def sent(self, definition: TaskDefinition) -> list[str]:
        """Give the task_ids of what a definition sent, the oldest first."""
        page = await self.tracker.list(config_id=definition.id, limit=500, order="created_at")
        return [one.task_id for one in page.items]


class Beat:
    """A scheduler whose loop does not run by itself: TaskIQ's own steps, one by one."""

    def __init__(self, site: Site, **options: Any) -> None:
        self.source = DefinitionScheduleSource(site.tracker, **options)
        self.scheduler = TaskiqScheduler(site.broker, [self.source])
        self._loop: SchedulerLoop | None = None
        self.site = site

    async def __aenter__(self) -> Self:
        await self.source.startup()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.source.shutdown()

    async def due(self) -> list[ScheduledTask]:
        """Give what is due now by the list."""
        listed, now = await self.source.get_schedules(), datetime.now(UTC)
        return [task for task in listed if task.time is not None and task.time <= now]

    async def tick(self) -> list[ScheduledTask]:
        """Look at all schedules once, send what is due, and give what TaskIQ found due."""
        if self._loop is None:
            self._loop = SchedulerLoop(self.scheduler)
        listed, now = await self.source.get_schedules(), datetime.now(UTC)
        due = [task for task in listed if self._loop._is_schedule_ready_to_send(task, now)]
        await asyncio.gather(*(self.scheduler.on_ready(self.source, task) for task in due))
        await self.site.broker.wait_all()
        return due


async def ticks(beats: Iterable[Beat]) -> None:
    """Let several schedulers tick at the same moment."""
    await asyncio.gather(*(one.tick() for one in beats))
