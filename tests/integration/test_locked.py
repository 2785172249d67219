"""Somebody holds a lock for long: what waits for it must not use up the server's connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aiotrack import Tracker
from aiotrack.errors import AioTrackError
from aiotrack.report import Witness
from tests.integration.load import run_report
from tests.waits import until

HELD = 8.0
"""Seconds that the lock is held: four writes give up and come again meanwhile."""

_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'"""


@contextlib.asynccontextmanager
async def database_of(url: str, *, owned: bool) -> AsyncIterator[str | AsyncEngine]:
    """Give the URL, or an engine of the user's without any limits."""
    if owned:
        yield url
        return
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


@contextlib.asynccontextmanager
async def locked(url: str, statement: str) -> AsyncIterator[asyncpg.Connection]:
    """Hold what a statement locks; gives another connection, to look on."""
    dsn = url.replace("postgresql+asyncpg:", "postgresql:", 1)
    holder, looker = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        async with holder.transaction():
            await holder.execute(statement)
            yield looker
    finally:
        await holder.close()
        await looker.close()


async def most_waiting(looker: asyncpg.Connection, *, waits: float = HELD) -> int:
    """Look for so long how many sessions wait for a lock, and give the most."""
    found = 0
    for _ in range(int(waits / 0.1)):
        found = max(found, await looker.fetchval(_WAITING))
        await asyncio.sleep(0.1)
    return found


async def read_on(tracker: Tracker) -> None:
    """Read again and again, one after the other."""
    while True:
        with contextlib.suppress(AioTrackError):
            await tracker.list(limit=5)
        await asyncio.sleep(0.05)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("owned", [True, False], ids=["url", "engine"])
@pytest.mark.parametrize(
    ("statement", "most"),
    [
        ("LOCK TABLE aiotrack_executions", 2),  # a write, and a read
        ("SELECT 1 FROM aiotrack_executions WHERE task_id = 'a' FOR UPDATE", 1),
    ],
    ids=["table", "row"],
)
async def test_writes_that_wait_for_a_lock_do_not_pile_up(
    postgres_url: str, owned: bool, statement: str, most: int
) -> None:
    """Each retry ends the session of the one before; then nothing is missing, at once."""
    async with (
        database_of(postgres_url, owned=owned) as database,
        Tracker(database) as tracker,
    ):
        recorder = tracker.recorder()
        await recorder.commit(run_report("a", 1, Witness.STARTED), at_once=True)
        reading = asyncio.create_task(read_on(tracker))
        async with locked(postgres_url, statement) as looker:
            writing = [
                asyncio.create_task(recorder.commit(run_report(name), at_once=True))
                for name in ("a", "b", "c")
            ]
            found = await most_waiting(looker)
        await until("what waited is recorded", lambda: recorder.backlog == 0, 3.0)
        flushed = await tracker.flush(3)
        reading.cancel()
        await asyncio.wait({reading, *writing})
        page = await tracker.list(limit=5)

    assert most >= found >= 1
    assert flushed
    assert [("a", "SUCCESS"), ("b", "SUCCESS"), ("c", "SUCCESS")] == sorted(
        (one.task_id, one.status.value) for one in page.items
    )
    assert 0 == recorder.counters["dropped"]
