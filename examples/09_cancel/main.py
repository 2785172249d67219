"""Work that runs, that waits its turn, and that looks by itself: each is cancelled in its way."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from pathlib import Path

from taskiq import InMemoryBroker

from aiotrack import Tracker, TrackerMiddleware, raise_if_cancelled

logging.getLogger("taskiq").setLevel(logging.CRITICAL)  # it would log what is cancelled as an error
folder = tempfile.TemporaryDirectory()
tracker = Tracker(f"sqlite+aiosqlite:///{Path(folder.name) / 'cancel.db'}")
broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
has_begun, looks_again = asyncio.Event(), threading.Event()


@broker.task("media.upload")
async def upload(path: str) -> None:
    has_begun.set()
    try:
        await asyncio.sleep(60)
    finally:
        print(f"  closing {path}")


@broker.task("media.encode")
def encode() -> None:  # runs in a thread
    while True:
        looks_again.wait(5)
        raise_if_cancelled()


async def main() -> None:
    await broker.startup()
    running = await upload.kiq("film.mkv")
    encoding = await encode.kiq()
    await tracker.register("later", "media.upload", args=["trailer.mkv"])
    await has_begun.wait()

    for task_id in ("later", running.task_id, encoding.task_id):
        name = (await tracker.get(task_id)).task_name
        outcome = await tracker.cancel(task_id, reason="wrong film", by="ada")
        print(f"{name}: {outcome}")
        looks_again.set()
        execution = await tracker.wait(task_id, timeout=5)
        print(f"  {execution.status}, {execution.cancel_reason} ({execution.cancelled_by})")
    print(f"once more: {await tracker.cancel('later')}")
    await broker.shutdown()


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
