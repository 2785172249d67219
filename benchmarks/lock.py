"""The task lock beside redis-py's asyncio Lock and bare round trips, in one run."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from harness import parser, percentile, save, show
from redis.asyncio import Redis
from redis.exceptions import LockError

from aiotrack import Tracker
from aiotrack.locks.verbs import Locks
from aiotrack.testing.servers import ValkeyServer

AT_ONCE = 50
HOLD = 0.001
"""Seconds that a waiter holds what it got."""

Pair = Callable[[int], Awaitable[None]]


async def pairs(rounds: int, count: int, url: str) -> dict[str, list[float]]:
    """Give microseconds for an acquire and a release, by who does it, alone and fifty at once."""
    tracker = Tracker("sqlite+aiosqlite://", redis=url)
    client = Redis.from_url(url)
    wire = tracker.feature(Locks).holders().space.wire

    async def ours(key: int) -> None:
        async with tracker.lock("bench", key=key):
            pass

    async def theirs(key: int) -> None:
        async with client.lock(f"bench:{key}", timeout=60, blocking=False):
            pass

    async def bare(_: int) -> None:
        await wire.ask("PING")
        await wire.ask("PING")

    async def bare_theirs(_: int) -> None:
        await client.ping()
        await client.ping()

    every: dict[str, Pair] = {
        "two bare round trips": bare,
        "aiotrack": ours,
        "two bare round trips, redis-py": bare_theirs,
        "redis-py Lock": theirs,
    }
    took: dict[str, list[float]] = {f"{name}{x}": [] for name in every for x in ("", " x50")}
    for pair in every.values():
        await pair(0)
    for _ in range(rounds):
        for name, pair in every.items():
            begun = time.perf_counter()
            for _ in range(count):
                await pair(0)
            took[name].append((time.perf_counter() - begun) / count * 1e6)
            begun = time.perf_counter()
            await asyncio.gather(*(_repeat(pair, key, count // AT_ONCE) for key in range(AT_ONCE)))
            took[f"{name} x50"].append(
                (time.perf_counter() - begun) / (count // AT_ONCE * AT_ONCE) * 1e6
            )
    await client.aclose()
    await tracker.shutdown()
    return took


async def _repeat(pair: Pair, key: int, times: int) -> None:
    for _ in range(times):
        await pair(key)


async def hand_overs(seconds: float, url: str, *, ours: bool) -> tuple[float, list[float]]:
    """Give acquisitions a second of fifty waiters, and milliseconds from each end to the next."""
    tracker = Tracker("sqlite+aiosqlite://", redis=url)
    client = Redis.from_url(url, max_connections=AT_ONCE + 5)
    late: list[float] = []
    freed = 0.0
    end = time.perf_counter() + seconds

    async def wait() -> None:
        nonlocal freed
        while time.perf_counter() < end:
            lock: Any = (
                tracker.lock("queue", ttl=10, wait=60)
                if ours
                else client.lock("queue", timeout=10, blocking_timeout=60)
            )
            async with lock:
                now = time.perf_counter()
                if freed:
                    late.append((now - freed) * 1000)
                await asyncio.sleep(HOLD)
                freed = time.perf_counter()

    begun = time.perf_counter()
    waiting = [asyncio.create_task(wait()) for _ in range(AT_ONCE)]
    done = await asyncio.gather(*waiting, return_exceptions=True)
    rate = len(late) / (time.perf_counter() - begun)
    for error in done:
        if isinstance(error, BaseException) and not isinstance(error, LockError):
            raise error
    await client.aclose()
    await tracker.shutdown()
    return rate, late


def main() -> None:
    options = parser(__doc__).parse_args()
    rounds, count, seconds = (3, 500, 1.0) if options.short else (11, 2000, 5.0)
    with ValkeyServer() as server:
        took = uvloop.run(pairs(rounds, count, server.url))
        queues = {
            name: uvloop.run(hand_overs(seconds, server.url, ours=name == "aiotrack"))
            for name in ("aiotrack", "redis-py Lock")
        }
    us = {name: statistics.median(every) for name, every in took.items()}
    rows = [
        [name, f"{us[name]:.0f}", f"{us[f'{name} x50']:.0f}"] for name in us if "x50" not in name
    ]
    show(["acquire and release", "µs alone", "µs, 50 at once"], rows, markdown=options.markdown)
    ratios = {
        "share of two bare round trips": us["two bare round trips"] / us["aiotrack"],
        "share of two of redis-py's": us["two bare round trips, redis-py"] / us["aiotrack"],
        "against redis-py's Lock": us["redis-py Lock"] / us["aiotrack"],
        "against redis-py's Lock, 50 keys at once": us["redis-py Lock x50"] / us["aiotrack x50"],
    }
    print()
    show(["ratio", ""], [[name, f"{one:.2f}"] for name, one in ratios.items()])
    print()
    rows = [
        [name, f"{rate:.0f}", *(f"{percentile(late, share):.2f}" for share in (50, 99, 100))]
        for name, (rate, late) in queues.items()
    ]
    head = ["50 waiters on one key, held 1 ms", "acquisitions/s", "p50 ms", "p99 ms", "worst ms"]
    show(head, rows, markdown=options.markdown)
    results: list[dict[str, Any]] = [
        {"what": "pairs", "us": us, "ratios": ratios},
        *(
            {
                "what": "hand-over",
                "lock": name,
                "per_second": rate,
                "p50_ms": percentile(late, 50),
                "p99_ms": percentile(late, 99),
            }
            for name, (rate, late) in queues.items()
        ),
    ]
    save("lock", results, options)


if __name__ == "__main__":
    main()
