"""Sync code in threads and in pools of processes, beside loops that come and go."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from taskiq.receiver import Receiver

from aiotrack import (
    TaskLogCollector,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
    current_execution,
    prevent_duplicate_task,
    tracking,
)
from aiotrack.locks.duplicates import _Portal
from tests.integration import pooled
from tests.integration.bench import bench


@pytest.fixture
def in_thread() -> Iterator[Callable[[Coroutine[Any, Any, object]], None]]:
    """Runs a coroutine in a thread whose loop stays open, as one for each thread does."""
    kept: list[asyncio.AbstractEventLoop] = []

    def in_thread(work: Coroutine[Any, Any, object]) -> None:
        loop = asyncio.new_event_loop()
        kept.append(loop)
        thread = threading.Thread(target=loop.run_until_complete, args=(work,))
        thread.start()
        thread.join()

    yield in_thread
    for loop in kept:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def test_a_pool_of_processes_takes_tracked_tasks(sqlite_url: str) -> None:
    """Whoever made the pool: a command line's word, its abbreviation, or a program of its own."""
    broker = pooled.broker
    broker.add_middlewares(TrackerMiddleware(Tracker(sqlite_url)))
    await broker.startup()
    with ProcessPoolExecutor(1) as executor:
        receiver = Receiver(broker, executor=executor, run_startup=False)
        for task_id in ("first", "second"):
            message = pooled.add.kicker().with_task_id(task_id)._prepare_message(1, 2)
            await receiver.callback(broker.formatter.dumps(message).message)
    results = [await broker.result_backend.get_result(name) for name in ("first", "second")]
    records = [await broker.middlewares[0].tracker.get(name) for name in ("first", "second")]
    await broker.shutdown()

    assert [3, 3] == [one.return_value for one in results]
    assert [(TaskStatus.SUCCESS, 3)] * 2 == [(one.status, one.result) for one in records]


@pytest.fixture
def forked() -> Iterator[ProcessPoolExecutor]:
    """A pool with one process, which is forked by the first who uses it."""
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    yield pool
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown()


async def test_a_pool_of_processes_knows_no_run(
    sqlite_url: str,
    redis_url: str,
    queue_name: str,
    forked: ProcessPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its process is a copy of the first task's, in whose context it does all others' work."""
    monkeypatch.setenv("AIOTRACK_REDIS_URL", redis_url)
    monkeypatch.setenv("AIOTRACK_NAMESPACE", queue_name)
    async with bench(Tracker(sqlite_url)) as b:
        b.broker.receiver = Receiver(b.broker, executor=forked, run_startup=False)
        known = b.task("pooled.known")(pooled.known)
        guarded = b.task("pooled.guarded")(pooled.guarded)
        with tracking(created_by="somebody"), TaskLogCollector("another"):
            first = await b.run(known)
        async with asyncio.timeout(20):
            second, third = await b.run(known), await b.run(guarded)

    assert [[], [], "ran"] == [first.result, second.result, third.result]


async def test_a_pool_of_a_task_knows_no_run(sqlite_url: str, forked: ProcessPoolExecutor) -> None:
    """Nor does one that a task's own code made."""
    async with bench(Tracker(sqlite_url)) as b:

        @b.task("shop.ask")
        async def ask() -> list[str]:
            assert current_execution() is not None
            return await asyncio.get_running_loop().run_in_executor(forked, pooled.known)

        results = [(await b.run(ask)).result for _ in range(2)]

    assert [[], []] == results


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
async def test_a_guarded_call_does_not_wait_for_its_parents_loop(sqlite_url: str) -> None:
    """A child that was forked in an inner context knows the run of the outer one."""
    async with bench(Tracker(sqlite_url)) as b:

        @b.task("shop.fork")
        def fork() -> int:
            child = contextvars.copy_context().run(os.fork)
            if child:
                return os.waitpid(child, 0)[1]
            os._exit(0 if current_execution() and _Portal()._loop is None else 1)

        status = (await b.run(fork)).result

    assert 0 == status


async def test_calls_in_threads_go_to_a_loop_that_runs(
    tracker: Tracker, in_thread: Callable[[Coroutine[Any, Any, object]], None]
) -> None:
    """The loop that was used last is open, and turns no more: nothing would come of it."""

    @tracker.tracked("shop.call")
    def call() -> int:
        return 1

    await asyncio.to_thread(call)
    await asyncio.to_thread(in_thread, tracker.register("elsewhere", task_name="shop.made"))
    for _ in range(5):
        await asyncio.to_thread(call)
    await tracker.flush(20)

    calls = await tracker.list(task_name="shop.call", status="success")

    assert 6 == len(calls.items)


def test_a_call_beside_a_loop_that_stands_is_told(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is recorded if somebody turns the loop again, and else it is not: an ERROR says so."""
    tracker = Tracker(sqlite_url)

    @tracker.tracked("shop.call")
    def call() -> int:
        return 1

    async def count() -> int:
        await tracker.flush(20)
        calls = await tracker.list(task_name="shop.call")
        await tracker.shutdown()
        return len(calls.items)

    with asyncio.Runner() as runner:
        runner.run(tracker.startup())
        call()
        counted = runner.run(count())

    assert 1 == counted
    assert "shop.call is not recorded, unless its event loop goes on" in caplog.text


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_guarded_sync_task_does_not_wait_for_a_loop_that_stands(
    tracker: Tracker, in_thread: Callable[[Coroutine[Any, Any, object]], None], redis_url: str
) -> None:
    """Its thread waits for the lock in the loop of its run, wherever the tracker was used last."""
    async with bench(Tracker(tracker.database, redis=redis_url)) as b:

        @b.task("shop.guarded")
        @prevent_duplicate_task("shop.guarded")
        def guarded() -> str:
            return "ran"

        before = await b.run(guarded)
        await asyncio.to_thread(in_thread, b.tracker.register("there", task_name="shop.made"))
        async with asyncio.timeout(20):
            after = await b.run(guarded)

    assert ["ran", "ran"] == [before.result, after.result]


def test_a_block_that_ends_in_the_last_turn_of_its_loop_is_recorded(sqlite_url: str) -> None:
    """The loop cancels the block's writing before that has begun."""

    async def main(seconds: float) -> None:
        gate = asyncio.Event()

        async def block() -> None:
            async with tracker.track("shop.block", task_id=str(seconds)):
                await gate.wait()

        task = asyncio.create_task(block())
        await asyncio.sleep(seconds)
        gate.set()
        del task

    async def read() -> list[TaskStatus]:
        async with Tracker(sqlite_url) as reader:
            return [(await reader.get(str(seconds))).status for seconds in (0, 0.2)]

    for seconds in (0, 0.2):
        tracker = Tracker(sqlite_url)
        asyncio.run(main(seconds))

    assert [TaskStatus.SUCCESS] * 2 == asyncio.run(read())
