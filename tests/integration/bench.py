"""A broker in this process with a tracker: what the tests of recording run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from taskiq import InMemoryBroker, SendTaskError, TaskiqMiddleware

from aiotrack import Attempt, Execution, Tracker, TrackerMiddleware


class Bench:
    """An in-memory broker whose tasks are recorded by ``tracker``."""

    def __init__(self, tracker: Tracker, broker: InMemoryBroker) -> None:
        self.tracker = tracker
        self.broker = broker
        self.task = broker.task

    async def settle(self) -> None:
        """Wait until nothing runs, retries included."""
        while self.broker._running_tasks:
            await asyncio.gather(*self.broker._running_tasks, return_exceptions=True)

    async def run(self, task: Any, *args: Any, **kwargs: Any) -> Execution:
        """Send a task (or kicker), wait for its end, and give its record."""
        kicker = task.kicker() if hasattr(task, "kicker") else task
        task_id = kicker.custom_task_id or self.broker.id_generator()
        try:
            await kicker.with_task_id(task_id).kiq(*args, **kwargs)
        except SendTaskError:
            assert self.broker.await_inplace, "only in-place runs raise into their sender"
        await self.settle()
        return await self.tracker.get(task_id)

    async def told(self, record: Execution) -> list[tuple[int, str, str, str | None]]:
        """Give attempt, cause, status and error of every run."""
        return [
            (one.attempt, one.cause.value, one.status.value, one.error)
            for one in await self.attempts(record)
        ]

    async def attempts(self, record: Execution) -> list[Attempt]:
        """Give a record's attempts."""
        return await self.tracker.attempts(record.task_id)


@asynccontextmanager
async def bench(
    tracker: Tracker,
    *,
    inplace: bool = False,
    before: Sequence[TaskiqMiddleware] = (),
    after: Sequence[TaskiqMiddleware] = (),
    **options: Any,
) -> AsyncIterator[Bench]:
    """Run a broker with the tracker among other middlewares.

    Args:
        tracker: Started or not.
        inplace: Tasks run inside ``kiq()``.
        before: Middlewares in front of the tracker's.
        after: Middlewares behind it.
        **options: Of `TrackerMiddleware`.
    """
    broker = InMemoryBroker(await_inplace=inplace)
    broker.add_middlewares(*before, TrackerMiddleware(tracker, **options), *after)
    await broker.startup()
    try:
        yield Bench(tracker, broker)
    finally:
        await broker.shutdown()


def in_order(record: Execution) -> bool:
    """Tell whether times are in order and agree with the duration."""
    started, finished = record.started_at, record.finished_at
    assert started is not None
    assert finished is not None
    assert record.duration is not None
    apart = (finished - started).total_seconds() - record.duration
    return record.created_at <= started <= finished and abs(apart) < 0.1
