"""Record a task of an in-memory broker in SQLite, and read its record back."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from taskiq import InMemoryBroker

from aiotrack import Tracker, TrackerMiddleware, tracking

logging.getLogger("taskiq").setLevel(logging.CRITICAL)  # it would log the errors made here
folder = tempfile.TemporaryDirectory()
tracker = Tracker(f"sqlite+aiosqlite:///{Path(folder.name) / 'quickstart.db'}")
broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))


@broker.task("billing.add")
async def add(one: int, two: int) -> int:
    return one + two


@broker.task("billing.divide")
async def divide(one: int, two: int) -> float:
    return one / two


async def main() -> None:
    await broker.startup()  # starts the tracker, too: the empty file gets its tables
    with tracking(created_by=42, metadata={"order_id": 7}):
        sent = [await add.kiq(1, 2), await divide.kiq(1, 0)]
    for task in sent:
        await task.wait_result()

    for task in sent:
        execution = await tracker.get(task.task_id)
        print(execution.task_name, execution.args, execution.status)
        print(f"  module={execution.module} created_by={execution.created_by}")
        print(f"  result={execution.result} error={execution.error}")

    failed = await tracker.list(status="failed", metadata={"order_id": 7})
    print("failed for order 7:", [execution.task_name for execution in failed.items])
    stats = await tracker.stats()
    print(f"{stats.total} executions, failure rate {stats.failure_rate:.0%}")
    await broker.shutdown()


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
