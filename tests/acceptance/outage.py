"""The project that runs through outages: tasks of a few kinds, a feeder, and what must be recorded.

Workers load ``tests.acceptance.outage:broker``. Every body tells Redis that it has begun, so that
runs can be counted without the records.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends
from taskiq_redis import RedisStreamBroker

from aiotrack import Execution, TaskStatus, Tracker, TrackerMiddleware, tracking

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"

WORK = 0.02
"""Seconds that a body awaits."""

IDLE = 15.0
"""Seconds after which a message counts as its dead consumer's; no outage holds a task so long."""

KINDS = {0: "fail", 1: "retry", 2: "progress", 3: "big"}
"""What the first of twenty tasks do in the mix; the others work."""

BIG = 200_000
"""Characters of a big result, far beyond what a record holds."""


class Outage:
    """A broker with a tracker, its tasks, and what was sent.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue.
        queue: Name of the stream, and prefix of all other keys.
    """

    def __init__(self, *, database: str, redis: str, queue: str) -> None:
        self.queue = queue
        self.redis = Redis.from_url(redis)
        self.tracker = Tracker(database)
        self.sent: dict[int, str] = {}
        self.broker = RedisStreamBroker(
            redis,
            queue_name=queue,
            consumer_id="0",
            xread_block=300,
            xread_count=20,
            maxlen=50_000,
            idle_timeout=int(IDLE * 1000),
            max_connection_pool_size=150,
        )
        self.broker.add_middlewares(
            TrackerMiddleware(self.tracker), SimpleRetryMiddleware(default_retry_count=5)
        )
        self._add_tasks()

    def _add_tasks(self) -> None:
        async def begin(number: int) -> str:
            body = uuid4().hex
            await self.redis.rpush(f"{self.queue}-begun", f"{number} {body}")
            await asyncio.sleep(WORK)
            return body

        @self.broker.task("outage.work")
        async def work(number: int) -> str:
            return await begin(number)

        @self.broker.task("outage.fail")
        async def fail(number: int) -> None:
            await begin(number)
            raise ValueError(f"no {number}")

        @self.broker.task("outage.retry", retry_on_error=True)
        async def retry(number: int, context: Context = TaskiqDepends()) -> str:
            body = await begin(number)
            if not int(context.message.labels.get("_retries", 0)):
                raise ConnectionError("not yet")
            return body

        @self.broker.task("outage.progress")
        async def progress(number: int) -> str:
            for percent in range(0, 101, 10):
                await self.tracker.progress(percent, f"at {percent}")
            return await begin(number)

        @self.broker.task("outage.big")
        async def big(number: int) -> str:
            await begin(number)
            return "x" * BIG

        @self.broker.task("outage.tell")
        async def tell(number: int) -> str:
            body = await begin(number)
            recorder = self.tracker.recorder()
            told = f"{os.getpid()} {recorder.backlog} {recorder.counters['dropped']}"
            await self.redis.rpush(f"{self.queue}-told", told)
            return body

        self.tasks = {
            "work": work,
            "fail": fail,
            "retry": retry,
            "progress": progress,
            "big": big,
            "tell": tell,
        }

    async def send(self, number: int, kind: str = "work") -> None:
        """Send a task without waiting for its PENDING, as bulk senders do."""
        with tracking(durability="async"):
            self.sent[number] = (await self.tasks[kind].kiq(number)).task_id

    async def acknowledged(self) -> int:
        """Give how many messages were acknowledged."""
        group = (await self.redis.xinfo_groups(self.queue))[0]
        return int(group["entries-read"] or 0) - int(group["pending"])

    async def waiting(self) -> int:
        """Give how many messages no worker has read."""
        return int((await self.redis.xinfo_groups(self.queue))[0]["lag"] or 0)

    async def is_done(self) -> bool:
        """Tell whether every message is acknowledged."""
        group = (await self.redis.xinfo_groups(self.queue))[0]
        return int(group["pending"]) + int(group["lag"] or 0) == 0

    async def begun(self) -> dict[int, set[str]]:
        """Give the bodies that ran, by the number of their task."""
        found: dict[int, set[str]] = {}
        for line in await self.redis.lrange(f"{self.queue}-begun", 0, -1):
            number, body = line.decode().split()
            found.setdefault(int(number), set()).add(body)
        return found

    @contextlib.asynccontextmanager
    async def fed(self, ahead: int = 300) -> AsyncIterator[None]:
        """Keep the stream so full that the worker never waits for a message.

        It ends by itself: a send that is cancelled may have sent, and nobody would know.
        """
        is_over = asyncio.Event()

        async def feed() -> None:
            while not is_over.is_set():
                waiting = await self.waiting()
                first = len(self.sent)
                for number in range(first, first + max(0, ahead - waiting)):
                    await self.send(number)
                await asyncio.sleep(0.05)

        task = asyncio.create_task(feed())
        try:
            yield
        finally:
            is_over.set()
            await task

    async def faults(self, *, is_exact: bool, kinds: dict[int, str] | None = None) -> list[str]:
        """Compare what was sent and what ran with the records; give what is wrong.

        Args:
            is_exact: No worker was killed: each message ran once.
            kinds: What a task does, by its number modulo twenty; all others work.
        """
        wrong: list[str] = []
        begun, left = await self.begun(), {task_id: number for number, task_id in self.sent.items()}
        async for record in records(self.tracker):
            number = left.pop(record.task_id, None)
            if number is None:
                wrong.append(f"phantom record, or two, of {record.task_id}")
                continue
            kind = (kinds or {}).get(number % 20, "work")
            told = fault(record, kind, number, begun.get(number, set()))
            if is_exact and told is None and record.runs != len(begun[number]):
                told = f"ran {len(begun[number])} times, not {record.runs}"
            if told is not None:
                wrong.append(f"{kind} {number}: {told}")
        return wrong + [f"no record of {number}" for number in left.values()]


def fault(record: Execution, kind: str, number: int, begun: set[str]) -> str | None:
    """Tell what is wrong with the record of a task that was acknowledged, None if nothing is."""
    expected = TaskStatus.FAILURE if kind == "fail" else TaskStatus.SUCCESS
    if (expected, 2 if kind == "retry" else 1, [number]) != (
        record.status,
        record.attempt,
        record.args,
    ):
        return f"is {record.status}, attempt {record.attempt} of {record.args}"
    if not 1 <= record.runs <= len(begun):
        return f"ran {len(begun)} times, not {record.runs}"
    if kind == "fail":
        is_right = record.error == f"no {number}"
    elif kind == "big":
        is_right = isinstance(record.result, dict) and record.result.get("$truncated") is True
    else:
        is_right = record.result in begun
    if kind == "progress":
        is_right = is_right and record.metadata.get("progress_percent") == 100
    return None if is_right else f"{record.result!r}, {record.error}, {record.metadata}"


async def records(tracker: Tracker) -> AsyncIterator[Execution]:
    """Read every record, page by page."""
    after = None
    while True:
        page = await tracker.list(limit=500, after=after, order="created_at")
        for record in page.items:
            yield record
        after = page.next
        if after is None:
            return


@contextlib.asynccontextmanager
async def during(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine while the block runs; what it raises is raised at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        while not task.done():  # redis-py swallows a cancellation now and then
            task.cancel()
            await asyncio.wait({task}, timeout=1)
        with contextlib.suppress(asyncio.CancelledError):
            await task


if QUEUE_VARIABLE in os.environ:
    broker = Outage(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
    ).broker
