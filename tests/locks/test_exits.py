"""R09: how a body may end, against what may have happened to its lock: nothing is ever masked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from aiotrack import LockLost, Tracker
from aiotrack.locks.lock import TaskLock
from aiotrack.testing.servers import ValkeyServer

Body = Callable[[], Awaitable[None]]


@pytest.fixture
async def tracker(own_valkey: ValkeyServer) -> AsyncIterator[Tracker]:
    """Without retries of others: a server of its own."""
    tracker = Tracker("sqlite+aiosqlite://", redis=own_valkey.url)
    yield tracker
    await tracker.shutdown()


# ── what happened to the lock ───────────────────────────────────────────────────────────────────
async def nothing(lock: TaskLock, server: ValkeyServer) -> None:
    """It is ours."""


async def lost(lock: TaskLock, server: ValkeyServer) -> None:
    """Its server lost all it knew, and it was told."""
    async with Redis.from_url(server.url) as client:
        await client.flushall()
    async with asyncio.timeout(3):
        while lock.lost is None:  # noqa: ASYNC110 - a look from outside
            await asyncio.sleep(0.01)


async def dead(lock: TaskLock, server: ValkeyServer) -> None:
    """Nobody can be asked to free it."""
    await asyncio.to_thread(server.kill)


# ── how the body ends ───────────────────────────────────────────────────────────────────────────
async def normally(run: Callable[[Body], Awaitable[None]]) -> None:
    """Without an error."""

    async def body() -> None:
        await asyncio.sleep(0)

    await run(body)


async def by_an_error(run: Callable[[Body], Awaitable[None]]) -> None:
    """With one of its own."""

    async def body() -> None:
        raise ZeroDivisionError

    await run(body)


async def by_a_cancellation(run: Callable[[Body], Awaitable[None]]) -> None:
    """From outside."""
    ready = asyncio.Event()

    async def body() -> None:
        ready.set()
        await asyncio.sleep(30)

    task = asyncio.ensure_future(run(body))
    await ready.wait()
    task.cancel()
    await task


async def by_a_timeout(run: Callable[[Body], Awaitable[None]]) -> None:
    """That stands inside the block's caller."""

    async def body() -> None:
        async with asyncio.timeout(0.05):
            await asyncio.sleep(30)

    await run(body)


async def by_anyio(run: Callable[[Body], Awaitable[None]]) -> None:
    """By a scope inside, which cancels level-wise."""

    async def body() -> None:
        with anyio.fail_after(0.05):
            await asyncio.sleep(30)

    await run(body)


async def by_a_sibling(run: Callable[[Body], Awaitable[None]]) -> None:
    """By the failure of another task of its group."""
    ready = asyncio.Event()

    async def body() -> None:
        ready.set()
        await asyncio.sleep(30)

    async def fail() -> None:
        await ready.wait()
        raise ZeroDivisionError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run(body))
            group.create_task(fail())
    except ExceptionGroup as errors:
        (error,) = errors.exceptions  # no LockLost beside it
        raise error from None


ENDS: list[tuple[Any, type[BaseException] | None]] = [
    (normally, None),
    (by_an_error, ZeroDivisionError),
    (by_a_cancellation, asyncio.CancelledError),
    (by_a_timeout, TimeoutError),
    (by_anyio, TimeoutError),
    (by_a_sibling, ZeroDivisionError),
]


@pytest.mark.parametrize("happened", [nothing, lost, dead], ids=lambda it: it.__name__)
@pytest.mark.parametrize(("end", "error"), ENDS, ids=lambda it: getattr(it, "__name__", ""))
async def test_every_end(
    tracker: Tracker, own_valkey: ValkeyServer, end: Any, error: Any, happened: Any
) -> None:
    """What the body raises, or who cancels it, comes first; a loss is told when nothing else is."""

    async def run(body: Body) -> None:
        async with tracker.lock("x", ttl=0.6 if happened is lost else 30, on_lost="flag") as lock:
            await happened(lock, own_valkey)
            await body()

    expected = LockLost if error is None and happened is lost else error
    if expected is None:
        await end(run)
        return
    with pytest.raises(BaseException) as caught:
        await end(run)

    assert caught.type is expected


@pytest.mark.parametrize("after", ["goes on", "fails", "is cancelled", "runs out of time"])
async def test_every_end_of_a_body_that_is_cancelled_for_its_loss(
    tracker: Tracker, own_valkey: ValkeyServer, after: str
) -> None:
    """What happens in the same moment, or while it cleans up, comes first here, too."""

    async def run() -> None:
        me = asyncio.current_task()
        assert me is not None
        async with tracker.lock("x", ttl=0.6) as lock:
            async with Redis.from_url(own_valkey.url) as client:
                await client.flushall()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                assert lock.lost is not None
                if after == "fails":
                    raise ZeroDivisionError from None
                if after == "is cancelled":
                    me.cancel()
                    await asyncio.sleep(30)
                if after == "runs out of time":
                    async with asyncio.timeout(0.05):
                        await asyncio.sleep(30)

    task = asyncio.create_task(run())
    await asyncio.wait({task})

    if after == "is cancelled":
        assert task.cancelled()
    else:
        expected = {
            "goes on": LockLost,
            "fails": ZeroDivisionError,
            "runs out of time": TimeoutError,
        }
        assert isinstance(task.exception(), expected[after])
