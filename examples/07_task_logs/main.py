"""Read what tasks logged: by attempt, live, and of work that no worker runs."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from taskiq import InMemoryBroker, SimpleRetryMiddleware

from aiotrack import LogLine, TaskLogCollector, Tracker, TrackerMiddleware

logging.getLogger("shop").setLevel(logging.INFO)  # `taskiq worker` does this for all loggers
log = logging.getLogger("shop.orders")
log.addHandler(logging.NullHandler())  # nothing on the terminal but what this example prints
logging.getLogger("taskiq").setLevel(logging.CRITICAL)

folder = tempfile.TemporaryDirectory()
tracker = Tracker(f"sqlite+aiosqlite:///{Path(folder.name) / 'logs.db'}")
broker = InMemoryBroker().with_middlewares(
    TrackerMiddleware(tracker), SimpleRetryMiddleware(default_retry_count=3)
)
tries = iter([False, True])


@broker.task("shop.pay", retry_on_error=True)
async def pay(order: int) -> str:
    log.info("order %d: asking the bank, token=4f9a8c21", order)
    if not next(tries):
        log.warning("order %d: no answer", order)
        raise ConnectionError("no answer")
    return "paid"


def show(line: LogLine) -> None:
    print(f"  {line.attempt} {line.level:<7} {line.logger}: {line.message}")


async def main() -> None:
    await broker.startup()
    task = await pay.kiq(7)
    print("as it comes")
    async for line in tracker.tail(task.task_id):
        show(line)
    print("warnings of the first attempt")
    for line in (await tracker.logs(task.task_id, attempt=1, level="WARNING")).items:
        show(line)

    await tracker.register("backup-7", "ops.backup", status="started")
    with TaskLogCollector("backup-7"):
        log.info("120 files")
    await tracker.update("backup-7", "completed")
    print("work that no worker runs")
    for line in (await tracker.logs("backup-7")).items:
        show(line)
    await broker.shutdown()


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
