"""Following executions: watch and wait, with Redis and without, in outages and from afar."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from aiotrack import (
    Execution,
    ExecutionNotFound,
    InvalidSetting,
    InvalidStatus,
    InvalidValue,
    SlowConsumer,
    StoreUnavailable,
    TaskStatus,
    Tracker,
    WaitTimeout,
    following,
)
from aiotrack.live import MAX_WAITING
from aiotrack.testing.servers import PostgresServer, ValkeyServer

Open = Callable[..., Awaitable[Tracker]]


@pytest.fixture(params=["redis", "polled"])
def redis(request: pytest.FixtureRequest) -> str | None:
    """Events through Redis, or none: then the database is asked."""
    return None if request.param == "polled" else request.getfixturevalue("redis_url")


@pytest.fixture
async def opened(database_url: str, redis: str | None, queue_name: str) -> AsyncIterator[Open]:
    """Trackers that share a database and hear of each other as two processes do."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened() -> Tracker:
            tracker = Tracker(database_url, redis=redis, settings={"namespace": queue_name})
            return await stack.enter_async_context(tracker)

        yield opened


async def told(watched: AsyncIterator[Execution], count: int = 10_000) -> list[Execution]:
    """Collect what a watch gives, until it ends."""
    seen = []
    async for execution in watched:
        seen.append(execution)
        if len(seen) == count:
            break
    return seen


async def first(watched: AsyncIterator[Execution]) -> Execution:
    """Give the next one, within ten seconds."""
    return await asyncio.wait_for(anext(watched), 10)


# ── one execution ───────────────────────────────────────────────────────────────────────────────
async def test_a_watch_gives_each_state_until_the_end(opened: Open) -> None:
    """From another tracker: what is there, each change that lasts a moment, the end."""
    worker, viewer = await opened(), await opened()
    await worker.register("x", "shop.rows")
    watched = viewer.watch("x")

    assert TaskStatus.PENDING is (await first(watched)).status

    await worker.update("x", "started")
    assert TaskStatus.STARTED is (await first(watched)).status

    for percent in (10, 20):
        await worker.progress(percent, task_id="x")
        assert percent == (await first(watched)).metadata["progress_percent"]

    await worker.update("x", "success", result=7)
    last = await first(watched)

    assert (TaskStatus.SUCCESS, 7) == (last.status, last.result)
    assert [] == await told(watched)


async def test_what_is_final_is_given_once(opened: Open) -> None:
    """A watch of the past ends at once."""
    tracker = await opened()
    record = await tracker.register("x", "shop.rows", status="success")

    assert [record] == await told(tracker.watch("x"))


async def test_quick_changes_come_as_one_and_the_last_is_never_missed(opened: Open) -> None:
    """Five hundred changes: what comes is in order, and ends with the last."""
    worker, viewer = await opened(), await opened()
    await worker.register("x", "shop.rows", status="started")
    collecting = asyncio.create_task(told(viewer.watch("x")))
    for number in range(500):
        await worker.update("x", metadata={"number": number})
    await worker.update("x", "success")
    seen = await asyncio.wait_for(collecting, 10)
    numbers = [one.metadata.get("number", -1) for one in seen]

    assert sorted(numbers) == numbers
    assert 499 == numbers[-1]
    assert seen[-1].is_success


async def test_many_follow_one_and_each_sees_its_end(opened: Open) -> None:
    """A hundred watches of one loop share one subscription."""
    worker, viewer = await opened(), await opened()
    await worker.register("x", "shop.rows", status="started")
    watches = [asyncio.create_task(told(viewer.watch("x"))) for _ in range(100)]
    await asyncio.sleep(0.2)
    await worker.update("x", "failed", error="no")

    for seen in await asyncio.wait_for(asyncio.gather(*watches), 10):
        assert TaskStatus.FAILURE is seen[-1].status


async def test_nonsense_is_refused(opened: Open) -> None:
    """Unknown ids and senseless arguments are the caller's fault, told at once."""
    tracker = await opened()

    with pytest.raises(ExecutionNotFound):
        await first(tracker.watch("nobody"))
    with pytest.raises(ExecutionNotFound):
        await tracker.wait("nobody", 1)
    with pytest.raises(InvalidValue, match="takes a task_id, or filters"):
        await first(tracker.watch())
    with pytest.raises(InvalidValue, match="takes a task_id, or filters"):
        await first(tracker.watch("x", module="shop"))
    with pytest.raises(InvalidStatus):
        await first(tracker.watch(status="sleeping"))
    for seconds in (-1, math.nan):
        with pytest.raises(InvalidValue, match="timeout"):
            await tracker.wait("x", seconds)


