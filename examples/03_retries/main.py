"""Retry a task with TaskIQ's own middleware; every attempt keeps its own error."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from taskiq import InMemoryBroker, SimpleRetryMiddleware

from aiotrack import Execution, Tracker, TrackerMiddleware, current_execution

logging.getLogger("taskiq").setLevel(logging.CRITICAL)  # it would log the errors made here
folder = tempfile.TemporaryDirectory()
tracker = Tracker(f"sqlite+aiosqlite:///{Path(folder.name) / 'retries.db'}")
broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker), SimpleRetryMiddleware())


@broker.task("rates.fetch", retry_on_error=True, max_retries=3)
async def fetch(currency: str) -> float:
    run = current_execution()
    if run is not None and run.attempt < 3:
        raise ConnectionError(f"{currency}: no answer (attempt {run.attempt})")
    return 1.08


@broker.task("partners.notify", retry_on_error=True, max_retries=2)
async def notify(partner: str) -> None:
    run = current_execution()
    status = 502 if run is None or run.attempt == 1 else 503
    raise RuntimeError(f"{partner} answered {status}")


async def finished(task_id: str) -> Execution:
    while True:
        execution = await tracker.get(task_id)
        if execution.is_completed:
            return execution
        await asyncio.sleep(0.01)


async def main() -> None:
    await broker.startup()
    for task in (await fetch.kiq("EUR"), await notify.kiq("ACME")):
        execution = await finished(task.task_id)
        print(f"{execution.task_name}: {execution.status} at attempt {execution.attempt}")
        for run in await tracker.attempts(task.task_id):
            print(f"  {run.attempt} ({run.cause}) {run.status}: {run.error}")
    await broker.shutdown()


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
