"""Logs from real workers: never mixed, live in another process, and there after an outage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from aiotrack import StoreUnavailable
from aiotrack.testing.servers import PostgresServer
from tests.waits import until

COUNT, LINES = 200, 10


async def all_ended(project: Any, count: int) -> None:
    """Wait until so many executions succeeded."""

    async def is_over() -> bool:
        with contextlib.suppress(StoreUnavailable):
            return (await project.tracker.stats()).success == count
        return False

    await until(f"{count} successes", is_over, 30)


async def test_tasks_of_a_worker_never_mix_their_lines(
    start_project: Callable[..., Any], database_url: str
) -> None:
    """Two hundred at once, in the loop and in threads, with the worker's own logging set-up."""
    async with start_project(database_url) as (project, workers):
        workers.worker(1, "--log-level", "INFO", "--max-async-tasks", "200")
        ids = []
        for name in range(COUNT):
            if name % 5 == 0:
                ids.append(await project.kiq("shop.talks_in_a_thread", name, LINES))
            else:
                ids.append(await project.kiq("shop.talks", name, LINES, 0.02))
        await all_ended(project, COUNT)
        tails = [[line async for line in project.tracker.tail(ids[-1])]]
        found = [(await project.tracker.logs(task_id)).items for task_id in ids]

    expected = [[f"{name}: {number}" for number in range(LINES)] for name in range(COUNT)]
    assert expected == [[line.message for line in lines] for lines in found]
    assert {("INFO", "shop", 1)} == {
        (line.level, line.logger, line.attempt) for lines in found for line in lines
    }
    assert found[-1] == tails[0]
    assert [] == workers.trouble()


async def test_a_tail_follows_a_worker(
    start_project: Callable[..., Any], database_url: str
) -> None:
    """Another process sees lines while the task runs, and ends soon after it."""
    async with start_project(database_url) as (project, workers):
        workers.worker(1, "--log-level", "INFO")
        task_id = await project.kiq("shop.talks", 7, 40, 0.1)
        running, told = 0, []
        async for line in project.tracker.tail(task_id):
            told.append(line.message)
            running += not (await project.tracker.get(task_id)).is_completed
        end = (await project.tracker.get(task_id)).finished_at
        late = project.tracker.clock.now() / 1e6 - end.timestamp()

    assert [f"7: {number}" for number in range(40)] == told
    assert running > 5
    assert late < 4


@pytest.mark.timeout(60)
async def test_lines_of_an_outage_are_there_afterwards(
    start_project: Callable[..., Any], own_postgres: PostgresServer
) -> None:
    """Tasks go on; their lines wait, and come; the worker says so once, not once a line."""
    async with start_project(own_postgres.url) as (project, workers):
        workers.worker(1, "--log-level", "INFO")
        first = await project.kiq("shop.talks", 0, 2)
        await all_ended(project, 1)
        ids = [await project.kiq("shop.talks", name, 60, 0.05) for name in range(1, 5)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_postgres.kill)
        await asyncio.sleep(3)
        await asyncio.to_thread(own_postgres.start)
        await all_ended(project, 5)

        async def all_there() -> bool:
            pages = [await project.tracker.logs(task_id) for task_id in ids]
            return [60] * 4 == [len(page.items) for page in pages]

        await until("every line", all_there, 15)
        found = [(await project.tracker.logs(task_id)).items for task_id in ids]
        told = workers.told()

    assert [[f"{name}: {n}" for n in range(60)] for name in range(1, 5)] == [
        [line.message for line in lines] for lines in found
    ]
    assert first not in ids
    assert 1 == told.count("task logs are not being written for now")
    assert 1 == told.count("task logs are written again; 0 lines were lost")