# ── wait ────────────────────────────────────────────────────────────────────────────────────────
async def test_wait_gives_the_end(opened: Open) -> None:
    """Whoever waits gets the record as it ended."""
    worker, viewer = await opened(), await opened()
    await worker.register("x", "shop.rows")
    waiting = asyncio.create_task(viewer.wait("x", 10))
    await asyncio.sleep(0.1)
    await worker.update("x", "success", result=7)

    assert 7 == (await waiting).result
    assert 7 == (await viewer.wait("x", 0)).result
    assert 7 == (await viewer.wait("x")).result


@pytest.mark.parametrize("seconds", [0, 0.2])
async def test_wait_ends_when_its_time_is_over(opened: Open, seconds: float) -> None:
    """The error is a TimeoutError, and has the record as it is."""
    tracker = await opened()
    await tracker.register("x", "shop.rows", status="started")
    begun = time.monotonic()

    with pytest.raises(TimeoutError) as caught:
        await tracker.wait("x", seconds)

    assert isinstance(caught.value, WaitTimeout)
    assert TaskStatus.STARTED is caught.value.execution.status
    assert seconds <= time.monotonic() - begun < seconds + 2


async def test_an_outer_timeout_stays_the_callers(opened: Open) -> None:
    """Who limits the wait from outside gets an error of their own."""
    tracker = await opened()
    await tracker.register("x", "shop.rows")

    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.2):
            await tracker.wait("x", 60)

    assert not isinstance(caught.value, WaitTimeout)


# ── filters ─────────────────────────────────────────────────────────────────────────────────────
async def test_a_filter_gives_what_is_new_or_changed_and_matches(opened: Open) -> None:
    """What was there before is not given; what does not match is not, either."""
    worker, viewer = await opened(), await opened()
    await worker.register("old", "shop.rows", status="started")
    watched = viewer.watch(module="shop", since=timedelta(hours=1))
    waiting = asyncio.ensure_future(first(watched))
    await asyncio.sleep(0.3)
    await worker.register("other", "bank.rows")
    await worker.register("new", "shop.rows")

    assert "new" == (await waiting).task_id

    await worker.update("old", "success")
    changed = await first(watched)

    assert ("old", TaskStatus.SUCCESS) == (changed.task_id, changed.status)


async def test_a_filter_is_looked_at_however_much_happens_here(opened: Open) -> None:
    """What another process changes is seen while this one sends without a pause, unheard of."""
    worker, viewer = await opened(), await opened()
    await worker.register("old", "shop.rows", status="started")
    watched = viewer.watch(module="shop")
    waiting = asyncio.ensure_future(first(watched))
    is_busy = True

    async def send() -> None:
        while is_busy:
            async with viewer.track("bank.rows"):
                await asyncio.sleep(0.005)

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.3)
    worker.core().live.tell = lambda _: None  # type: ignore[method-assign] # its event gets lost
    await worker.update("old", "success")
    try:
        found = await waiting
    finally:
        is_busy = False
        await sending

    assert ("old", TaskStatus.SUCCESS) == (found.task_id, found.status)


async def test_an_id_of_two_lines_travels(redis_url: str, sqlite_url: str) -> None:
    """Ids are any text."""
    async with (
        Tracker(sqlite_url, redis=redis_url) as worker,
        Tracker(sqlite_url, redis=redis_url) as viewer,
    ):
        listener = await viewer.core().live.listen()
        await listener.changed(0.5)  # it begins with "look at everything"
        await worker.register("one\ntwo", "shop.rows")

        assert {"one\ntwo"} == await listener.changed(10)


async def test_a_follower_that_does_not_read_is_closed(redis_url: str, sqlite_url: str) -> None:
    """It costs nobody a buffer without end, and is told why."""
    async with Tracker(sqlite_url, redis=redis_url) as tracker:
        watched = tracker.watch(module="shop")
        waiting = asyncio.ensure_future(first(watched))
        await asyncio.sleep(0.3)
        await tracker.register("x", "shop.rows")
        await waiting
        core = tracker.core()
        for number in range(MAX_WAITING + 2):  # 10,002 commits would take a minute
            core.live.tell({str(number)})

        with pytest.raises(SlowConsumer, match="read faster"):
            await first(watched)


