"""The schema goes away while a process runs: it comes back, or is told, without a restart."""

from __future__ import annotations

import pytest

from aiotrack import Tracker
from aiotrack.errors import SchemaOutdated
from tests.conftest import execute
from tests.integration.load import run_report
from tests.waits import until

DROP = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


async def test_an_emptied_database_gets_its_schema_again(postgres_url: str) -> None:
    """The first write that misses a table looks again, and the next one finds what it needs."""
    async with Tracker(postgres_url) as tracker:
        recorder = tracker.recorder()
        await recorder.commit(run_report("before"), at_once=True)
        await execute(postgres_url, DROP)
        await recorder.commit(run_report("after"), at_once=True)
        flushed = await tracker.flush(10)
        page = await tracker.list(limit=5)

    assert flushed
    assert ["after"] == [one.task_id for one in page.items]


async def test_health_of_an_emptied_database_makes_it_whole(postgres_url: str) -> None:
    """A process that only reads finds out when it is asked."""
    async with Tracker(postgres_url) as tracker:

        async def is_ready() -> bool:
            return (await tracker.health()).ready

        await until("it is ready", is_ready)
        await execute(postgres_url, DROP)
        await until("it is ready again", is_ready)
        page = await tracker.list(limit=5)

    assert [] == page.items


async def test_a_database_that_cannot_be_made_whole_is_not_healthy(postgres_url: str) -> None:
    """It says that it has the schema, but a table is gone: nobody knows what else is."""
    async with Tracker(postgres_url) as tracker:
        await execute(postgres_url, "ALTER TABLE aiotrack_executions RENAME TO elsewhere")
        recorder = tracker.recorder()
        await recorder.commit(run_report("a"), at_once=True)
        found = [await tracker.health() for _ in range(2)]
        await execute(postgres_url, "ALTER TABLE elsewhere RENAME TO aiotrack_executions")
        flushed = await tracker.flush(10)
        after = await tracker.health()

    assert [False, False] == [one.ready for one in found]
    assert ["the database has lost tables of aiotrack"] * 2 == [
        one.dependencies["database"].error for one in found
    ]
    assert flushed
    assert after.ready


async def test_an_older_schema_that_was_restored_is_told(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A write that misses a column tells what to do about it, as a start does."""
    async with Tracker(postgres_url) as tracker:
        recorder = tracker.recorder()
        await recorder.commit(run_report("before"), at_once=True)
        repository = tracker.core().repository
        await execute(
            postgres_url,
            "ALTER TABLE aiotrack_executions RENAME COLUMN trace_id TO unknown; "
            "UPDATE aiotrack_version SET version_num = '0001'",
        )
        await recorder.commit(run_report("after"), at_once=True)
        await until("it looks again", lambda: not repository.is_ready)
        health = await tracker.health()
        with pytest.raises(SchemaOutdated):
            await tracker.list(limit=5)

    assert not health.ready
    assert "aiotrack db upgrade" in (health.dependencies["database"].error or "")
