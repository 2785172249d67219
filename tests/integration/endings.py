"""Processes that end, fork, or use several loops: python -m tests.integration.endings NAME URL.

Each function is one such process. It prints one line of JSON for the test; anything on its standard
error is a failure.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from taskiq import InMemoryBroker

from aiotrack import TaskStatus, Tracker, TrackerMiddleware, tracking
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository.sqlite import file_lock

COUNT = 50


def report(name: str, number: int) -> Report:
    """Give the report of a run's end."""
    origin = Origin(
        task_id=f"{name} {number}", task_name="shop.rows", module="shop", created_at=1_000_000
    )
    one = Report(origin, Witness.ENDED, TaskStatus.SUCCESS, run_id="r")
    one.started_at = one.finished_at = 2_000_000
    return one


def add(tracker: Tracker, name: str) -> None:
    """Put reports into the buffer of the running loop."""
    for number in range(COUNT):
        tracker.recorder().add(report(name, number))


async def commit(tracker: Tracker, name: str) -> bool:
    """Report, and wait for the commit; tells whether all were committed."""
    recorder = tracker.recorder()
    told = await asyncio.gather(*(recorder.commit(report(name, n)) for n in range(COUNT)))
    return all(told)


def tell(**facts: Any) -> None:
    """Print what the test wants to know."""
    print(json.dumps({"worker": tracker.worker_id, **facts}), flush=True)


def be_quiet() -> None:
    """Complain no more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


# ── loops ───────────────────────────────────────────────────────────────────────────────────────
def threads() -> None:
    """Two threads, a loop each, begin together and stop the tracker, each its own part."""
    barrier = threading.Barrier(2)

    async def work(name: str) -> None:
        barrier.wait()
        async with tracker:
            for turn in range(4):
                assert await commit(tracker, f"{name} {turn}")
                add(tracker, f"{name} buffered {turn}")

    both = [threading.Thread(target=asyncio.run, args=(work(name),)) for name in ("a", "b")]
    for one in both:
        one.start()
    for one in both:
        one.join()
    tell()


def one_after_the_other() -> None:
    """Three loops, none of which stops the tracker."""

    async def work(name: str) -> None:
        assert await commit(tracker, name)
        add(tracker, f"{name} buffered")

    for name in ("a", "b", "c"):
        asyncio.run(work(name))
    tell()


def closed_by_hand() -> None:
    """A loop that is closed without its hooks; the next one takes over what it left."""

    async def work() -> None:
        assert await commit(tracker, "a")
        add(tracker, "a buffered")

    async def settle() -> None:
        async with tracker:
            await tracker.flush(10)

    gc.disable()  # the first loop's connection and task are never closed, and complain of it
    loop = asyncio.new_event_loop()
    loop.run_until_complete(work())
    loop.close()
    asyncio.run(settle())
    tell()
    be_quiet()


# ── ends ────────────────────────────────────────────────────────────────────────────────────────
async def send(durability: str) -> None:
    """Send tasks whose runs last longer than the process."""
    broker = InMemoryBroker()
    broker.add_middlewares(TrackerMiddleware(tracker))

    @broker.task("shop.slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    with tracking(durability=durability):
        for _ in range(COUNT):
            await slow.kiq()


def script_commit() -> None:
    """A script that sends, and stops nothing."""
    logging.getLogger("taskiq").setLevel(logging.CRITICAL)
    asyncio.run(send("commit"))
    tell()


def script_async() -> None:
    """The same, without waiting for anything."""
    logging.getLogger("taskiq").setLevel(logging.CRITICAL)
    asyncio.run(send("async"))
    tell()


def abandoned() -> None:
    """A loop that just does not go on, as TaskIQ leaves its workers'."""
    logging.getLogger("aiotrack").setLevel(logging.ERROR)

    async def work() -> None:
        assert await commit(tracker, "a")
        add(tracker, "a buffered")

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(work())
    tell()
    be_quiet()  # a loop and a connection are left open


def abandoned_in_a_child() -> None:
    """The same in a process of `multiprocessing`, where `atexit` says nothing."""
    child = multiprocessing.get_context("fork").Process(target=abandoned)
    child.start()
    child.join()
    assert child.exitcode == 0


# ── forks ───────────────────────────────────────────────────────────────────────────────────────
def fork() -> None:
    """A process with a full buffer forks; both go on, and the child ends as scripts end."""

    async def child() -> None:
        async with tracker:
            left = len(tracker.recorder().left())
            assert await commit(tracker, "child")
        tell(left=left, reports=COUNT)

    async def parent() -> bool:
        assert await commit(tracker, "parent")
        await tracker.get("parent 0")
        add(tracker, "buffered")
        if (pid := os.fork()) == 0:
            return False
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert await commit(tracker, "afterwards")
        await tracker.get("parent 0")
        await tracker.flush()
        counters = tracker.recorder().counters
        tell(status=status, failures=counters["failures"], flushed=counters["flushed"])
        await tracker.shutdown()
        return True

    loop = asyncio.new_event_loop()
    if loop.run_until_complete(parent()):
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    else:
        asyncio.run(child())


def use() -> None:
    """Report in a process of its own, and stop nothing."""

    async def work() -> None:
        assert await commit(tracker, f"child {os.getpid()}")
        add(tracker, f"child {os.getpid()} buffered")

    asyncio.run(work())
    tell()


def processes() -> None:
    """A process that has used the tracker starts others in every way."""

    async def work() -> None:
        async with tracker:
            assert await commit(tracker, "parent")
            add(tracker, "parent buffered")
            for way in ("fork", "spawn", "forkserver"):
                child = multiprocessing.get_context(way).Process(target=use)
                child.start()
                child.join()
                assert child.exitcode == 0
            assert await commit(tracker, "afterwards")

    asyncio.run(work())
    tell()


def live_on() -> None:
    """Do nothing for longer than any test, then end without a word."""
    time.sleep(60)
    os._exit(0)


def outlived() -> None:
    """A process with a journal forks and waits to be killed; its child lives on."""
    logging.getLogger("aiotrack").setLevel(logging.CRITICAL)

    async def work() -> None:
        await tracker.startup(wait=False)
        await tracker.recorder().commit(report("last", 0))
        if (pid := os.fork()) == 0:
            live_on()
        tell(child=pid)
        await asyncio.Event().wait()

    asyncio.run(work())


def fork_inside_the_lock() -> None:
    """A thread holds the lock of SQLite's file while a child is forked, which lives on."""
    path = Path(make_url(sys.argv[2]).database or "")
    is_inside, may_leave = threading.Event(), threading.Event()

    def hold() -> None:
        with file_lock(path):
            is_inside.set()
            may_leave.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    is_inside.wait()
    if (pid := os.fork()) == 0:
        live_on()
    may_leave.set()
    holder.join()
    begun = time.perf_counter()
    with file_lock(path):
        waited = time.perf_counter() - begun
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    tell(waited=waited)


if __name__ == "__mp_main__":
    tracker = Tracker(os.environ["AIOTRACK_DATABASE_URL"])
elif __name__ == "__main__":
    os.environ["AIOTRACK_DATABASE_URL"] = sys.argv[2]
    tracker = Tracker(sys.argv[2])
    globals()[sys.argv[1]]()
