"""Ends while locks are held: of a tracker, a loop, a process, a loop that is stuck, a server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from aiotrack import LockLost, LockNotAcquired, LockUnavailable, Tracker, is_task_locked
from aiotrack.locks import renewal
from aiotrack.testing.servers import ValkeyServer

ROOT = Path(__file__).parents[2]


def renewers() -> list[threading.Thread]:
    """Give the threads that renew."""
    return [thread for thread in threading.enumerate() if thread.name == "aiotrack-locks"]


# ── of a tracker ────────────────────────────────────────────────────────────────────────────────
async def test_what_outlives_its_tracker_is_freed(
    sqlite_url: str, own_valkey: ValkeyServer
) -> None:
    """It is renewed and freed all the same; then no connection and no thread is left."""
    other = Tracker(sqlite_url, redis=own_valkey.url)
    async with Redis.from_url(own_valkey.url, single_connection_client=True) as client:
        before = len(await client.client_list())
        tracker = Tracker(sqlite_url, redis=own_valkey.url)
        async with tracker.lock("x", ttl=1.5) as lock:
            await tracker.shutdown()
            await asyncio.sleep(2.5)
            lock.check()
            with pytest.raises(LockNotAcquired):
                await asyncio.create_task(enter(other, wait=0))
        assert not await is_task_locked("x", tracker=other)
        await other.shutdown()
        end = time.monotonic() + 3
        while len(await client.client_list()) > before or renewers():
            assert time.monotonic() < end, (await client.client_list(), renewers())
            await asyncio.sleep(0.02)


async def enter(tracker: Tracker, *, wait: float, ttl: float = 60) -> None:
    """Take a lock and free it."""
    async with tracker.lock("x", wait=wait, ttl=ttl):
        pass


async def test_who_waits_at_the_shutdown_is_told(tracker: Tracker, queue_name: str) -> None:
    """At once, and leaves no place in the queue."""
    async with tracker.lock("x") as lock:
        waiting = asyncio.create_task(enter(tracker, wait=30))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        await tracker.shutdown()
        with pytest.raises(LockUnavailable, match="the tracker was shut down"):
            await waiting
        assert time.monotonic() - begun < 5
        assert lock.lost is None


# ── of a loop, of a process ─────────────────────────────────────────────────────────────────────
SCRIPT = """
import asyncio, sys
from aiotrack import task_lock

async def hold(wait):
    async with task_lock("x", wait=wait):
        await asyncio.sleep(60)

async def main():
    tasks = [asyncio.create_task(hold(0)), asyncio.create_task(hold(60))]
    await asyncio.sleep(0.5)
    if "interrupted" in sys.argv:
        raise KeyboardInterrupt
    return tasks

