"""Migrations that take long, and that wait for others: neither is cut, and no loop stops."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg

from aiotrack import Tracker
from aiotrack.repository.columns import HEAD, VERSION_TABLE
from aiotrack.repository.sqlite import file_lock


async def test_a_statement_of_a_migration_may_take_longer_than_a_hook_waits(
    postgres_url: str,
) -> None:
    """An upgrade whose statement takes 2.5 s is not cut by the driver's limit of two."""
    holder = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(f"LOCK TABLE {VERSION_TABLE} IN ACCESS EXCLUSIVE MODE")
    tracker = Tracker(postgres_url)
    upgrade = asyncio.create_task(tracker.upgrade())
    done, _ = await asyncio.wait({upgrade}, timeout=2.5)
    await transaction.rollback()
    await holder.close()
    version = await upgrade
    await tracker.shutdown()

    assert set() == done
    assert HEAD == version


async def test_a_loop_goes_on_while_another_process_makes_the_schema(sqlite_url: str) -> None:
    """SQLite: the file's lock is held for a second, and the event loop runs all the time."""
    path = Tracker(sqlite_url).core().repository._path
    assert path is not None
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    with contextlib.ExitStack() as held:
        held.enter_context(file_lock(path))
        ticking = asyncio.create_task(tick())
        tracker = Tracker(sqlite_url)
        starting = asyncio.create_task(tracker.startup())
        done, _ = await asyncio.wait({starting}, timeout=1)
    await starting
    version = await tracker.core().repository.version()
    ticking.cancel()
    await tracker.shutdown()

    assert set() == done
    assert 20 < ticks
    assert HEAD == version
