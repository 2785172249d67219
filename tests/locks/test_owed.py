"""A server that stands still grants later what nobody wants any more: until then it is given up."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis
from taskiq import InMemoryBroker

from aiotrack import LockUnavailable, Tracker, TrackerMiddleware, prevent_duplicate_task
from aiotrack.locks import owed
from aiotrack.locks.space import Space
from aiotrack.testing.servers import ValkeyServer

STANDSTILL = 4.5
"""Seconds; giving up tried for four of them only."""


@pytest.fixture
async def tracker(own_valkey: ValkeyServer, sqlite_url: str) -> AsyncIterator[Tracker]:
    """The only tracker, on a server of its own."""
    async with Tracker(sqlite_url, redis=own_valkey.url) as tracker:
        yield tracker


@contextmanager
def standing_still(server: ValkeyServer) -> Iterator[None]:
    """Stop a server in the middle of what it does; it goes on later with all that was asked."""
    with Redis.from_url(server.url) as client:
        told: Any = client.info("server")
    os.kill(told["process_id"], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(told["process_id"], signal.SIGCONT)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what was logged of locks that could not be given up."""
    return [text for text in caplog.messages if "could not be given up" in text]


async def nothing_held(tracker: Tracker, seconds: float) -> None:
    """Wait until no lock is held."""
    end = time.monotonic() + seconds
    while left := await tracker.locks.list():
        assert time.monotonic() < end, left
        await asyncio.sleep(0.05)


async def test_a_server_that_stands_still(
    tracker: Tracker, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever gave up or was cancelled meanwhile holds nothing soon after it goes on."""
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))

    @broker.task("shop.rows")
    @prevent_duplicate_task("rows")
    async def rows() -> str:
        return "rows"

    async def take(name: str) -> None:
        async with tracker.lock(name, ttl=600):
            pass

    await broker.startup()
    await take("warm")  # a connection stands
    begun = time.monotonic()
    with standing_still(own_valkey):
        cancelled = asyncio.create_task(take("cancelled"))
        refused = await rows.kiq()
        await asyncio.sleep(0.1)
        cancelled.cancel()
        with pytest.raises(LockUnavailable):
            await take("given-up")
        record = await tracker.wait(refused.task_id, 5)
        await asyncio.sleep(STANDSTILL - (time.monotonic() - begun))
    await asyncio.sleep(0.2)
    await nothing_held(tracker, 5)
    later = await tracker.wait((await rows.kiq()).task_id, 5)
    await broker.shutdown()

    assert "LockUnavailable" in str(record.error_type)
    assert ("rows", {}) == (later.result, later.metadata)
    assert 1 == len(told(caplog))
    assert "that is tried again: Redis did not answer in" in told(caplog)[0]


async def test_a_shutdown_meanwhile(
    sqlite_url: str, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It tries for the last time, soon gives up, and says why; nobody complains later."""
    caplog.set_level(logging.WARNING)
    tracker = Tracker(sqlite_url, redis=own_valkey.url)
    async with tracker.lock("warm"):
        pass
    with standing_still(own_valkey):
        with pytest.raises(LockUnavailable):
            async with tracker.lock("x", ttl=600):
                pass
        await asyncio.sleep(2.5)
        begun = time.monotonic()
        await tracker.shutdown()
        took = time.monotonic() - begun
    gc.collect()
    await asyncio.sleep(0)

    assert took < 4
    assert told(caplog)[-1].startswith("lock x ends by itself: it could not be given up: Redis did")
    assert "never retrieved" not in caplog.text
    assert 1 == len(asyncio.all_tasks())


def test_a_loop_that_ends_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    """Between two tries nothing is under way: a loop that is just left finds nothing to say."""
    caplog.set_level(logging.WARNING)

    async def give_up() -> None:
        space = Space("redis://127.0.0.1:9/0", "aiotrack")
        space.abandon("x", "token")
        await asyncio.sleep(0.15)

    def run() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(give_up())
        loop.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result(10)
    gc.collect()

    assert 1 == len(told(caplog))
    assert "destroyed" not in caplog.text


async def test_it_remembers_so_many(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage of any length takes no more memory than that, and one line of the log."""
    monkeypatch.setattr(owed, "MOST", 30)
    space = Space(own_valkey.url, "aiotrack")
    own_valkey.stop()
    for number in range(100):
        space.abandon(f"x{number}", f"token{number}")
    await asyncio.sleep(1)
    assert 30 == len(space._owed._owed)
    own_valkey.start()
    end = time.monotonic() + 10
    while space._owed._owed:
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    with Redis.from_url(own_valkey.url) as client:
        gone: Any = client.keys("*|gone:*")
    await space.close()

    assert 30 == len(gone)
    assert 1 == len(told(caplog))
