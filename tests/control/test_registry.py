"""A worker registers, beats and leaves; who does not beat is lost."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from typing import Any

import pytest
from taskiq import InMemoryBroker

from aiotrack import StoreUnavailable, Tracker, TrackerMiddleware, WorkerStatus
from tests.control.crew import QuietBroker, enlist, registry_of, serving, started, write
from tests.waits import until

QUICK = {"heartbeat_seconds": 0.2}


async def test_a_worker_comes_and_goes_within_a_second(database_url: str, tracker: Tracker) -> None:
    """It tells all of itself, at once; and says farewell."""
    own = Tracker(database_url, settings=QUICK)
    broker = serving(own)

    @broker.task("shop.pay")
    async def pay() -> None: ...

    @broker.task("shop.sum")
    def add() -> None: ...

    begun = time.monotonic()
    await broker.startup()
    await until("the worker is seen", tracker.workers)
    came = time.monotonic() - begun
    worker = (await tracker.workers())[0]

    begun = time.monotonic()
    await broker.shutdown()
    left = (await tracker.workers())[0]
    went = time.monotonic() - begun

    assert (own.worker_id, socket.gethostname(), os.getpid()) == (
        worker.id,
        worker.host,
        worker.pid,
    )
    assert (WorkerStatus.ALIVE, ["crew"]) == (worker.status, worker.queues)
    assert (True, False) == (worker.tasks["shop.pay"], worker.tasks["shop.sum"])
    assert {"python", "taskiq", "aiotrack"} == set(worker.versions)
    assert (None, None, 0) == (worker.concurrency, worker.load, worker.running)
    assert worker.memory is not None
    assert worker.memory > 10_000_000
    assert WorkerStatus.STOPPED == left.status
    assert left.stopped_at is not None
    assert max(came, went) < 1


async def test_beats_go_on_and_tell_news(database_url: str, tracker: Tracker) -> None:
    """A task that is registered later is told with the next beat, and so is what runs."""
    own = Tracker(database_url, settings=QUICK)
    broker = serving(own)
    await broker.startup()
    await until("the worker is seen", tracker.workers)
    first = (await tracker.workers())[0]
    broker.register_task(lambda: None, "shop.late")

    async with own.track("shop.block"):

        async def is_told() -> bool:
            now = (await tracker.workers())[0]
            return "shop.late" in now.tasks and now.running == 1

        await until("it is told", is_told)
        later = (await tracker.workers())[0]
    await broker.shutdown()

    assert first.started_at == later.started_at
    assert first.beat_at < later.beat_at
    assert later.cpu is not None


async def test_a_blocked_loop_is_not_lost(database_url: str, tracker: Tracker) -> None:
    """The beats come from a thread of their own."""
    own = Tracker(database_url, settings=QUICK)
    broker = serving(own)
    await broker.startup()
    await until("the worker is seen", tracker.workers)
    time.sleep(1.5)  # noqa: ASYNC251 - seven beats
    found = (await tracker.workers())[0]
    await broker.shutdown()

    assert (WorkerStatus.ALIVE, True, False) == (found.status, found.alive, found.lost)


async def test_a_stuck_loop_is_lost(
    database_url: str, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that does nothing at all for a minute will never finish anything; it may come back."""
    monkeypatch.setattr("aiotrack.workers.heart.STALL", 0.4)
    own = Tracker(database_url, settings=QUICK)
    broker = serving(own)
    await broker.startup()
    await until("the worker is seen", tracker.workers)
    time.sleep(2)  # noqa: ASYNC251
    stuck = (await tracker.workers())[0]

    async def is_back() -> bool:
        return (await tracker.workers())[0].status is WorkerStatus.ALIVE

    await until("it is back", is_back)
    await broker.shutdown()

    assert (WorkerStatus.LOST, True, False) == (stuck.status, stuck.lost, stuck.alive)


async def test_a_worker_of_two_brokers(database_url: str, tracker: Tracker) -> None:
    """One process, one worker: it listens to both queues, and knows both's tasks, at once."""
    own = Tracker(database_url, settings={"heartbeat_seconds": 60})
    one, two = serving(own), serving(own, QuietBroker("other"))
    two.register_task(lambda: None, "shop.other")
    await one.startup()
    await until("the worker is seen", tracker.workers)
    await two.startup()

    async def is_told() -> bool:
        return ["crew", "other"] == (await tracker.workers())[0].queues

    await until("it is told", is_told)
    found = await tracker.workers()
    await one.shutdown()
    await two.shutdown()

    assert 1 == len(found)
    assert "shop.other" in found[0].tasks


async def test_who_does_not_beat_is_lost(tracker: Tracker) -> None:
    """After three beats of its own, however often others beat; a farewell is none."""
    await enlist(tracker, "quick", ago=4, beat=1)
    await enlist(tracker, "slow", ago=4, beat=2)
    await enlist(tracker, "gone", ago=4, beat=1, stopped=4)
    found = {worker.id: worker.status for worker in await tracker.workers()}
    lost = await registry_of(tracker).lost_among(["quick", "slow", "gone", "nobody"])

    assert {"slow": "alive", "quick": "lost", "gone": "stopped"} == found
    assert ["slow", "quick", "gone"] == list(found)
    assert {"quick"} == lost


