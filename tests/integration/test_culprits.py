"""A row, or a size of groups, that the database does not take: all others are recorded."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from aiotrack import Tracker
from aiotrack.journal import Journal
from tests.integration.load import run_report
from tests.waits import until

SLOWLY = """
    CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.002); RETURN new; END';
    CREATE TRIGGER slowly BEFORE INSERT ON aiotrack_executions
        FOR EACH ROW EXECUTE FUNCTION slowly();
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET statement_timeout = 200', current_database());
    END $$
"""
"""A hundred rows at most in one statement."""


@contextlib.asynccontextmanager
async def user(url: str, *statements: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect as somebody else does, and say some *statements* first."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        for statement in statements:
            await connection.execute(statement)
        yield connection
    finally:
        await connection.close()


# ── the journal's pieces ────────────────────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
@pytest.mark.parametrize("whose", ["own", "another's"])
async def test_a_journal_is_replayed_by_a_database_that_takes_little_at_once(
    postgres_url: str, tmp_path: Path, whose: str
) -> None:
    """An audit trigger and a limit of time: pieces are halved until they are taken."""
    reports = [run_report(f"task {number}") for number in range(600)]
    settings = {"journal_dir": str(tmp_path)}
    async with user(postgres_url, SLOWLY) as raw:
        tracker = Tracker(postgres_url, settings=settings)
        keeper = tracker.core().keeper
        if whose == "own":
            await keeper.keep_all(reports)
        else:
            left = Journal(keeper._journal._folder)
            left.append(reports)
            left.close()
        await tracker.startup()
        await until("the journal is replayed", lambda: not keeper.has_work, 30)
        found = await raw.fetchval("SELECT count(*) FROM aiotrack_executions")
        fresh = await tracker.recorder().commit(run_report("fresh"), at_once=True)
        await tracker.shutdown()

    assert (600, True) == (found, fresh)
