"""`prevent_duplicate_task`: one body at a time, whoever sends it, however often it is delivered."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.asyncio import Redis
from taskiq import InMemoryBroker, SimpleRetryMiddleware, SmartRetryMiddleware

from aiotrack import (
    InvalidSetting,
    InvalidValue,
    LockUnavailable,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
    TrackerNotFound,
    is_task_locked,
    prevent_duplicate_task,
    task_lock,
)
from aiotrack.locks import duplicates
from aiotrack.locks.holders import held, server_time
from aiotrack.locks.space import Space
from aiotrack.locks.verbs import Locks
from aiotrack.testing.servers import ValkeyServer

SKIPPED = {"success": False, "status": "skipped", "reason": "task_already_running"}


@pytest.fixture
async def broker(tracker: Tracker) -> AsyncIterator[InMemoryBroker]:
    """A broker in this process, tracked."""
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
    await broker.startup()
    yield broker
    await broker.shutdown()


# ── skipping ────────────────────────────────────────────────────────────────────────────────────
async def test_what_runs_already_is_skipped(broker: InMemoryBroker, tracker: Tracker) -> None:
    """Ten sends of one work: one body; nine say so exactly, and their records by whom."""
    bodies = []

    @broker.task("shop.rebuild")
    @prevent_duplicate_task("rebuild", lock_param="shop")
    async def rebuild(shop: int, force: bool = False) -> str:
        bodies.append(shop)
        await asyncio.sleep(0.4)
        return "built"

    sent = [await rebuild.kiq(7) for _ in range(10)]
    other = await rebuild.kiq(8)
    results = [(await one.wait_result(timeout=30)).return_value for one in sent]
    await other.wait_result(timeout=30)
    records = [await tracker.get(one.task_id) for one in sent]
    holder = sent[results.index("built")].task_id

    assert [7, 8] == sorted(bodies)
    assert 9 == results.count(SKIPPED)
    assert {TaskStatus.SUCCESS} == {record.status for record in records}
    assert 9 == sum(record.metadata == {"skipped_by": holder} for record in records)
    assert not await is_task_locked("rebuild", key=7)


async def test_sync_functions_are_guarded_too(broker: InMemoryBroker, tracker: Tracker) -> None:
    """They run in threads; the lock is taken through the loop."""
    bodies = []

    @broker.task("shop.resize")
    @prevent_duplicate_task("resize", lock_param=["picture", "width"])
    def resize(picture: str, width: int = 640) -> str:
        bodies.append(threading.current_thread().name)
        time.sleep(0.4)
        return picture

    sent = [await resize.kiq("cat"), await resize.kiq(picture="cat", width=640)]
    results = [(await one.wait_result(timeout=30)).return_value for one in sent]

    assert "cat" in results
    assert 1 == len(bodies)
    assert 1 == results.count(SKIPPED)


async def test_the_value_counts_however_it_is_given(tracker: Tracker) -> None:
    """By position, keyword or default; values of another type are another work."""

    @prevent_duplicate_task("x", lock_param="a")
    async def work(a: object = 1, *, hold: asyncio.Event | None = None) -> str:
        if hold is not None:
            await hold.wait()
        return "done"

    hold = asyncio.Event()
    running = asyncio.create_task(work(1, hold=hold))
    await asyncio.sleep(0.1)

    assert SKIPPED == await work()
    assert SKIPPED == await work(a=1)
    for another in ("1", 1.0, True, None, (1,)):
        assert "done" == await work(another)
    hold.set()
    assert "done" == await running
    assert "done" == await work()


async def test_it_is_the_function_it_guards(tracker: Tracker) -> None:
    """TaskIQ reads name, signature, hints and whether it is a coroutine function."""

    @prevent_duplicate_task("x")
    async def work(a: int, b: str = "") -> float:
        """Do it."""
        return 1.0

    @prevent_duplicate_task("x")
    def work_sync(a: int) -> int:
        return a

    assert ("work", "Do it.") == (work.__name__, work.__doc__)
    assert ["a", "b"] == list(inspect.signature(work).parameters)
    assert inspect.iscoroutinefunction(work)
    assert not inspect.iscoroutinefunction(work_sync)
    assert 7 == await asyncio.to_thread(work_sync, 7)
    assert 7 == work_sync(7), "also in the loop's own thread"


# ── mistakes ────────────────────────────────────────────────────────────────────────────────────
def test_mistakes_are_told_at_decoration() -> None:
    """Not when the first task fails."""
    broker = InMemoryBroker()

    with pytest.raises(InvalidValue, match=r"has no parameter 'user'|no parameter user: it has a"):

        @prevent_duplicate_task("x", lock_param="user")
        async def one(a: int) -> None:
            """Nothing."""

    with pytest.raises(InvalidValue, match="goes under @broker"):

        @prevent_duplicate_task("x")
        @broker.task("x")
        async def two() -> None:
            """Nothing."""

    for arguments in (
        {"lock_name": ""},
        {"lock_name": "x", "timeout": 0},
        {"lock_name": "x", "timeout": float("nan")},
        {"lock_name": "x", "timeout": -1},
        {"lock_name": "x", "timeout": None},
        {"lock_name": "x", "timeout": "60"},
        {"lock_name": "x", "on_unavailable": "ignore"},
    ):
        with pytest.raises(ValueError):
            prevent_duplicate_task(**arguments)  # type: ignore[arg-type]


# ── retries, copies, faults ─────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("retry", [SimpleRetryMiddleware, SmartRetryMiddleware])
async def test_a_retry_is_no_duplicate(
    sqlite_url: str, redis_url: str, queue_name: str, retry: Any
) -> None:
    """The next attempt gets the lock of the one before."""
    settings = {"namespace": queue_name}
    tracker = Tracker(sqlite_url, redis=redis_url, settings=settings)
    middlewares = (
        TrackerMiddleware(tracker),
        retry(default_delay=0) if retry is SmartRetryMiddleware else retry(),
    )
    broker = InMemoryBroker().with_middlewares(*middlewares)
    attempts = []

    @broker.task("shop.rows", retry_on_error=True, max_retries=3)
    @prevent_duplicate_task("rows")
    async def rows() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("no answer")
        return "rows"

    await broker.startup()
    sent = await rows.kiq()
    record = await tracker.wait(sent.task_id, 10)
    await broker.shutdown()

    assert (TaskStatus.SUCCESS, "rows", 3) == (record.status, record.result, record.attempt)


async def test_a_later_attempt_takes_over_from_one_that_hangs(
    broker: InMemoryBroker, tracker: Tracker
) -> None:
    """A thread that runs on after its time-out does not block its own retry."""
    from taskiq import TaskiqMessage

    started, hold = [], asyncio.Event()

    @broker.task("shop.rows")
    @prevent_duplicate_task("rows", timeout=60)
    async def rows() -> str:
        started.append(1)
        if len(started) == 1:
            await hold.wait()
        return str(len(started))

    async def deliver(attempt: int) -> Any:
        message = TaskiqMessage(
            task_id="x", task_name="shop.rows", labels={"_retries": attempt - 1}, args=[], kwargs={}
        )
        return await broker.receiver.callback(broker.formatter.dumps(message).message)

    first = asyncio.create_task(deliver(1))
    await asyncio.sleep(0.2)
    await asyncio.wait_for(deliver(2), 5)
    assert 2 == len(started)
    hold.set()
    await first


async def test_a_second_delivery_never_overwrites_the_real_result(
    broker: InMemoryBroker, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11: the copy sees that the first one lives, and is set aside without a result."""
    from taskiq import TaskiqMessage

    monkeypatch.setattr(duplicates, "LEASE", 0.9)  # else it would take ten seconds to see
    bodies = []

    @broker.task("shop.rows")
    @prevent_duplicate_task("rows", timeout=60)
    async def rows() -> str:
        bodies.append(1)
        await asyncio.sleep(2)
        return "rows"

    message = TaskiqMessage(task_id="x", task_name="shop.rows", labels={}, args=[], kwargs={})
    wire = broker.formatter.dumps(message).message
    first = asyncio.create_task(broker.receiver.callback(wire))
    await asyncio.sleep(0.2)
    await broker.receiver.callback(wire)
    assert not first.done()
    await first
    result = await broker.result_backend.get_result("x")
    record = await tracker.get("x")

    assert 1 == len(bodies)
    assert "rows" == result.return_value
    assert (TaskStatus.SUCCESS, "rows", 0) == (record.status, record.result, record.duplicates)
    told = [(run.status, run.error) for run in await tracker.attempts("x")]
    assert (TaskStatus.REVOKED, "another delivery of it is running") in told


