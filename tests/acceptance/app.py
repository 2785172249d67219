"""The project that acceptance tests run: a broker with a tracker and tasks of every kind.

Workers load ``tests.acceptance.app:broker``, set up by environment variables; the tests build the
same broker as its client. What a task has to leave in its record stands in ``kinds.py``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import threading
import time
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from taskiq import (
    AsyncBroker,
    Context,
    NoResultError,
    SimpleRetryMiddleware,
    SmartRetryMiddleware,
    TaskiqDepends,
    TaskiqScheduler,
)
from taskiq.schedule_sources import LabelScheduleSource
from taskiq_redis import ListQueueBroker, ListRedisScheduleSource, RedisStreamBroker

from aiotrack import (
    Tracker,
    TrackerMiddleware,
    current_execution,
    get_task_retry_labels,
    tracking,
)

log = logging.getLogger("shop")

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
BIG = "x" * 200_000


class Invoice(BaseModel):
    """A value that only pydantic can write."""

    number: int
    total: Decimal


class Odd:
    """A result that no serialiser takes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        return "<Odd thing>"


class Project:
    """A broker, its tracker and its scheduler.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue.
        queue: Name of the stream or list, and prefix of all other keys.
        kind: ``stream`` or ``list``.
        retry: ``none``, ``simple``, ``smart`` or ``scheduled`` (smart, through a schedule source).
        place: ``first``, ``last``: where the tracker stands among the middlewares.
    """

    def __init__(
        self, *, database: str, redis: str, queue: str, kind: str, retry: str, place: str
    ) -> None:
        self.queue = queue
        self.tracker = Tracker(database)
        self.source = ListRedisScheduleSource(redis, prefix=f"{queue}-schedules")
        if kind == "stream":
            self.broker: AsyncBroker = RedisStreamBroker(
                redis,
                queue_name=queue,
                consumer_id="0",
                xread_block=500,
                xread_count=20,
                max_connection_pool_size=120,
            )
        else:
            self.broker = ListQueueBroker(
                redis, queue_name=queue, socket_timeout=None, max_connection_pool_size=120
            )
        ours = TrackerMiddleware(self.tracker)
        others = retry_middlewares(retry, self.source)
        self.broker.add_middlewares(*([ours, *others] if place == "first" else [*others, ours]))
        self.scheduler = TaskiqScheduler(
            self.broker, [self.source, LabelScheduleSource(self.broker)]
        )
        add_tasks(self.broker, self.tracker)
        add_retried_tasks(self.broker)
        add_talking_tasks(self.broker)
        add_judged_tasks(self.broker)

    @classmethod
    def from_environment(cls) -> Project:
        """Make the project that the variables describe."""
        return cls(
            database=os.environ["AIOTRACK_DATABASE_URL"],
            redis=os.environ["ACCEPTANCE_REDIS_URL"],
            queue=os.environ[QUEUE_VARIABLE],
            kind=os.environ["ACCEPTANCE_BROKER"],
            retry=os.environ["ACCEPTANCE_RETRY"],
            place=os.environ["ACCEPTANCE_PLACE"],
        )

    async def kiq(self, name: str, *args: Any, **kwargs: Any) -> str:
        """Send the task with this name, and give its id."""
        task = self.broker.find_task(name)
        assert task is not None
        return (await task.kiq(*args, **kwargs)).task_id


def retry_middlewares(retry: str, source: ListRedisScheduleSource) -> list[Any]:
    """Give TaskIQ's own middleware for a way of retrying."""
    if retry == "simple":
        return [SimpleRetryMiddleware(default_retry_count=3)]
    if retry == "smart":
        return [SmartRetryMiddleware(default_retry_count=3, default_delay=0.01)]
    if retry == "scheduled":
        return [
            SmartRetryMiddleware(default_retry_count=3, default_delay=0.1, schedule_source=source)
        ]
    return []


def broken(context: Context = TaskiqDepends()) -> int:
    """Fail as a dependency, and say for whom."""
    raise LookupError(f"no dependency for {context.message.args[0]}")


