"""What answers, what does not, and that whoever asks hears it within two seconds."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from taskiq import InMemoryBroker
from taskiq_redis import ListQueueBroker

from aiotrack import Health, Tracker, TrackerMiddleware
from aiotrack.brokers import PriorityStreamBroker
from aiotrack.testing.servers import PostgresServer, ValkeyServer
from tests.control.crew import QuietBroker

NAMES = ["database", "redis", "broker", "workers"]
BOUND = 2.5
"""Seconds: two are promised, and this machine may be slow. Without a bound it would be for ever."""


async def timed(tracker: Tracker) -> tuple[Health, float]:
    """Ask, and give how long it took."""
    begun = time.monotonic()
    found = await tracker.health()
    return found, time.monotonic() - begun


def state(found: Health) -> dict[str, bool]:
    """Give what is ok."""
    return {name: one.ok for name, one in found.dependencies.items()}


async def test_what_there_is_not_is_no_fault(database_url: str) -> None:
    """Without Redis and brokers only the workers are missing."""
    async with Tracker(database_url) as tracker:
        found = await tracker.health()

    assert NAMES == list(found.dependencies)
    assert {"database": True, "redis": True, "broker": True, "workers": False} == state(found)
    assert (False, True, True) == (found.is_healthy, found.live, found.ready)
    assert found["dependencies"]["workers"]["error"] == found.dependencies["workers"].error
    with pytest.raises(KeyError):
        found["alive"]
    assert None is found.dependencies["redis"].latency is found.dependencies["broker"].latency
    assert 0 < (found.dependencies["database"].latency or 0) < BOUND
    assert "no worker beats" == found.dependencies["workers"].error


@pytest.mark.parametrize("kind", [ListQueueBroker, PriorityStreamBroker])
async def test_all_is_well(database_url: str, redis_url: str, queue_name: str, kind: Any) -> None:
    """With a worker that beats; it is heard of as soon as it is there."""
    tracker = Tracker(database_url, redis=redis_url, settings={"namespace": queue_name})
    broker = kind(redis_url, queue_name=queue_name).with_middlewares(TrackerMiddleware(tracker))
    broker.is_worker_process = True
    await broker.startup()
    found = await tracker.health()
    while not found.is_healthy:
        await asyncio.sleep(0.05)
        found = await tracker.health()
    await broker.shutdown()

    assert dict.fromkeys(NAMES, True) == state(found)
    assert all(one.latency is not None and one.error is None for one in found.dependencies.values())


class Telling(QuietBroker):
    """A broker of another kind, that can be asked."""

    fault: Exception | None = None

    async def queue_states(self) -> list[Any]:
        """Tell, or not."""
        if self.fault is not None:
            raise self.fault
        return []


async def test_brokers_of_other_kinds(made_sqlite_url: str) -> None:
    """Who can tell its queues is asked; of others nobody knows anything bad."""
    tracker = Tracker(made_sqlite_url)
    for broker in (InMemoryBroker(), QuietBroker(), telling := Telling()):
        broker.with_middlewares(TrackerMiddleware(tracker))
    async with tracker:
        before = (await tracker.health()).dependencies["broker"]
        telling.fault = ConnectionError("amqp://guest:hunter2hunter2@host is away")
        after = (await tracker.health()).dependencies["broker"]

    assert (True, None) == (before.ok, before.error)
    assert not after.ok
    assert "is away" in (after.error or "")
    assert "hunter2" not in str(after)


async def test_everything_is_mute(own_postgres: PostgresServer, own_valkey: ValkeyServer) -> None:
    """Two seconds for all of it, also for many who ask at once; and all is well again after."""
    tracker = Tracker(own_postgres.url, redis=own_valkey.url)
    ListQueueBroker(own_valkey.url).with_middlewares(TrackerMiddleware(tracker))
    async with tracker:
        assert (await tracker.health()).ready
        own_postgres.pause()
        own_valkey.pause()
        try:
            first, took = await timed(tracker)
            begun = time.monotonic()
            many = await asyncio.gather(*(tracker.health() for _ in range(100)))
            took_all = time.monotonic() - begun
        finally:
            own_postgres.resume()
            own_valkey.resume()
        assert dict.fromkeys(NAMES, False) == state(first)
        assert (False, True, False) == (first.is_healthy, first.live, first.ready)
        assert all(one.error for one in first.dependencies.values())
        assert max(took, took_all) < BOUND
        assert 1 == len(set(map(id, many)))  # one answer for all
        after = await tracker.health()
        while not after.ready:
            await asyncio.sleep(0.1)
            after = await tracker.health()
    assert {"database": True, "redis": True, "broker": True, "workers": False} == state(after)


async def test_nobody_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """Refused connections are told at once, without a password, also before any start."""
    secret = "hunter2hunter2"
    tracker = Tracker(
        f"postgresql+asyncpg://u:{secret}@127.0.0.1:1/x", redis=f"redis://u:{secret}@127.0.0.1:1/0"
    )
    broker = ListQueueBroker(f"redis://u:{secret}@127.0.0.1:1/0")
    broker.with_middlewares(TrackerMiddleware(tracker))

    found, took = await timed(tracker)
    await tracker.shutdown()

    assert dict.fromkeys(NAMES, False) == state(found)
    assert took < BOUND
    assert secret not in str(found) + caplog.text


async def test_an_answer_is_cut_off_by_a_stop(
    own_valkey: ValkeyServer, made_sqlite_url: str
) -> None:
    """A tracker that stops does not wait for what does not answer."""
    tracker = Tracker(made_sqlite_url, redis=own_valkey.url)
    await tracker.startup()
    own_valkey.pause()
    try:
        asking = asyncio.ensure_future(tracker.health())
        await asyncio.sleep(0.05)
        await tracker.shutdown()
        found = await asking
    finally:
        own_valkey.resume()

    assert (False, "the tracker stops") == (found.ready, found.dependencies["redis"].error)