async def test_a_copy_takes_over_from_the_dead(
    tracker: Tracker,
    broker: InMemoryBroker,
    redis_url: str,
    sqlite_url: str,
    queue_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that was killed does not renew: its lease ends, and the copy does the work."""
    from taskiq import TaskiqMessage

    monkeypatch.setattr(duplicates, "LEASE", 0.9)

    @broker.task("shop.rows")
    @prevent_duplicate_task("rows", timeout=60)
    async def rows() -> str:
        return "rows"

    holders = tracker.feature(
        __import__("aiotrack.locks.verbs", fromlist=["Locks"]).Locks
    ).holders()
    info = {"task_id": "x", "attempt": 1, "worker": "dead"}
    await holders.space.acquire("rows", ttl=0.9, wait=0, info=info)
    message = TaskiqMessage(task_id="x", task_name="shop.rows", labels={}, args=[], kwargs={})
    begun = time.monotonic()
    await broker.receiver.callback(broker.formatter.dumps(message).message)

    assert 0.5 < time.monotonic() - begun < 3
    assert "rows" == (await tracker.get("x")).result


@pytest.mark.parametrize(
    ("word", "expected"),
    [("run", "done"), ("skip", {**SKIPPED, "reason": "lock_unavailable"}), ("raise", None)],
)
async def test_redis_away_does_what_was_chosen(
    sqlite_url: str, word: str, expected: object
) -> None:
    """It never runs or skips without a word."""

    @prevent_duplicate_task("x", on_unavailable=word)
    async def work() -> str:
        return "done"

    async with Tracker(sqlite_url, redis="redis://127.0.0.1:9/0"):
        if word == "raise":
            with pytest.raises(LockUnavailable):
                await work()
        else:
            assert expected == await work()


@pytest.mark.parametrize(
    ("word", "expected"),
    [("run", "done"), ("skip", {**SKIPPED, "reason": "lock_unavailable"}), ("raise", None)],
)
async def test_redis_away_at_a_second_delivery(
    own_valkey: ValkeyServer, sqlite_url: str, word: str, expected: object
) -> None:
    """It refused the lock, and then does not tell the time: that is unavailable, too."""
    from taskiq import TaskiqMessage

    async with Redis.from_url(own_valkey.url) as client:
        rights = ("reset", "on", ">secret", "~*", "&*", "+@all", "-time")  # grants need it, too
        await client.execute_command("ACL", "SETUSER", "timeless", *rights)
    place = own_valkey.url.split("@")[-1].removeprefix("redis://")
    async with Tracker(sqlite_url, redis=f"redis://timeless:secret@{place}") as tracker:
        broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))

        @broker.task("shop.rows")
        @prevent_duplicate_task("rows", on_unavailable=word)
        async def rows() -> str:
            return "done"

        first = Space(own_valkey.url, "aiotrack")
        await first.acquire("rows", ttl=30, wait=0, info={"task_id": "x", "attempt": 1})
        message = TaskiqMessage(task_id="x", task_name="shop.rows", labels={}, args=[], kwargs={})
        await broker.startup()
        await broker.receiver.callback(broker.formatter.dumps(message).message)
        result = await broker.result_backend.get_result("x")
        await first.close()
        await broker.shutdown()

    assert expected == result.return_value
    assert (LockUnavailable if word == "raise" else type(None)) is type(result.error)


@pytest.mark.parametrize(
    ("word", "expected"), [("run", "done"), ("skip", {**SKIPPED, "reason": "lock_unavailable"})]
)
async def test_a_place_without_redis_is_as_one_with_redis_away(
    sqlite_url: str, word: str, expected: Any
) -> None:
    """A tracker that has none, and no tracker at all, as where a function is tried out."""

    @prevent_duplicate_task("x", on_unavailable=word)
    async def work() -> str:
        return "done"

    @prevent_duplicate_task("x")
    async def strict() -> None:
        pass

    assert expected == await work()
    with pytest.raises(TrackerNotFound):
        await strict()
    async with Tracker(sqlite_url):
        assert expected == await work()
        with pytest.raises(InvalidSetting, match="locks need Redis"):
            await strict()


async def test_it_is_held_for_no_longer_than_its_timeout(tracker: Tracker) -> None:
    """The body runs on; others may begin."""

    @prevent_duplicate_task("x", timeout=0.3)
    async def work(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    running = asyncio.create_task(work(1.2))
    await asyncio.sleep(0.1)
    assert SKIPPED == await work(0)
    await asyncio.sleep(0.6)
    assert "done" == await work(0)
    assert "done" == await running


@pytest.mark.parametrize("lease", [duplicates.LEASE, 0.6])
async def test_its_lock_ends_in_redis_with_its_timeout(
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lease: float,
) -> None:
    """The last renewal is for what is left: by the server's clock, it never lasts for longer."""
    monkeypatch.setattr(duplicates, "LEASE", lease)

    @prevent_duplicate_task("x", timeout=1.5)
    async def work() -> None:
        await asyncio.sleep(2.5)

    space = tracker.feature(Locks).holders().space
    lasts = []
    running = asyncio.create_task(work())
    while not running.done():
        now = await server_time(space, "x")
        if found := await held(space, "x"):
            lasts.append((now - int(found["since"])) / 1e6 + found["left"])
        await asyncio.sleep(0.02)
    await running

    assert 1.4 < max(lasts) < 1.8
    assert "lock x was lost, its body runs on: it was held for as long as it may be" in caplog.text


async def test_the_lock_of_the_decorator_is_a_lock(tracker: Tracker) -> None:
    """The names are those of task_lock."""

    @prevent_duplicate_task("x", lock_param="a")
    async def work(a: int) -> str:
        return "done"

    async with task_lock("x", key=1):
        assert SKIPPED == await asyncio.create_task(work(1))
        assert "done" == await work(2)


def test_a_loop_that_ends_before_a_thread(sqlite_url: str, redis_url: str, queue_name: str) -> None:
    """What the body of a sync function gives is not lost for a lock that cannot be freed."""
    tracker = Tracker(sqlite_url, redis=redis_url, settings={"namespace": queue_name})
    begun, ended = threading.Event(), threading.Event()

    @tracker.tracked("shop.rows")
    @prevent_duplicate_task("rows", timeout=0.5)
    def rows() -> str:
        begun.set()
        ended.wait(10)
        return "rows"

    async def main() -> Any:
        await tracker.startup()
        working = pool.submit(rows)
        await asyncio.to_thread(begun.wait, 10)
        return working

    with ThreadPoolExecutor(1) as pool:
        working = asyncio.run(main())
        ended.set()
        assert "rows" == working.result(10)
