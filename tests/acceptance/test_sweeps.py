"""`taskiq scheduler` and `taskiq worker` run the sweeps with no further set-up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiotrack import TaskStatus
from tests.acceptance.conftest import until

pytestmark = pytest.mark.timeout(120)


@pytest.mark.slow
async def test_two_schedulers_roll_up_once_a_minute(
    start_project: Callable[..., Any], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each minute has at most one record, and what was due is rolled up."""
    monkeypatch.setenv("AIOTRACK_ROLL_UP_CRONTAB", "* * * * *")
    async with start_project(postgres_url) as (project, workers):
        for hours in (2, 3, 50):
            ago = datetime.now(UTC) - timedelta(hours=hours)
            await project.tracker.register(
                f"old {hours}", "shop.old", status="SUCCESS", created_at=ago, started_at=ago
            )
        async with project.tracker.core().repository.engine.begin() as connection:
            await connection.exec_driver_sql("DELETE FROM aiotrack_rollups_dirty")
        workers.worker(2)
        workers.scheduler()
        workers.scheduler()

        async def done() -> bool:
            records = (await project.tracker.list(module="aiotrack")).items
            return any(one.is_success for one in records)

        await until("a sweep", done, 75)
        await asyncio.sleep(3)
        records = (await project.tracker.list(module="aiotrack")).items
        stats = await project.tracker.stats()
        left = await project.tracker.core().repository.rollups.is_due()

    assert {TaskStatus.SUCCESS} == {one.status for one in records}
    assert {1} == set(Counter(one.task_id for one in records).values())
    assert 1 == sum(1 for one in records if one.result)
    assert (3, True, False) == (stats.total, stats.is_approximate, left)
    assert [] == workers.trouble()
