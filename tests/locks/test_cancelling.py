"""R06: cancelled at any step, in any way: nothing is held, waited for, or complained about."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from aiotrack import Tracker
from tests.integration.proxy import proxied

AT_ONCE = 20
STEPS = 80
"""Steps of the loop in which a lock is taken and freed, with some to spare."""

Body = Callable[[], Awaitable[None]]


@pytest.fixture
async def server(redis_url: str) -> AsyncIterator[Any]:
    """A client that goes straight to the server."""
    async with Redis.from_url(redis_url) as client:
        yield client


# ── ways to be cancelled ────────────────────────────────────────────────────────────────────────
async def at_a_step(body: Body, moment: float, *, times: int = 1) -> None:
    """By somebody else, after so many steps of the loop."""
    task = asyncio.ensure_future(body())
    for _ in range(int(moment * STEPS)):
        await asyncio.sleep(0)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({task})
    assert task.cancelled() or task.exception() is None


async def twice(body: Body, moment: float) -> None:
    """Also while it cleans up."""
    await at_a_step(body, moment, times=2)


async def by_wait_for(body: Body, moment: float) -> None:
    """By a time limit around it."""
    try:
        await asyncio.wait_for(body(), moment * 0.01)
    except TimeoutError:
        return


async def by_timeout(body: Body, moment: float) -> None:
    """By a time limit in the same task, which is uncancelled then."""
    try:
        async with asyncio.timeout(moment * 0.01):
            await body()
    except TimeoutError:
        pass
    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()


async def by_anyio(body: Body, moment: float) -> None:
    """By a scope that cancels again at each step until it is left."""
    with anyio.move_on_after(moment * 0.01):
        await body()


WAYS = (at_a_step, twice, by_wait_for, by_timeout, by_anyio)


# ── moments at which it happens ─────────────────────────────────────────────────────────────────
def bodies(tracker: Tracker, name: str) -> dict[str, Body]:
    """Give what is cancelled, by the moment that it is about."""

    async def take() -> None:
        async with tracker.lock(name):
            await asyncio.sleep(0)

    async def be_handed() -> None:
        async def hold() -> None:
            async with tracker.lock(name, wait=10):
                await asyncio.sleep(random.uniform(0, 0.003))

        first = asyncio.create_task(hold())
        await asyncio.sleep(0.001)
        try:
            async with tracker.lock(name, wait=10):
                await asyncio.sleep(0)
        finally:
            first.cancel()

    async def renew() -> None:
        async with tracker.lock(name, ttl=0.5, wait=10):
            await asyncio.sleep(0.005)

    async def by_hand() -> None:
        async with tracker.lock(name, renew=False, on_lost="flag"):
            await asyncio.sleep(0.001)

    return {"take": take, "be handed": be_handed, "renew": renew, "by hand": by_hand}


async def cancel_many(tracker: Tracker, server: Any, namespace: str, times: int) -> None:
    """Cancel so often; nothing is left after two seconds, and nobody complained."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    for turn in range(0, times, AT_ONCE):
        await asyncio.gather(
            *(
                way(body, random.random())
                for number in range(AT_ONCE)
                for way in [WAYS[(turn + number) % len(WAYS)]]
                for body in [random.choice([*bodies(tracker, f"x{turn + number}").values()])]
            )
        )
    end = time.monotonic() + 2
    while left := [
        *[
            key
            async for key in server.scan_iter(f"{{{namespace}:locks}}*", count=1000)
            if not key.endswith(b"|fence") and b"|gone:" not in key
        ],
        *[task for task in asyncio.all_tasks() if "_give_up" in repr(task.get_coro())],
    ]:
        assert time.monotonic() < end, left
        await asyncio.sleep(0.02)
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)

    assert [] == complaints


@pytest.mark.timeout(60)
async def test_five_hundred(sqlite_url: str, redis_url: str, queue_name: str, server: Any) -> None:
    """Each way at each moment, by chance."""
    async with Tracker(sqlite_url, redis=redis_url, settings={"namespace": queue_name}) as tracker:
        await cancel_many(tracker, server, queue_name, 500)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
async def test_five_thousand_on_a_slow_line(
    sqlite_url: str, redis_url: str, queue_name: str, server: Any
) -> None:
    """The long form: answers take a millisecond, so that every step is hit."""
    async with proxied(redis_url) as (proxy, url):
        proxy.delay = 0.001
        tracker = Tracker(sqlite_url, redis=url, settings={"namespace": queue_name})
        async with tracker:
            begun = time.monotonic()
            for turn in range(10):
                await cancel_many(tracker, server, queue_name, 500)
                print(f"{turn * 500 + 500} cancellations, no key left")
        print(f"{time.monotonic() - begun:.0f} s")
