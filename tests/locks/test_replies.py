"""R04, R05: the server did what was asked, and its answer was lost on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from aiotrack import Tracker, acquire_task_lock, is_task_locked, release_task_lock
from aiotrack.locks.verbs import Locks
from tests.integration.proxy import Proxy, proxied


@pytest.fixture
async def server(redis_url: str) -> AsyncIterator[Any]:
    """A client that goes straight to the server."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def lossy(
    sqlite_url: str, redis_url: str, queue_name: str
) -> AsyncIterator[tuple[Tracker, Proxy]]:
    """A tracker whose way to Redis leads over a proxy."""
    async with proxied(redis_url) as (proxy, url):
        tracker = Tracker(sqlite_url, redis=url, settings={"namespace": queue_name})
        async with tracker:
            async with tracker.lock("warm"):
                messages = tracker.feature(Locks).holders().space._messages
                while not messages.is_open:  # noqa: ASYNC110 - its answers are not to be lost
                    await asyncio.sleep(0.01)
            yield tracker, proxy


async def lose_answers(tracker: Tracker, proxy: Proxy, times: int, *, in_body: bool) -> None:
    """Take and free a lock so often, each time without the answer to one of the two."""
    for _ in range(times):
        if not in_body:
            proxy.lose_reply()
        async with tracker.lock("x", ttl=30) as lock:
            assert lock.lost is None
            if in_body:
                proxy.lose_reply()
        assert lock.lost is None
        assert not await is_task_locked("x", tracker=tracker)


@pytest.mark.parametrize("in_body", [False, True], ids=["acquire", "release"])
async def test_a_lost_answer_is_asked_for_again(
    lossy: tuple[Tracker, Proxy], *, in_body: bool
) -> None:
    """The same call has the lock that it took; what it freed is free; no error reaches anybody."""
    tracker, proxy = lossy
    await lose_answers(tracker, proxy, 50, in_body=in_body)

    assert 50 == proxy.lost


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("in_body", [False, True], ids=["acquire", "release"])
async def test_a_thousand_lost_answers(lossy: tuple[Tracker, Proxy], *, in_body: bool) -> None:
    """R04, R05 in full."""
    tracker, proxy = lossy
    begun = time.monotonic()
    await lose_answers(tracker, proxy, 1000, in_body=in_body)
    print(f"1,000 lost answers, {(time.monotonic() - begun):.1f} ms each")

    assert 1000 == proxy.lost


async def test_who_takes_a_lock_away_hears_so(lossy: tuple[Tracker, Proxy]) -> None:
    """The answer was lost: it is told again, and the audit has its row; others are told no."""
    tracker, proxy = lossy
    assert not await tracker.locks.force_release("x", fence=1)  # the server knows the script
    token = await acquire_task_lock("x", ttl=30, tracker=tracker)
    held = await tracker.locks.info("x")
    assert held is not None
    proxy.lose_reply()

    assert await tracker.locks.force_release("x", fence=held.fence, by="ada")
    assert 1 == proxy.lost
    (row,) = (await tracker.audit.list(action="lock.release")).items
    assert ("ada", "lock:x") == (row.actor, row.target)
    assert not await tracker.locks.force_release("x", fence=held.fence)
    assert token is not None
    assert not await release_task_lock("x", token, tracker=tracker)


async def test_who_takes_a_lock_over_has_it(lossy: tuple[Tracker, Proxy]) -> None:
    """The answer was lost: the same call has the lock, and not a token that nobody knows."""
    tracker, proxy = lossy
    space = tracker.feature(Locks).holders().space
    assert await space.take_over("x", 1, ttl=30, info={}) is None  # the server knows the script
    first = await space.acquire("x", ttl=30, wait=0, info={})
    proxy.lose_reply()
    second = await space.take_over("x", first.fence, ttl=30, info={})

    assert 1 == proxy.lost
    assert second is not None
    assert second.fence > first.fence
    assert await space.extend("x", second.token, 30)
    assert not await space.release("x", first.token)
    assert await space.release("x", second.token)


async def test_an_answer_that_never_comes_costs_a_second(
    lossy: tuple[Tracker, Proxy],
) -> None:
    """The connection says nothing any more, and nobody cuts it."""
    tracker, proxy = lossy
    proxy.swallow_reply(1)
    begun = time.monotonic()
    async with tracker.lock("x", ttl=30):
        took = time.monotonic() - begun
        assert await is_task_locked("x", tracker=tracker)

    assert 0.9 < took < 5
    assert 1 == proxy.swallowed


async def test_a_request_of_a_cancelled_caller_takes_nothing_later(
    lossy: tuple[Tracker, Proxy], server: Any, queue_name: str
) -> None:
    """It was on its way when its caller went: the server knows that nobody wants it."""
    tracker, proxy = lossy
    for _ in range(10):
        proxy.delay = 0.05

        async def take() -> None:
            async with tracker.lock("x", ttl=30):
                pass

        task = asyncio.create_task(take())
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait({task})
        proxy.delay = 0.0
    await asyncio.sleep(0.3)

    assert not await is_task_locked("x", tracker=tracker)
    assert [] == await tracker.locks.list()


async def has_come(proxy: Proxy) -> None:
    """Wait until the request that was held has come, and was done."""
    while not proxy.late:  # noqa: ASYNC110 - a look from outside
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)


async def test_a_request_that_comes_after_its_refused_repeat_takes_nothing(
    lossy: tuple[Tracker, Proxy],
) -> None:
    """It was late, and not lost: by then the lock is free, and nobody would know its token."""
    tracker, proxy = lossy
    token = await acquire_task_lock("x", ttl=600, tracker=tracker)
    assert token is not None
    proxy.hold_request(1.6)

    assert await acquire_task_lock("x", ttl=600, tracker=tracker) is None
    assert await release_task_lock("x", token, tracker=tracker)
    await has_come(proxy)
    assert not await is_task_locked("x", tracker=tracker)


@pytest.mark.parametrize("wait", [0, 5])
async def test_a_request_that_comes_after_its_lock_was_freed_takes_nothing(
    lossy: tuple[Tracker, Proxy], wait: float
) -> None:
    """Its repeat was granted, and what it took is free again."""
    tracker, proxy = lossy
    proxy.hold_request(1.6)
    async with tracker.lock("x", ttl=600, wait=wait):
        assert 0 == proxy.late
    await has_come(proxy)

    assert not await is_task_locked("x", tracker=tracker)
    async with tracker.lock("x"):
        pass
