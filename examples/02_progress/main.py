"""Tell how far a task is, from async and from sync code, and watch it from outside."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path

from taskiq import InMemoryBroker

from aiotrack import Tracker, TrackerMiddleware

folder = tempfile.TemporaryDirectory()
tracker = Tracker(f"sqlite+aiosqlite:///{Path(folder.name) / 'progress.db'}")
broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
may_go_on = asyncio.Event()
was_seen = threading.Event()


@broker.task("imports.load")
async def load(rows: int) -> int:
    for done in range(1, rows + 1):
        await tracker.progress(current=done, total=rows, message=f"row {done}", bad_rows=0)
        if done == rows // 2:
            await may_go_on.wait()  # only so that this example always prints the same
    return rows


@broker.task("media.resize")
def resize(width: int) -> int:
    tracker.progress_sync(25, step="decode")  # a sync task runs in a thread
    was_seen.wait()
    tracker.progress_sync(100, step="encode")
    return width


async def show(task_id: str, percent: int) -> None:
    """Wait until the record says *percent*, and print its metadata."""
    while True:
        execution = await tracker.get(task_id)
        if execution.metadata.get("progress_percent") == percent:
            print(f"{execution.task_name} {execution.status}")
            for key, value in sorted(execution.metadata.items()):
                print(f"  {key}: {value}")
            return
        await asyncio.sleep(0.01)


async def main() -> None:
    await broker.startup()
    task = await load.kiq(10_000)
    await show(task.task_id, 50)
    may_go_on.set()
    await task.wait_result()
    await show(task.task_id, 100)

    task = await resize.kiq(640)
    await show(task.task_id, 25)
    was_seen.set()
    await task.wait_result()
    await show(task.task_id, 100)
    await broker.shutdown()


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