async def test_a_client_and_an_in_memory_broker_are_no_workers(database_url: str) -> None:
    """Only who takes messages from a queue is one."""
    tracker = Tracker(database_url)
    client = QuietBroker()
    client.add_middlewares(TrackerMiddleware(tracker))
    memory = InMemoryBroker(await_inplace=True)
    memory.add_middlewares(TrackerMiddleware(tracker))

    @memory.task("shop.pay")
    async def pay() -> None: ...

    await client.startup()
    await memory.startup()
    await pay.kiq()
    await asyncio.sleep(0.2)
    found = await tracker.workers()
    await memory.shutdown()
    await client.shutdown()

    assert [] == found


async def test_a_worker_on_an_engine_of_the_user(postgres_url: str, tracker: Tracker) -> None:
    """The beats get a connection of their own, made as the engine makes its own."""
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        postgres_url, connect_args={"server_settings": {"timezone": "Asia/Tokyo"}}
    )
    own = Tracker(engine, settings=QUICK)
    broker = serving(own)
    await broker.startup()
    reader = Tracker(postgres_url)
    await until("the worker is seen", reader.workers)
    await broker.shutdown()
    found = (await reader.workers())[0]
    await reader.shutdown()
    await engine.dispose()

    assert WorkerStatus.STOPPED == found.status
    assert found.beat_at >= found.started_at


async def test_a_database_in_memory_is_the_same_one() -> None:
    """It is a file that nobody else knows; the beats find it."""
    own = Tracker("sqlite+aiosqlite://", settings=QUICK)
    broker = serving(own)
    await broker.startup()
    await until("the worker is seen", own.workers)
    found = await own.workers()
    await broker.shutdown()

    assert [own.worker_id] == [worker.id for worker in found]


async def test_an_unlimited_worker_and_a_load(tracker: Tracker) -> None:
    """Load is known where concurrency is."""
    await enlist(tracker, "one")
    found = (await tracker.workers())[0]

    assert (10, 1, 0.1) == (found.concurrency, found.running, found.load)


async def test_a_lock_tells_that_its_worker_is_lost(
    sqlite_url: str, redis_url: str, queue_name: str
) -> None:
    """Where the tracker's database is in use; else nobody knows."""
    settings = {"namespace": queue_name}
    async with Tracker(sqlite_url, redis=redis_url, settings=settings) as tracker:
        unused = Tracker(sqlite_url, redis=redis_url, settings=settings)
        async with tracker.lock("import"):
            unknown = await unused.locks.list()
            nobody = await tracker.locks.list()
            await enlist(tracker, tracker.worker_id, ago=100)
            lost = await tracker.locks.list()
            one = await tracker.locks.info("import")
        await unused.shutdown()

    assert [None, False, True] == [found[0].is_lost for found in (unknown, nobody, lost)]
    assert one is not None
    assert one.is_lost


async def test_an_outage_is_told_once(own_postgres: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Beats go on when the database is back; and nobody is taken for lost."""
    fleet = []
    for _ in range(2):
        own = Tracker(own_postgres.url, settings=QUICK)
        broker = serving(own)
        await broker.startup()
        fleet.append((own, broker))
    reader = fleet[0][0]

    async def are_alive() -> bool:
        found = await reader.workers()
        return [WorkerStatus.ALIVE] * 2 == [one.status for one in found]

    await until("they live", are_alive)
    await write(
        reader, *(started(reader, str(one), own.worker_id) for one, (own, _) in enumerate(fleet))
    )
    caplog.clear()
    await asyncio.to_thread(own_postgres.stop, graceful=False)
    await asyncio.sleep(3)
    await asyncio.to_thread(own_postgres.start)
    told = caplog.text.count("this worker cannot tell that it lives")

    async def is_back() -> bool:
        try:
            return await are_alive()
        except StoreUnavailable:
            return False

    await until("it is back", is_back)
    await asyncio.sleep(2)
    statuses = {(await reader.get(str(one))).status for one in range(2)}
    for _, broker in fleet:
        await broker.shutdown()

    assert 2 == told  # each once
    assert {"STARTED"} == statuses


async def test_a_forked_child_is_a_worker_of_its_own(database_url: str, tracker: Tracker) -> None:
    """Its parent beats on; and it leaves alone."""
    command = (sys.executable, "-W", "ignore", "-m", "tests.control.forked", database_url)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    (child, seen), (parent, later) = map(json.loads, out.splitlines())
    left = {one.id: one.status for one in await tracker.workers()}

    assert {parent: "alive", child: "alive"} == seen
    assert {parent: "alive", child: "stopped"} == later
    assert {parent: "stopped", child: "stopped"} == left
