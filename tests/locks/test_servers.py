"""R12, R13: servers that are full, in a cluster, short of replicas or of connections; races."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from aiotrack import LockLost, LockNotAcquired, LockUnavailable, Tracker, task_lock
from aiotrack.locks.verbs import Locks
from aiotrack.testing.servers import ValkeyServer


@pytest.fixture
async def tracker(own_valkey: ValkeyServer) -> AsyncIterator[Tracker]:
    """The only tracker, on a server of its own."""
    async with Tracker("sqlite+aiosqlite://", redis=own_valkey.url) as tracker:
        yield tracker


@pytest.fixture
async def client(own_valkey: ValkeyServer) -> AsyncIterator[Any]:
    """Who makes the server what it is."""
    async with Redis.from_url(own_valkey.url) as client:
        yield client


# ── R12 ─────────────────────────────────────────────────────────────────────────────────────────
async def test_a_server_without_memory(tracker: Tracker, client: Any) -> None:
    """What is held is renewed, handed over and freed, and a lock still finds its few bytes."""
    order = []

    async def wait() -> None:
        async with tracker.lock("x", wait=10, ttl=1.5):
            order.append("second")

    async with tracker.lock("x", ttl=1.5) as lock:
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.2)
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", 1)
        await asyncio.sleep(2)
        lock.check()
        async with task_lock("y"):
            pass
        order.append("first")
    await waiting
    await client.config_set("maxmemory", 0)

    assert ["first", "second"] == order
    assert [] == await tracker.locks.list()


async def test_a_server_without_its_replicas(tracker: Tracker, client: Any) -> None:
    """It refuses writes: nothing is granted, and a holder is told before its lease is over."""
    begun = time.monotonic()
    with pytest.raises(LockLost):
        async with tracker.lock("x", ttl=1):
            await client.config_set("min-replicas-to-write", 1)
            with pytest.raises(LockUnavailable, match="enough good replicas"):
                async with tracker.lock("y"):
                    pass
            await asyncio.sleep(5)
    assert time.monotonic() - begun < 3
    await client.config_set("min-replicas-to-write", 0)


async def test_a_server_without_connections(own_valkey: ValkeyServer, client: Any) -> None:
    """It turns us away, with or without a word: unavailable, soon; and it is no lasting state."""
    await client.config_set("maxclients", 1)
    tracker = Tracker("sqlite+aiosqlite://", redis=own_valkey.url)
    begun = time.monotonic()
    with pytest.raises(LockUnavailable, match=r"max number of clients|Connection"):
        async with tracker.lock("x"):
            pass
    assert time.monotonic() - begun < 4
    await client.config_set("maxclients", 1000)
    async with tracker.lock("x"):
        pass
    await tracker.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyServer]:
    """A cluster of one, which serves every slot."""
    with ValkeyServer(settings={"cluster-enabled": "yes"}) as server:
        yield server


async def test_a_cluster_refuses_no_name(cluster: ValkeyServer) -> None:
    """Five hundred odd names and keys, each taken, waited for, listed, freed: one slot."""
    async with Redis.from_url(cluster.url) as client:
        await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with asyncio.timeout(20):
            while b"cluster_state:ok" not in await client.execute_command("CLUSTER", "INFO"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    async with Tracker("sqlite+aiosqlite://", redis=cluster.url) as tracker:
        letters = "AZaz09_.:-{}/~% ü\x00\ud800"

        async def use(number: int) -> None:
            name = "".join(random.choices(letters, k=random.randint(1, 128)))
            key = random.choice([None, "{x}", "{}", "}{", "a:{b}:c", b"\x00{", number, "ü " * 50])

            async def again() -> None:
                async with tracker.lock(name, key=key, wait=30):
                    pass

            async with tracker.lock(name, key=key, wait=30):
                waiting = asyncio.create_task(again())
                await asyncio.sleep(0.01)
            await waiting

        for begin in range(0, 500, 50):
            await asyncio.gather(*(use(number) for number in range(begin, begin + 50)))
        assert [] == await tracker.locks.list()


# ── R13 ─────────────────────────────────────────────────────────────────────────────────────────
async def race(tracker: Tracker, times: int) -> int:
    """Take locks from their holders while they hand them over; give how many were lost to that.

    Whoever is evicted must be the holder whose fence was named, never the next one.
    """
    space = tracker.feature(Locks).holders().space
    info: dict[str, Any] = {}
    evicted = 0
    for _ in range(times):
        name = f"race-{secrets.token_hex(4)}"
        first = await space.acquire(name, ttl=30, wait=0, info=info)
        second = asyncio.create_task(space.acquire(name, ttl=30, wait=5, info=info))
        while not space._waiters:  # noqa: ASYNC110 - a look from outside
            await asyncio.sleep(0)
        for _ in range(random.randrange(8)):
            await asyncio.sleep(0)
        freed, forced = await asyncio.gather(
            *random.sample(
                [
                    space.release(name, first.token),
                    tracker.locks.force_release(name, fence=first.fence),
                ],
                2,
            )
        )
        assert freed != forced, "one of the two had it, and one only"
        evicted += 1
        grant = await second
        assert grant.fence > first.fence
        assert await space.extend(name, grant.token, 30), "the next holder was evicted"
        assert not await tracker.locks.force_release(name, fence=first.fence)
        assert await space.release(name, grant.token)
    return evicted


async def test_the_next_holder_is_never_evicted(tracker: Tracker) -> None:
    """R13, short."""
    assert 300 == await race(tracker, 300)


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_ten_thousand_races(tracker: Tracker) -> None:
    """R13 in full."""
    begun = time.monotonic()
    assert 10_000 == await race(tracker, 10_000)
    print(f"10,000 races in {time.monotonic() - begun:.0f} s, no next holder evicted")


async def test_what_is_held_is_refused_meanwhile(tracker: Tracker) -> None:
    """A race of many for one lock: one has it."""

    async def take() -> bool:
        try:
            async with tracker.lock("x"):
                await asyncio.sleep(0.2)
        except LockNotAcquired:
            return False
        return True

    assert 1 == sum(await asyncio.gather(*(take() for _ in range(50))))
