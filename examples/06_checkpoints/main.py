"""Long work that fails on its way goes on from its last checkpoint, not from its beginning."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from taskiq import InMemoryBroker, SimpleRetryMiddleware

from aiotrack import Execution, Tracker, TrackerMiddleware

logging.getLogger("taskiq").setLevel(logging.CRITICAL)  # it would log the error made here
folder = tempfile.TemporaryDirectory()
tracker = Tracker(f"sqlite+aiosqlite:///{Path(folder.name) / 'checkpoints.db'}")
broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker), SimpleRetryMiddleware())
is_flaky = True


@broker.task("imports.load", retry_on_error=True, max_retries=2)
async def load(rows: int) -> int:
    global is_flaky
    first = await tracker.last_checkpoint() or 0
    print(f"from row {first}")
    for row in range(first, rows):
        if row % 1_000 == 0:
            await tracker.checkpoint(row)  # committed when it returns
        if row == 3_500 and is_flaky:
            is_flaky = False
            raise ConnectionError(f"cut at row {row}")
    return rows


async def finished(task_id: str) -> Execution:
    while True:
        execution = await tracker.get(task_id)
        if execution.is_completed:
            return execution
        await asyncio.sleep(0.01)


async def main() -> None:
    await broker.startup()
    task = await load.kiq(10_000)
    execution = await finished(task.task_id)
    print(f"{execution.status} at attempt {execution.attempt}: {execution.result} rows")
    print(f"last checkpoint: {await tracker.last_checkpoint(task_id=task.task_id)}")
    await broker.shutdown()


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
