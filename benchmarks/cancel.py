"""How long a cancel takes: from the call until the body of another process has got it.

A worker runs sleeping tasks, and says through a list at what moment (on the clock that all
processes of a host share) each body was interrupted. Once with Redis, once by the poll alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from typing import Any

from harness import HERE, Lab, end, environment, parser, percentile, save, show
from redis.asyncio import Redis
from taskiq_redis import RedisStreamBroker
from variants import VARIANTS

from aiotrack import Tracker, TrackerMiddleware

QUEUE, TOLD = "bench-cancel", "bench-cancel:told"


def make(database: str, redis: str, hears: str) -> tuple[Tracker, Any, Any]:
    """Make the project: the same for the worker and for who cancels."""
    settings = {"namespace": f"bench-{hears}"}
    tracker = Tracker(database, redis=redis if hears == "redis" else None, settings=settings)
    broker = RedisStreamBroker(redis, queue_name=f"{QUEUE}-{hears}", xread_block=100)
    broker.add_middlewares(TrackerMiddleware(tracker))
    client = Redis.from_url(redis, socket_timeout=None)  # BLPOP waits

    @broker.task("bench:sleep")
    async def sleep() -> None:
        await client.rpush(TOLD, "begun")
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            now = time.monotonic()
            await client.rpush(TOLD, str(now))
            raise

    return tracker, broker, sleep


if "BENCH_CANCEL" in os.environ:
    broker = make(*json.loads(os.environ["BENCH_CANCEL"]))[1]


async def measure(database: str, redis: str, hears: str, count: int) -> dict[str, Any]:
    """Cancel so many, one after the other, at moments that no poll knows."""
    tracker, broker, sleep = make(database, redis, hears)
    client = Redis.from_url(redis, socket_timeout=None)  # BLPOP waits
    await broker.startup()
    interrupted, returned, recorded = [], [], []
    for _ in range(count):
        sent = await sleep.kiq()
        assert await client.blpop(TOLD, timeout=20)
        await asyncio.sleep(random.uniform(0.1, 0.6))  # its start is told
        begun = time.monotonic()
        await tracker.cancel(sent.task_id)
        returned.append(time.monotonic() - begun)
        told = await client.blpop(TOLD, timeout=20)
        interrupted.append(float(told[1]) - begun)
        found = await tracker.wait(sent.task_id, timeout=20)
        recorded.append(found.finished_at.timestamp() - tracker.clock.now() / 1e6)
        recorded[-1] += time.monotonic() - begun
        assert found.status == "REVOKED"
    await broker.shutdown()
    await client.aclose()
    return {
        f"{name}_p{percent}_ms": round(1000 * percentile(times, percent), 1)
        for name, times in (("call", returned), ("body", interrupted), ("record", recorded))
        for percent in (50, 99)
    }


def run(lab: Lab, count: int) -> list[dict[str, Any]]:
    """Measure both ways on both databases."""
    rows = []
    for database in ("postgres", "sqlite"):
        target = lab.target(VARIANTS[database])
        for hears in ("redis", "poll"):
            told = [target.database, lab.valkey.url, hears]
            command = ["-m", "taskiq", "worker", "cancel:broker", "--workers", "1"]
            worker = subprocess.Popen(
                [sys.executable, *command, "--log-level", "ERROR"],
                cwd=HERE,
                env=environment(BENCH_CANCEL=json.dumps(told)),
                stdin=subprocess.DEVNULL,
            )
            try:
                times = asyncio.run(measure(*told, count))
            finally:
                end(worker)
            rows.append({"database": database, "hears": hears, "cancels": count} | times)
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--count", type=int, default=200, help="cancels of each kind")
    given = options.parse_args()
    with Lab() as lab:
        results = run(lab, 20 if given.short else given.count)
    columns = [*results[0]]
    show(columns, [[one[name] for name in columns] for one in results], markdown=given.markdown)
    save("cancel", results, given)


if __name__ == "__main__":
    main()
