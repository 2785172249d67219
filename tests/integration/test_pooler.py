"""A pooler before the database: no statement, setting or lock is looked for where it is not."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from aiotrack import TaskLogCollector, Tracker
from aiotrack.clock import Clock
from aiotrack.errors import AioTrackError, StoreUnavailable
from aiotrack.repository import Repository
from aiotrack.testing.servers import PostgresServer
from tests.integration.pooler import POOLERS, SERVERS
from tests.integration.test_faults import run_report, send_report

log = logging.getLogger(__name__)

OPTIONS = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": str,
}
"""What an engine needs behind a pooler: docs/how-to/pgbouncer."""


@pytest.fixture(scope="module")
def shared_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that lets poolers in through its socket."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def database(shared_postgres: PostgresServer) -> Iterator[str]:
    """An empty database of the test's own."""
    name = f"pooled_{next(_numbers)}"
    shared_postgres.create_database(name)
    yield name
    shared_postgres.drop_database(name)


_numbers = itertools.count()


async def operate(tracker: Tracker, url: str, name: str, count: int) -> int:
    """Do *count* operations of every kind; give how many records they leave."""
    known = 0
    chance = random.Random(25)
    for step in range(count):
        if step % 10 == 0:
            await tracker.recorder().commit(send_report(f"{name} {known}"), at_once=True)
            known += 1
        else:
            try:
                await one_of_many(tracker, url, f"{name} {chance.randrange(known)}", step)
            except StoreUnavailable as error:
                if "Timeout" not in repr(error.__cause__):  # a slow machine is no fault of ours
                    raise
    return known


async def one_of_many(tracker: Tracker, url: str, task_id: str, step: int) -> None:
    """Do what is the turn of this *step*."""
    match step % 10:
        case 1:
            await tracker.recorder().commit(run_report(task_id), at_once=True)
        case 2:
            await tracker.recorder().commit(run_report(task_id, attempt=2), at_once=True)
        case 3:
            await tracker.progress(step % 100, task_id=task_id)
        case 4:
            assert task_id == (await tracker.get(task_id)).task_id
        case 5:
            with TaskLogCollector(task_id, tracker=tracker):
                log.warning("step %d", step)
            page = await tracker.logs(task_id, limit=500)
            assert page.items[-1].message == f"step {step}"
        case 6:
            await tracker.attempts(task_id)
        case 7:
            await tracker.list(limit=10, status="success", module="shop")
        case 8:
            await tracker.stats(module="shop")
        case _ if step % 100 == 9:
            await tracker.upgrade()
            other = Repository(url, clock=Clock())
            assert await other.version() is not None
            await other.close()
        case _:
            await tracker.update(task_id, metadata={"step": step})


async def traces(url: str) -> set[tuple[Any, ...]]:
    """What every server connection remembers: prepared statements, settings, locks."""
    query = """
        SELECT (SELECT count(*) FROM pg_prepared_statements),
            current_setting('statement_timeout'), current_setting('synchronous_commit'),
            current_setting('default_transaction_isolation'), current_setting('jit'),
            (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), statement_cache_size=0)
    found = {tuple(await connection.fetchrow(query)) for _ in range(2 * SERVERS)}
    await connection.close()
    return found


async def work_through(
    url: str, given: str, count: int, caplog: pytest.LogCaptureFixture
) -> tuple[int, int]:
    """Let four trackers work at once; give records expected and found."""
    caplog.set_level(logging.WARNING)
    engine = create_async_engine(url, connect_args=OPTIONS)
    settings = {"pgbouncer": given == "the setting"}
    trackers = [Tracker(engine if given == "an engine" else url, settings=settings) for _ in "1234"]
    await asyncio.gather(*(tracker.startup() for tracker in trackers))
    known = await asyncio.gather(
        *(operate(one, url, f"tracker {n}", count // 4) for n, one in enumerate(trackers))
    )
    await asyncio.gather(*(tracker.flush(30) for tracker in trackers))
    stats = await trackers[0].stats()
    for tracker in trackers:
        await tracker.shutdown()
    await engine.dispose()

    told = [one.getMessage() for one in caplog.records if one.name.startswith("aiotrack")]

    assert [] == [one for one in told if "Timeout" not in one and "goes on" not in one]
    return sum(known), stats.total


@pytest.mark.timeout(60)
@pytest.mark.parametrize("given", ["the setting", "nothing", "an engine"])
@pytest.mark.parametrize("pooler", POOLERS)
async def test_every_operation_works_behind_a_pooler(
    shared_postgres: PostgresServer,
    database: str,
    pooler: str,
    given: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R25: four trackers, three servers, each transaction on the next: no error and no trace."""
    async with POOLERS[pooler](shared_postgres, database) as url:
        expected, found = await work_through(url, given, 160, caplog)
        left = await traces(url)

    assert expected == found
    assert {(0, "0", "on", "read committed", "on", 0)} == left


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pooler", POOLERS)
async def test_ten_thousand_operations_behind_a_pooler(
    shared_postgres: PostgresServer,
    database: str,
    pooler: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R25, long: 10,000 operations through a pooler that nobody told us of."""
    async with POOLERS[pooler](shared_postgres, database) as url:
        expected, found = await work_through(url, "nothing", 10_000, caplog)
        left = await traces(url)
    print(f"{pooler}: 10,000 operations, 0 errors, {found} records")

    assert expected == found
    assert {(0, "0", "on", "read committed", "on", 0)} == left


async def test_an_engine_that_does_not_fit_a_pooler_is_told_what_it_needs(
    shared_postgres: PostgresServer, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R25: an engine of the user's keeps its options: what they should be is in the log."""
    async with POOLERS["stand-in"](shared_postgres, database) as url:
        engine = create_async_engine(url)
        tracker = Tracker(engine)
        try:
            await tracker.startup()
        except AioTrackError as error:  # it is a matter of luck what is met first
            log.error("%s", error)
        await tracker.shutdown()
        await engine.dispose()

    assert str(OPTIONS)[1:26] in caplog.text
