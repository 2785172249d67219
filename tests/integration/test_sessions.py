"""A writer's session ends while it rests, or its answer comes while nobody can read it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aiotrack import Tracker
from aiotrack.report import Witness
from tests.conftest import execute
from tests.integration.load import run_report
from tests.waits import until

BLOCKED = 5.4
"""Seconds that a body blocks the loop: more than a whole write may take."""


@contextlib.asynccontextmanager
async def database_of(url: str, *, owned: bool) -> AsyncIterator[str | AsyncEngine]:
    """Give the URL, or an engine of the user's."""
    if owned:
        yield url
        return
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what was told of recording."""
    return [one.getMessage() for one in caplog.records if "record" in one.getMessage()]


@pytest.mark.parametrize("owned", [True, False], ids=["url", "engine"])
async def test_a_session_that_ends_while_it_rests_is_no_outage(
    postgres_url: str, owned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """``idle_session_timeout``, or a pooler's: the next write opens another one, without a word."""
    name = postgres_url.rpartition("/")[2]
    await execute(postgres_url, f"ALTER DATABASE \"{name}\" SET idle_session_timeout = '300ms'")
    async with (
        database_of(postgres_url, owned=owned) as database,
        Tracker(database) as tracker,
    ):
        recorder = tracker.recorder()
        committed = []
        for number in range(3):
            committed.append(await recorder.commit(run_report(f"{number}"), at_once=True))
            await asyncio.sleep(0.6)
        failures = recorder.counters["failures"]

    assert [True] * 3 == committed
    assert 0 == failures
    assert [] == errors(caplog)


@pytest.mark.parametrize("owned", [True, False], ids=["url", "engine"])
async def test_a_session_whose_end_is_not_heard_yet_is_no_outage(
    postgres_url: str, owned: bool
) -> None:
    """The first statement after a rest finds out; reports are written again at once."""
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with (
        database_of(postgres_url, owned=owned) as database,
        Tracker(database) as tracker,
    ):
        repository = tracker.core().repository
        await repository.write([run_report("a")])
        await asyncio.sleep(0.3)
        with ThreadPoolExecutor(1) as pool:  # this loop stands still: it cannot hear of it
            pool.submit(asyncio.run, execute(postgres_url, end)).result()
        await repository.write([run_report("b")])
        page = await tracker.list(limit=5)

    assert {"a", "b"} == {one.task_id for one in page.items}


async def hold(url: str, seconds: float) -> None:
    """Hold the one row for so long."""
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg:", "postgresql:", 1))
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM aiotrack_executions FOR UPDATE")
            await asyncio.sleep(seconds)
    finally:
        await connection.close()


@pytest.mark.timeout(60)
async def test_an_answer_that_comes_while_the_loop_is_blocked_counts(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that blocks for longer than a write may take costs no connection, and no journal."""
    dsn = postgres_url.replace("postgresql+asyncpg:", "postgresql:", 1)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with Tracker(postgres_url) as tracker:
        recorder = tracker.recorder()
        await recorder.commit(run_report("a", 1, Witness.STARTED), at_once=True)
        looker = await asyncpg.connect(dsn)
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(asyncio.run, hold(postgres_url, 2.0))
            await asyncio.sleep(0.3)
            writing = asyncio.create_task(recorder.commit(run_report("a"), at_once=True))
            await until("the write waits", lambda: looker.fetchval(waiting), pause=0.01)
            time.sleep(BLOCKED)  # noqa: ASYNC251 - what this is about
            held.result()
        is_committed = await writing
        await looker.close()
        counters = recorder.counters

    assert is_committed
    assert 0 == counters["failures"] == counters["late"]
    assert [] == errors(caplog)