# ── trouble ─────────────────────────────────────────────────────────────────────────────────────
async def test_what_is_not_durable_is_not_told(sqlite_url: str, tmp_path: object) -> None:
    """A database that is away takes nothing, so nobody hears of it."""
    tracker = Tracker("postgresql+asyncpg://nobody@127.0.0.1:9/nothing")
    listener = await tracker.core().live.listen()
    async with tracker.track("shop.rows"):
        pass

    assert set() == await listener.changed(0.5)
    await tracker.shutdown()


async def test_a_watch_outlives_redis(
    sqlite_url: str, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis is killed, away and back: no change is missed, one warning tells of it."""
    async with (
        Tracker(sqlite_url, redis=own_valkey.url) as worker,
        Tracker(sqlite_url, redis=own_valkey.url) as viewer,
    ):
        await worker.register("x", "shop.rows", status="started")
        watched = viewer.watch("x")
        await first(watched)
        own_valkey.kill()
        await worker.update("x", metadata={"number": 1})
        assert 1 == (await first(watched)).metadata["number"]

        await asyncio.to_thread(own_valkey.start)
        async with asyncio.timeout(10):
            while not viewer.core().live.is_pushed:  # noqa: ASYNC110 - as any user would see it
                await asyncio.sleep(0.05)
        await worker.update("x", "success")
        assert (await first(watched)).is_success
    warnings = [one for one in caplog.records if "live events" in one.getMessage()]

    assert 1 <= len(warnings) <= 2  # one for each of the two


async def test_redis_that_is_away_from_the_start_harms_nobody(database_url: str) -> None:
    """Recording and following work as without it."""
    async with Tracker(database_url, redis="redis://127.0.0.1:9/0") as tracker:
        begun = time.monotonic()
        await tracker.register("x", "shop.rows")
        waiting = asyncio.create_task(tracker.wait("x", 10))
        await asyncio.sleep(0.1)
        await tracker.update("x", "success")

        assert (await waiting).is_success
        assert time.monotonic() - begun < 5


async def test_a_mute_redis_harms_nobody(sqlite_url: str, own_valkey: ValkeyServer) -> None:
    """One that accepts and never answers delays neither a run nor a stop."""
    async with Tracker(sqlite_url, redis=own_valkey.url) as tracker:
        await tracker.register("warm", "shop.rows")
        own_valkey.pause()
        try:
            begun = time.monotonic()
            async with tracker.track("shop.rows"):
                pass
            took = time.monotonic() - begun
            await tracker.shutdown()
        finally:
            own_valkey.resume()

    assert took < 3
    assert time.monotonic() - begun < 8


async def test_a_watch_outlives_the_database(own_postgres: PostgresServer) -> None:
    """The database restarts: the watch goes on; its first read would have failed."""
    async with Tracker(own_postgres.url) as tracker:
        await tracker.register("x", "shop.rows", status="started")
        watched = tracker.watch("x")
        await first(watched)
        waiting = asyncio.ensure_future(asyncio.wait_for(anext(watched), 30))
        own_postgres.kill()
        await asyncio.sleep(1)
        with pytest.raises(StoreUnavailable):
            await first(tracker.watch("x"))
        await asyncio.to_thread(own_postgres.start)
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await tracker.update("x", "success")
                    break
                await asyncio.sleep(0.1)

        assert (await waiting).is_success


async def test_a_client_lends_its_address(
    sqlite_url: str, redis_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A given client serves in any loop, and stays its owner's."""
    monkeypatch.setattr(following, "SURE", 60.0)
    from redis.asyncio import Redis

    client = Redis.from_url(redis_url)
    settings = {"namespace": queue_name}
    async with (
        Tracker(sqlite_url, redis=client, settings=settings) as worker,
        Tracker(sqlite_url, redis=redis_url, settings=settings) as viewer,
    ):
        await worker.register("x", "shop.rows")
        waiting = asyncio.create_task(viewer.wait("x", 10))
        await asyncio.sleep(0.2)
        assert viewer.core().live.is_pushed
        await worker.update("x", "success")

        assert (await waiting).is_success, "it was told, not asked for"
    assert await client.ping()
    await client.aclose()


def test_an_address_that_is_none_is_refused() -> None:
    """At the edge, with the way out."""
    with pytest.raises(InvalidSetting, match="write redis://"):
        Tracker("sqlite+aiosqlite://", redis="localhost:6379")
