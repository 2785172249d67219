"""The processes of a flood: ``serve`` shows executions, ``write`` makes them.

python -m tests.api.flooded serve DATABASE REDIS NAMESPACE PATIENCE
python -m tests.api.flooded write DATABASE REDIS NAMESPACE RATE SECONDS
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import uvicorn
from taskiq import InMemoryBroker

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.api import create_app, streams
from tests.api.listening import listening_socket

BURST = 0.01
"""Seconds between two bursts of sends."""


async def serve(tracker: Tracker, patience: float) -> None:
    """Serve the API, and print its port."""
    streams.PATIENCE = patience  # type: ignore[misc]
    config = uvicorn.Config(create_app(tracker), log_level="critical", timeout_graceful_shutdown=1)
    listening = listening_socket()
    print(listening.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve(sockets=[listening])


async def write(tracker: Tracker, rate: float, seconds: float) -> None:
    """Run tasks, of two updates each, at a steady rate; print how many there were."""
    broker = InMemoryBroker(max_async_tasks=1000).with_middlewares(TrackerMiddleware(tracker))

    @broker.task("flood:noop")
    async def noop() -> None:
        return None

    await broker.startup()
    begun, number = time.monotonic(), 0
    sent: set[asyncio.Task[Any]] = set()
    while (passed := time.monotonic() - begun) < seconds:
        while number < passed * rate / 2 and len(sent) < 1000:
            task = asyncio.create_task(noop.kiq())
            sent.add(task)
            task.add_done_callback(sent.discard)
            number += 1
        await asyncio.sleep(BURST)
    await asyncio.gather(*sent)
    await tracker.flush()
    await broker.shutdown()
    print(number, flush=True)


def main() -> None:
    """Be one of them."""
    what, database, redis, namespace, *numbers = sys.argv[1:]
    tracker = Tracker(database, redis=redis, settings={"namespace": namespace})
    work = {"serve": serve, "write": write}[what]
    asyncio.run(work(tracker, *map(float, numbers)))


if __name__ == "__main__":
    main()
