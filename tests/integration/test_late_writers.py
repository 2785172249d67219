"""Processes that change past hours are killed at any moment: counts stay those of the rows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text, update

from aiotrack import Stats, Tracker
from aiotrack.clock import to_datetime
from aiotrack.repository.tables import DirtyRow

ROOT = Path(__file__).parents[2]


def start(url: str, first: int) -> subprocess.Popen[str]:
    """Start a writer; its first line comes when it has written."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.late", url, str(first)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


async def let_marks_settle(tracker: Tracker) -> None:
    """Age all marks: right only while nobody writes."""
    old = to_datetime(tracker.clock.now() - 61_000_000)
    async with tracker.core().repository.engine.begin() as connection:
        await connection.execute(update(DirtyRow).values(marked_at=old))


async def counted(tracker: Tracker) -> tuple[int, int, int]:
    """Count the rows themselves."""
    query = "SELECT status, count(*) FROM aiotrack_executions GROUP BY status"
    async with tracker.core().repository.connection() as connection:
        found = dict((await connection.execute(text(query))).all())
    return found.get("SUCCESS", 0), found.get("FAILURE", 0), found.get("STARTED", 0)


def told(stats: Stats) -> tuple[int, int, int]:
    """Give the same of stats."""
    return stats.success, stats.failure, stats.started


@pytest.mark.timeout(90)
async def test_a_writer_killed_at_any_moment_leaves_true_counts(database_url: str) -> None:
    """Between mark and write, amid a write, after it: and while somebody rolls up."""
    random = Random(3)
    async with Tracker(database_url) as tracker:
        for round_ in range(4):
            writer = start(database_url, round_ * 100_000)
            await asyncio.to_thread(writer.stdout.readline)
            end = asyncio.get_running_loop().time() + random.uniform(0.2, 0.6)
            while asyncio.get_running_loop().time() < end:
                await tracker.roll_up()  # marks that somebody renews are none of its business
            writer.kill()
            await asyncio.to_thread(writer.communicate)
            before = told(await tracker.stats())
            rows = await counted(tracker)
            await let_marks_settle(tracker)
            periods = await tracker.roll_up()
            after = told(await tracker.stats())

            assert periods > 0
            assert rows == before == after
            assert sum(rows) > 0
