"""Sends noop tasks by the client of one variant, and says what it took: a child of the harness."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from app import broker, noop

from aiotrack import tracking


async def send(count: int, senders: int) -> None:
    left = iter(range(count))

    async def one() -> None:
        for _ in left:
            await noop.kiq()

    if os.environ.get("BENCH_DURABILITY"):
        with tracking(durability=os.environ["BENCH_DURABILITY"]):
            await asyncio.gather(*(one() for _ in range(senders)))
    else:
        await asyncio.gather(*(one() for _ in range(senders)))


async def main(count: int, senders: int) -> None:
    await broker.startup()
    await send(int(os.environ.get("BENCH_WARM", "20")), min(senders, 10))
    begun, cpu = time.perf_counter(), time.process_time()
    await send(count, senders)
    told = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
    await broker.shutdown()
    print(json.dumps(told))


if __name__ == "__main__" and len(sys.argv) == 3:
    import uvloop

    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
