"""How workers hear of cancels: at their start, by messages, by reading; and what they remember."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from taskiq import InMemoryBroker

from aiotrack import CancelOutcome, StoreUnavailable, TaskStatus, Tracker, TrackerMiddleware
from aiotrack.cancellation import feature as hearing
from aiotrack.current import Cancel
from aiotrack.repository.control.cancels import PAGE, Cancels
from aiotrack.testing.servers import PostgresServer, ValkeyServer
from aiotrack.tracker import Cancellation
from tests.integration.proxy import proxied


async def within(seconds: float, condition: Callable[[], Any]) -> float:
    """Wait until something is so; give how long it took."""
    begun = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    return time.monotonic() - begun


def worker_of(tracker: Tracker) -> InMemoryBroker:
    """Give a broker that calls itself a worker's."""
    broker = InMemoryBroker()
    broker.is_worker_process = True
    broker.add_middlewares(TrackerMiddleware(tracker))
    return broker


def known(tracker: Tracker) -> dict[str, Cancel]:
    """Give what a tracker's loop remembers."""
    return tracker.feature(Cancellation)._known


async def test_a_worker_knows_before_its_first_message(database_url: str) -> None:
    """All pages of it, the newest last; what it does not remember is the oldest."""
    count = 2 * PAGE + 7
    async with Tracker(database_url) as asker:
        await asker.core().repository.connect()
        cancels = Cancels(asker.core().repository)
        base = asker.clock.now()
        for start in range(0, count, 500):
            ids = [f"t{number:05}" for number in range(start, min(count, start + 500))]
            await cancels.ask(ids, now=base + start, reason=None, by="ada")
        pages = [len(page) async for page in cancels.since(base)]
        newest = await cancels.newest(PAGE + 1)

        worker = Tracker(database_url)
        broker = worker_of(worker)
        await broker.startup()
        found = list(known(worker).items())
        await broker.shutdown()

    assert [PAGE, PAGE, 7] == pages
    assert [f"t{number:05}" for number in range(count)] == [task_id for task_id, _ in found]
    assert 1 == len({id(one) for _, one in found})  # of one bulk, one object
    assert [task_id for task_id, _ in found[-PAGE - 1 :]] == [one.task_id for one in newest]


