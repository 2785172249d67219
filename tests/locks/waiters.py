"""One process of waiters for one lock: says when each began to wait, and when it got it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from aiotrack.locks.holders import Holders
from aiotrack.locks.lock import TaskLock


async def wait(holders: Holders, out: int, number: str) -> None:
    """Wait for as long as it takes, and hold it for a moment."""
    lock = TaskLock("x", ttl=10, wait=600, key=None, holders=lambda: holders)
    async with lock:
        os.write(out, json.dumps({"who": number, "at": time.monotonic()}).encode() + b"\n")
        await asyncio.sleep(0.002)
        freed = time.monotonic()
    os.write(out, json.dumps({"who": number, "freed": freed}).encode() + b"\n")


async def main() -> None:
    """Start a waiter for each word on stdin, in that order, and say so; then end with the last."""
    url, namespace, path = sys.argv[1:]
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    holders = Holders(url, namespace, f"waiter:{os.getpid()}")
    tasks = []
    while number := (await asyncio.to_thread(sys.stdin.readline)).strip():
        tasks.append(asyncio.create_task(wait(holders, out, number)))
    await asyncio.gather(*tasks)
    await holders.close()


if __name__ == "__main__":
    asyncio.run(main())
