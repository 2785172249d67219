"""One process of holders: takes locks again and again, and writes down when it had which.

Lines of JSON: ``{"name", "fence", "in", "lost"}`` when a lock was entered, and again with ``"out"``
when it was left, on the clock that all processes of a host share.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time

from aiotrack.errors import LockError
from aiotrack.locks.holders import Holders
from aiotrack.locks.lock import TaskLock


async def hold(
    holders: Holders, out: int, names: int, ttl: tuple[float, float], end: float
) -> None:
    """Take one of some locks until the time is over."""
    while time.monotonic() < end:
        lock = TaskLock(
            f"name-{random.randrange(names)}",
            ttl=random.uniform(*ttl),
            wait=random.choice([0.0, 0.5, 5.0]),
            on_lost="flag",
            holders=lambda: holders,
        )
        told = {"name": lock.name}
        try:
            async with lock:
                told |= {"fence": lock.fence, "in": time.monotonic(), "lost": lock.lost is not None}
                write(out, told)
                await asyncio.sleep(random.choice([0, 0, 0.001, 0.003]))
                told["out"] = time.monotonic()
                lost = lock.lost is not None
        except LockError:
            lost = True
        if "out" in told:
            write(out, {**told, "lost": lost})
        else:
            await asyncio.sleep(0.01)


def write(out: int, line: dict[str, object]) -> None:
    """Append a line; the system keeps it also when this process is killed."""
    os.write(out, json.dumps(line).encode() + b"\n")


async def main() -> None:
    """Run so many holders."""
    url, namespace, path, names, holders, seconds, low, high = sys.argv[1:]
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    shared = Holders(url, namespace, f"holder:{os.getpid()}")
    end = time.monotonic() + float(seconds)
    leases = (float(low), float(high))
    await asyncio.gather(*(hold(shared, out, int(names), leases, end) for _ in range(int(holders))))
    await shared.close()


if __name__ == "__main__":
    asyncio.run(main())
