"""`taskiq scheduler` and `taskiq worker` run the sweeps with no further set-up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiotrack import TaskStatus
from tests.acceptance.conftest import APP
from tests.waits import until

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


@pytest.mark.slow
async def test_two_schedulers_run_each_sweep_once_a_minute(
    start_project: Callable[..., Any], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clean-up and time-outs: each minute one run of each, recorded, and their work is done."""
    for name in ("CLEANUP", "MARK_TIMEOUT"):
        monkeypatch.setenv(f"AIOTRACK_{name}_CRONTAB", "* * * * *")
    async with start_project(postgres_url) as (project, workers):
        ago = datetime.now(UTC) - timedelta(days=31)
        await project.tracker.register(
            "old", "shop.old", status="SUCCESS", created_at=ago, finished_at=ago
        )
        await project.tracker.register("hangs", "shop.old", status="STARTED", started_at=ago)
        workers.worker(2)
        workers.scheduler()
        workers.scheduler()

        async def done() -> bool:
            records = (await project.tracker.list(module="aiotrack", status="success")).items
            return {"aiotrack:cleanup", "aiotrack:mark_timed_out"} <= {
                one.task_name for one in records
            }

        await until("both sweeps", done, 75)
        await asyncio.sleep(3)
        records = (await project.tracker.list(module="aiotrack")).items
        hung = await project.tracker.get("hangs")
        left = [one.task_id for one in (await project.tracker.list(text="old")).items]

    assert {TaskStatus.SUCCESS} == {one.status for one in records}
    assert {1} == {one.runs for one in records}
    minutes = Counter((one.task_name, f"{one.created_at:%H:%M}") for one in records)
    assert max(minutes.values()) <= 2, "one of a minute's end and one of the next's start"
    assert {"aiotrack:cleanup": 1, "aiotrack:mark_timed_out": 1} == {
        name: sum(one.result for one in records if one.task_name == name)
        for name in ("aiotrack:cleanup", "aiotrack:mark_timed_out")
    }
    assert (TaskStatus.FAILURE, True, []) == (hung.status, hung.presumed, left)
    assert [] == workers.trouble()


@pytest.mark.slow
async def test_a_worker_that_was_stopped_for_a_while_has_the_last_word(
    start_project: Callable[..., Any], postgres_url: str
) -> None:
    """Its run is presumed to have failed while it stands still; its success comes all the same."""
    async with start_project(postgres_url) as (project, workers):
        tracker = project.tracker
        main = workers.start(
            *("-m", "taskiq", "worker", f"{APP}:broker", "--log-level", "WARNING"),
            *("--workers", "1", "--wait-tasks-timeout", "5"),
        )
        task_id = (await project.broker.find_task("shop.talks").kiq(7, 20, 0.2)).task_id

        async def is_running() -> bool:
            return (await tracker.get(task_id)).status is TaskStatus.STARTED

        await until("it runs", is_running, 30)
        os.killpg(main.pid, signal.SIGSTOP)
        try:
            early = await tracker.mark_timed_out()
            judged = await tracker.mark_timed_out(timeout_minutes=0)
            presumed = await tracker.get(task_id)
        finally:
            os.killpg(main.pid, signal.SIGCONT)

        async def has_spoken() -> bool:
            return not (await tracker.get(task_id)).presumed

        await until("its own word", has_spoken, 30)
        found = await tracker.get(task_id)

    assert (0, 1) == (early, judged)
    assert (TaskStatus.FAILURE, True, "timeout") == (
        *(presumed.status, presumed.presumed, presumed.error_class),
    )
    assert (TaskStatus.SUCCESS, None, 1) == (found.status, found.error, found.runs)