try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
"""


@pytest.mark.parametrize("how", ["returned", "interrupted"])
async def test_a_loop_that_ends_frees_its_locks(redis_url: str, queue_name: str, how: str) -> None:
    """Without a tracker: tasks that were cancelled with their loop leave nothing, and no words."""
    environment = {
        **os.environ,
        "AIOTRACK_REDIS_URL": redis_url,
        "AIOTRACK_NAMESPACE": queue_name,
        "PYTHONPATH": str(ROOT),
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", SCRIPT, how],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    async with Redis.from_url(redis_url) as client:
        keys = [key async for key in client.scan_iter(f"{{{queue_name}:locks}}*")]
    assert [] == [key for key in keys if not key.endswith(b"|fence") and b"|gone:" not in key]


async def test_a_child_has_locks_of_its_own(
    tracker: Tracker, redis_url: str, queue_name: str
) -> None:
    """A fork inside a body: the child is refused what its parent holds, which keeps it."""

    def child(result: int) -> None:
        async def ask() -> bytes:
            try:
                await enter(tracker, wait=0)
            except LockNotAcquired:
                return b"refused"
            return b"had it"

        os.write(result, asyncio.run(ask()))
        os._exit(0)

    async with tracker.lock("x", ttl=1.5) as lock:
        await asyncio.sleep(0.1)
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            asyncio.events._set_running_loop(None)
            threading.Thread(target=child, args=(writable,)).start()
            while True:  # in the child's copy of this loop nothing may go on
                time.sleep(1)  # noqa: ASYNC251
        told = await asyncio.to_thread(os.read, readable, 100)
        await asyncio.to_thread(os.waitpid, pid, 0)
        await asyncio.sleep(2)
        lock.check()
    assert b"refused" == told


# ── of a loop that is stuck ─────────────────────────────────────────────────────────────────────
async def test_a_stuck_loop_loses_its_locks(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R07: blocked for longer than STALL it is not renewed, and its holder hears of it."""
    monkeypatch.setattr(renewal, "STALL", 1.2)
    for on_lost in ("cancel", "flag"):
        with pytest.raises(LockLost):
            async with tracker.lock("x", ttl=0.7, on_lost=on_lost) as lock:
                time.sleep(2.4)  # noqa: ASYNC251 - this is what users do
                with pytest.raises(LockLost):
                    lock.check()
                await asyncio.sleep(0)
        with pytest.raises(LockLost):  # also when the body ends without another turn of the loop
            async with tracker.lock("x", ttl=0.7, on_lost=on_lost):
                time.sleep(2.4)  # noqa: ASYNC251 - likewise
    async with tracker.lock("x", ttl=0.7):
        time.sleep(0.9)  # noqa: ASYNC251 - shorter than STALL


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_a_hundred_blocked_bodies(tracker: Tracker) -> None:
    """R07 in full: three leases without a turn of the loop, a hundred times."""
    for _ in range(100):
        async with tracker.lock("x", ttl=0.5) as lock:
            time.sleep(1.5)  # noqa: ASYNC251 - this is what users do
            lock.check()
    print("100 of 100 bodies that blocked their loop for three leases kept their locks")


# ── of a server ─────────────────────────────────────────────────────────────────────────────────
async def test_a_waiter_outlives_a_restart(tracker: Tracker, own_valkey: ValkeyServer) -> None:
    """Half a second without a server is waited for, in the order of before; an outage is not."""
    order = []
    mine = Tracker("sqlite+aiosqlite://", redis=own_valkey.url)

    async def wait(number: int) -> None:
        async with mine.lock("x", wait=20):
            order.append(number)

    async with mine.lock("x", ttl=8, on_lost="flag"):
        waiting = []
        for number in range(3):
            waiting.append(asyncio.create_task(wait(number)))
            await asyncio.sleep(0.1)
        await asyncio.to_thread(own_valkey.kill)
        await asyncio.to_thread(own_valkey.start)
        await asyncio.sleep(2.5)
        assert [] == order
    await asyncio.gather(*waiting)
    assert [0, 1, 2] == order
    await mine.shutdown()


async def lose_the_server(server: ValkeyServer, restarts: int, *, flushes: bool) -> float:
    """Let it lose all it knows while a lock is held; give the longest time until that was told."""
    tracker = Tracker("sqlite+aiosqlite://", redis=server.url)
    fences: list[int] = []
    longest = 0.0
    for _ in range(restarts):
        lost_at = 0.0
        with pytest.raises(LockLost):
            async with tracker.lock("x", ttl=1.5, wait=5) as lock:
                fences.append(lock.fence)
                lost_at = time.monotonic()
                if flushes:
                    async with Redis.from_url(server.url) as client:
                        await client.flushall()
                else:
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                async with asyncio.timeout(5):
                    await asyncio.sleep(5)
        longest = max(longest, time.monotonic() - lost_at)
    await tracker.shutdown()
    assert sorted(set(fences)) == fences
    return longest


@pytest.mark.parametrize("flushes", [False, True], ids=["killed", "flushed"])
async def test_a_server_that_loses_its_data(*, flushes: bool) -> None:
    """R03, short: fences never fall, and the holder is told within a third of its lease."""
    with ValkeyServer() as server:
        longest = await lose_the_server(server, 3, flushes=flushes)

    assert longest < 1.5 / 3 + 2


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("flushes", [False, True], ids=["killed", "flushed"])
async def test_a_hundred_losses(*, flushes: bool) -> None:
    """R03 in full."""
    with ValkeyServer() as server:
        longest = await lose_the_server(server, 100, flushes=flushes)
    print(f"100 losses, fences rose each time, told after {longest:.2f} s at most (lease 1.5 s)")

    assert longest < 1.5 / 3 + 1
