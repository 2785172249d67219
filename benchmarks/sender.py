"""Sends tasks by the client of one variant, and says what it took: a child of the harness.

`sender.py COUNT SENDERS` sends noop tasks and measures; with the word `mixed` behind it sends the
mixed workload and says the task_ids in order.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from app import TARGET, broker, mixed, noop
from redis.asyncio import Redis

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


async def drained() -> None:
    """Wait until the worker has acknowledged all; ask seldom, it is not to be felt."""
    async with Redis.from_url(TARGET.redis) as client:
        while True:
            (group,) = await client.xinfo_groups(TARGET.queue)
            if not group["pending"] and not group["lag"]:
                return
            await asyncio.sleep(0.002)


async def main(count: int, senders: int) -> None:
    await broker.startup()
    await send(int(os.environ.get("BENCH_WARM", "20")), min(senders, 10))
    waits = os.environ.get("BENCH_DRAIN") == "1"
    if waits:
        await drained()
    begun, cpu = time.perf_counter(), time.process_time()
    await send(count, senders)
    sent, used = time.perf_counter() - begun, time.process_time() - cpu
    if waits:
        await drained()
    told = {"seconds": time.perf_counter() - begun, "sent": sent, "cpu": used}
    await broker.shutdown()
    print(json.dumps(told))


async def main_mixed(count: int, senders: int) -> None:
    await broker.startup()
    left = iter(range(count))
    ids: dict[int, str] = {}

    async def one() -> None:
        for number in left:
            ids[number] = (await mixed.kiq(number)).task_id

    await asyncio.gather(*(one() for _ in range(senders)))
    await broker.shutdown()
    print(json.dumps({"ids": [ids[number] for number in range(count)]}))


if __name__ == "__main__" and len(sys.argv) > 2:
    import uvloop

    chosen = main_mixed if sys.argv[3:] == ["mixed"] else main
    uvloop.run(chosen(int(sys.argv[1]), int(sys.argv[2])))