def add_tasks(broker: AsyncBroker, tracker: Tracker) -> None:
    """Register a task of every kind that runs once."""

    @broker.task("shop.sums:add")
    async def add(number: int, other: int = 1, *, note: str = "") -> dict[str, Any]:
        return {"sum": number + other, "note": note}

    @broker.task("shop.fail")
    async def fail(number: int) -> None:
        raise ValueError(f"no {number}")

    @broker.task("shop.sync")
    def sync(number: int) -> int:
        tracker.progress_sync(current=number % 3, total=3, message="in a thread")
        return number * 2

    @broker.task("shop.sync_fail")
    def sync_fail(number: int) -> None:
        raise KeyError(f"key {number}")

    @broker.task("shop.big")
    async def big(number: int) -> str:
        return BIG

    @broker.task("shop.odd")
    async def odd(number: int) -> Odd:
        return Odd()

    @broker.task("shop.rich")
    async def rich(number: int) -> list[Any]:
        return [Invoice(number=number, total=Decimal("1.50")), dt.date(2026, 1, 2), {3}, b"\x00"]

    @broker.task("shop.hostile")
    async def hostile(text: str) -> str:
        return text + "\x00"

    @broker.task("shop.nothing")
    async def nothing(number: int) -> None:
        return None

    @broker.task("shop.progress")
    async def progress(number: int) -> str:
        for percent in range(101):
            await tracker.progress(percent, f"row {percent}", step="rows", order=number)
        return "done"

    @broker.task("shop.slow", timeout=0.05)
    async def slow(number: int) -> None:
        await asyncio.sleep(30)

    @broker.task("shop.slow_sync", timeout=0.05)
    def slow_sync(number: int) -> None:
        time.sleep(0.2)

    @broker.task("shop.depends")
    async def depends(number: int, value: int = TaskiqDepends(broken)) -> None: ...

    @broker.task("shop.cancelled")
    async def cancelled(number: int) -> None:
        raise asyncio.CancelledError

    @broker.task("shop.exits")
    async def exits(number: int) -> None:
        raise SystemExit(3)

    @broker.task("shop.no_result")
    async def no_result(number: int) -> None:
        raise NoResultError

    @broker.task("shop.labelled", priority=5, queue="gpu", created_by="robot", module="post")
    async def labelled(number: int) -> int:
        return number

    @broker.task("shop.untracked", track=False)
    async def untracked(number: int) -> int:
        return number

    @broker.task("shop.child")
    async def child(number: int) -> int:
        return number

    @broker.task("shop.parent")
    async def parent(number: int) -> str:
        with tracking(metadata={"from": number}):
            return (await child.kiq(number)).task_id

    @broker.task("shop.requeued")
    async def requeued(number: int, context: Context = TaskiqDepends()) -> str:
        if "X-Taskiq-requeue" not in context.message.labels:
            await context.requeue()
        return "second time"


def add_retried_tasks(broker: AsyncBroker) -> None:
    """Register tasks whose every attempt has an error of its own."""

    @broker.task("shop.gives_up", retry_on_error=True)
    async def gives_up(number: int) -> None:
        raise ValueError(f"attempt {attempt()} of {number}")

    @broker.task("shop.recovers", retry_on_error=True)
    async def recovers(number: int) -> str:
        if attempt() < 3:
            raise ConnectionError(f"attempt {attempt()} of {number}")
        return f"attempt {attempt()}"

    @broker.task("shop.sync_recovers", retry_on_error=True)
    def sync_recovers(number: int) -> str:
        if attempt() < 2:
            raise OSError(f"attempt {attempt()} of {number}")
        return f"attempt {attempt()}"


def add_talking_tasks(broker: AsyncBroker) -> None:
    """Register tasks that log, each in a way of its own."""

    @broker.task("shop.talks")
    async def talks(name: int, lines: int, pause: float = 0.0) -> None:
        for number in range(lines):
            log.info("%d: %d", name, number)
            await asyncio.sleep(pause)

    @broker.task("shop.talks_in_a_thread")
    def talks_in_a_thread(name: int, lines: int) -> None:
        for number in range(lines):
            log.info("%d: %d", name, number)
            time.sleep(0)


def add_judged_tasks(broker: AsyncBroker) -> None:
    """Register tasks whose errors and results are looked at before a retry."""
    labels = get_task_retry_labels(2, 0.5, 4.0, jitter=False)

    @broker.task("shop.judged", **labels)
    async def judged(error: str) -> None:
        raise {"transient": ConnectionError, "permanent": NotImplementedError}[error](error)

    @broker.task("shop.judged_in_a_thread", **labels)
    def judged_in_a_thread(error: str) -> None:
        raise {"transient": ConnectionError, "permanent": NotImplementedError}[error](error)

    @broker.task("shop.promises", validate_result=True, **labels)
    async def promises(value: Any) -> int:
        result: int = value
        return result

    @broker.task("shop.limited", timeout=0.2, **labels)
    async def limited() -> int:
        if attempt() == 1:
            await asyncio.sleep(30)
        return attempt()


def attempt() -> int:
    """Give the number of the attempt that runs here."""
    run = current_execution()
    assert run is not None
    return run.attempt


if QUEUE_VARIABLE in os.environ:
    logging.captureWarnings(capture=True)
    project = Project.from_environment()
    broker, scheduler = project.broker, project.scheduler
