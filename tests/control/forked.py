"""A worker that forks while it beats, and whose child becomes a worker, too.

Run with the URL of a database: prints the id and the workers that each of them sees.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading

from aiotrack import Tracker
from tests.control.crew import serving

tracker = Tracker(sys.argv[1], settings={"heartbeat_seconds": 1.0})
broker = serving(tracker)


async def tell() -> None:
    """Say who is there, once this one is."""
    await asyncio.sleep(2)  # both have to beat
    seen = {one.id: one.status for one in await tracker.workers()}
    print(json.dumps([tracker.worker_id, seen]), flush=True)


async def child() -> None:
    """Be a worker for a moment."""
    await broker.startup()
    await tell()
    await broker.shutdown()


async def main() -> None:
    """Be a worker, and fork."""
    await broker.startup()
    await asyncio.sleep(0.5)
    pid = os.fork()
    if pid == 0:
        thread = threading.Thread(target=lambda: asyncio.run(child()))
        thread.start()
        thread.join()
        os._exit(0)
    await asyncio.to_thread(os.waitpid, pid, 0)
    await tell()
    await broker.shutdown()


asyncio.run(main())