async def test_by_messages_and_by_reading(
    database_url: str, redis_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Redis at once, whenever it reads next; without it within half a second."""
    monkeypatch.setattr(hearing, "POLL", 60.0)
    settings = {"namespace": queue_name}
    for redis in (redis_url, None):
        worker = Tracker(database_url, redis=redis, settings=settings)
        broker = worker_of(worker)
        await broker.startup()
        async with Tracker(database_url, redis=redis, settings=settings) as asker:
            await asyncio.sleep(0.2)
            task_id = f"heard by {redis is not None}"
            await asker.register(task_id, "shop.pay")
            await asker.cancel(task_id, reason="why", by="ada")
            await within(5, lambda: task_id in known(worker))  # noqa: B023

            assert Cancel("why", "ada") == known(worker)[task_id]
        await broker.shutdown()


async def test_a_wish_that_becomes_visible_late(database_url: str) -> None:
    """Its time is that of its asking; the commit came when workers had looked past it."""
    worker = Tracker(database_url)
    broker = worker_of(worker)
    await broker.startup()
    async with Tracker(database_url) as asker:
        await asker.core().repository.connect()
        await asyncio.sleep(0.6)
        late = asker.clock.now() - hearing.OVERLAP + 5_000_000
        await Cancels(asker.core().repository).ask(["late"], now=late, reason=None, by=None)
        await within(2, lambda: "late" in known(worker))
    await broker.shutdown()


async def test_redis_goes_and_comes_back(
    database_url: str, own_valkey: ValkeyServer, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancels work without it, and it is said once."""
    settings = {"namespace": queue_name}
    worker = Tracker(database_url, redis=own_valkey.url, settings=settings)
    broker = worker_of(worker)
    await broker.startup()
    async with Tracker(database_url, redis=own_valkey.url, settings=settings) as asker:
        feature = worker.feature(Cancellation)
        await within(2, lambda: feature._bulletin is not None and feature._bulletin.is_open)
        own_valkey.kill()
        for number in range(3):
            await asker.register(f"a{number}", "shop.pay")
            outcome = await asker.cancel(f"a{number}")
            took = await within(3, lambda: f"a{number}" in known(worker))  # noqa: B023

            assert CancelOutcome.REVOKED is outcome
            assert took < 3
        own_valkey.start()
        await within(5, lambda: feature._bulletin is not None and feature._bulletin.is_open)
        await asker.register("b", "shop.pay")
        await asker.cancel("b")
        assert await within(2, lambda: "b" in known(worker)) < 1
    await broker.shutdown()

    told = [one for one in caplog.records if "cancels is not heard" in one.message]
    assert 2 == len(told), [one.message for one in told]  # the worker's, and the asker's


async def test_a_database_that_is_away(
    own_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Who cancels is told; the worker begins, says it once, and hears when it is back."""
    async with Tracker(own_postgres.url) as tracker:
        await tracker.register("a", "shop.pay")
    own_postgres.kill()
    worker = Tracker(own_postgres.url)
    broker = worker_of(worker)
    begun = time.monotonic()
    await broker.startup()
    took = time.monotonic() - begun
    with pytest.raises(StoreUnavailable):
        await Tracker(own_postgres.url).cancel("a")
    own_postgres.start()
    async with Tracker(own_postgres.url) as asker:
        assert CancelOutcome.REVOKED is await asker.cancel("a")
        await within(5, lambda: "a" in known(worker))
    await broker.shutdown()

    assert took < 8
    assert 1 == caplog.text.count("cancels are not heard of for now")


@pytest.mark.parametrize("fault", ["not told", "nobody looks"])
async def test_a_wish_that_was_missed_is_obeyed_later(sqlite_url: str, fault: str) -> None:
    """A run that was not told of a wish is told at the next look; who looks no more is replaced."""
    tracker = Tracker(sqlite_url)
    broker = worker_of(tracker)

    @broker.task("shop.pay")
    async def pay(seconds: float) -> None:
        await asyncio.sleep(seconds)

    await broker.startup()
    feature = tracker.feature(Cancellation)
    sent = await pay.kiq(50)
    await within(5, lambda: any(run.body for run in feature._runs()))
    if fault == "not told":
        feature._known[sent.task_id] = Cancel("why", "ada")
    else:
        assert feature._watching is not None
        feature._watching.cancel()
        async with Tracker(sqlite_url) as asker:
            await asker.cancel(sent.task_id, reason="why", by="ada")
        await pay.kiq(0)
    found = await tracker.wait(sent.task_id, timeout=10)
    await broker.shutdown()

    assert (TaskStatus.REVOKED, "why", "ada") == (
        found.status,
        found.cancel_reason,
        found.cancelled_by,
    )


async def test_memory_is_bounded(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten; so are executions that were handed back long ago."""
    monkeypatch.setattr(hearing, "MOST", 100)
    async with Tracker(sqlite_url) as tracker:
        feature = tracker.feature(Cancellation)
        for number in range(250):
            feature.hear({f"t{number}": Cancel()})

        assert [f"t{number}" for number in range(150, 250)] == list(known(tracker))


async def test_messages_that_nobody_can_read(
    sqlite_url: str, redis_url: str, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else's words on the channel harm nothing."""
    caplog.set_level(logging.DEBUG, "aiotrack")
    worker = Tracker(sqlite_url, redis=redis_url, settings={"namespace": queue_name})
    broker = worker_of(worker)
    await broker.startup()
    feature = worker.feature(Cancellation)
    await within(2, lambda: feature._bulletin is not None and feature._bulletin.is_open)
    assert feature._bulletin is not None
    wrong = '{"ids": ["a"], "reason": 1, "by": null}'
    for message in ("", "[]", "{}", wrong, '{"ids": 1, "reason": null, "by": null}', "[" * 10_000):
        await feature._bulletin.tell(message)
    good = '{"ids": ["good"], "reason": null, "by": null}'
    await feature._bulletin.tell(good)
    await within(2, lambda: "good" in known(worker))
    found = list(known(worker))
    await broker.shutdown()

    assert 6 <= caplog.text.count("cannot be read")
    assert ["good"] == found


async def test_a_slow_line_to_redis(database_url: str, redis_url: str, queue_name: str) -> None:
    """A message that takes long is overtaken by the next look; nothing is told twice."""
    async with proxied(redis_url) as (proxy, url):
        settings = {"namespace": queue_name}
        worker = Tracker(database_url, redis=url, settings=settings)
        broker = worker_of(worker)
        runs = 0

        @broker.task("shop.pay")
        async def pay() -> None:
            nonlocal runs
            runs += 1
            await asyncio.sleep(10)

        await broker.startup()
        proxy.delay = 0.3
        sent = await pay.kiq()
        await asyncio.sleep(0.2)
        async with Tracker(database_url, redis=url, settings=settings) as asker:
            assert CancelOutcome.CANCELLING is await asker.cancel(sent.task_id)
            found = await asker.wait(sent.task_id, timeout=4)
        proxy.delay = 0
        await broker.shutdown()

        assert (TaskStatus.REVOKED, 1) == (found.status, runs)
