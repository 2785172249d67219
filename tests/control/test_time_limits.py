"""Time limits: the run ends, the record says so, and what the body held is free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from taskiq import SimpleRetryMiddleware

from aiotrack import (
    TaskStatus,
    Tracker,
    current_execution,
    is_task_locked,
    prevent_duplicate_task,
    task_lock,
)
from tests.integration.bench import bench


@pytest.fixture
async def locking(database_url: str, redis_url: str) -> AsyncIterator[Tracker]:
    """A started tracker with locks, on each database."""
    async with Tracker(database_url, redis=redis_url) as tracker:
        yield tracker


async def test_a_run_over_its_limit_is_a_failure_that_says_so(tracker: Tracker) -> None:
    """With the limit that it had; on both databases."""
    async with bench(tracker) as b:

        @b.task("shop.slow", timeout=0.05)
        async def slow() -> None:
            await asyncio.sleep(60)

        record = await b.run(slow)
        longer = await b.run(slow.kicker().with_labels(timeout="0.1"))

    assert (TaskStatus.FAILURE, "timeout", 0.05) == (
        *(record.status, record.error_class, record.time_limit),
    )
    assert "exceeded its time limit of 0.05 s" == record.error
    assert (0.1, "exceeded its time limit of 0.1 s") == (longer.time_limit, longer.error)
    assert record.duration is not None
    assert 0.04 < record.duration < 5


async def test_the_lock_of_a_body_out_of_time_is_free(locking: Tracker, queue_name: str) -> None:
    """At once, not with its lease."""
    async with bench(locking) as b:

        @b.task("shop.slow", timeout=0.1)
        async def slow() -> None:
            async with task_lock(queue_name, ttl=60):
                await asyncio.sleep(60)

        record = await b.run(slow)
        is_held = await is_task_locked(queue_name)

    assert "timeout" == record.error_class
    assert not is_held


async def test_work_whose_guard_ran_out_of_time_may_begin_anew(
    locking: Tracker, queue_name: str
) -> None:
    """Another run of the same work is not skipped, and a retry does it."""
    async with bench(locking, after=[SimpleRetryMiddleware()]) as b:

        @b.task("shop.import", retry_on_error=True)
        @prevent_duplicate_task(queue_name)
        async def load(pauses: list[float]) -> str:
            run = current_execution()
            assert run is not None
            await asyncio.sleep(pauses[run.attempt - 1])
            return "done"

        retried = await b.run(load.kicker().with_labels(timeout=3), [60, 0])  # the retry has 3 s
        given_up = await b.run(load.kicker().with_labels(timeout=0.1), [60, 60, 60])
        after = await b.run(load, [0])
        attempts = await b.attempts(retried)

    assert (TaskStatus.SUCCESS, "done") == (retried.status, retried.result)
    assert ["timeout", None] == [one.error_class for one in attempts]
    assert (TaskStatus.FAILURE, "timeout", 3) == (
        *(given_up.status, given_up.error_class, given_up.runs),
    )
    assert (TaskStatus.SUCCESS, "done") == (after.status, after.result)


async def test_the_guard_of_a_thread_is_held_as_long_as_it_works(
    locking: Tracker, queue_name: str
) -> None:
    """TaskIQ gives up waiting, the thread runs on: the same work must not begin beside it."""
    go = threading.Event()
    async with bench(locking) as b:

        @b.task("shop.import")
        @prevent_duplicate_task(queue_name)
        def load() -> str:
            go.wait(10)
            return "done"

        late = await b.run(load.kicker().with_labels(timeout=0.3))
        while_it_works = await b.run(load)
        go.set()
        for _ in range(100):
            if not await is_task_locked(queue_name):
                break
            await asyncio.sleep(0.02)
        afterwards = await b.run(load)

    assert "timeout" == late.error_class
    assert late.task_id == while_it_works.metadata["skipped_by"]
    assert (TaskStatus.SUCCESS, "done") == (afterwards.status, afterwards.result)
    assert TaskStatus.FAILURE is (await locking.get(late.task_id)).status


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("limit", ["soon", "", "1e999", "nan", True, "None", "-1"])
async def test_a_limit_that_is_none_does_not_harm_the_record(tracker: Tracker, limit: Any) -> None:
    """Whatever TaskIQ makes of it, the record says how it ended, and knows no limit."""
    async with bench(tracker) as b:

        @b.task("shop.work")
        async def work() -> str:
            await asyncio.sleep(0)
            return "done"

        record = await b.run(work.kicker().with_labels(timeout=limit))
        after = await b.run(work)

    assert record.is_completed
    assert record.time_limit is None
    assert (record.status is TaskStatus.SUCCESS) == (record.result == "done")
    assert TaskStatus.SUCCESS is after.status
