"""A worker without a tracker: what its results tell fills the records of its sender."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiotrack import Execution, TaskStatus, Tracker, TrackerMiddleware
from tests.acceptance.conftest import Workers, forget
from tests.acceptance.untracked import QUEUE_VARIABLE, make
from tests.waits import until


@pytest.mark.timeout(60)
async def test_a_sender_syncs_what_untracked_workers_did(
    postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """Value, error, attempt and time limit, as the real worker stored them in Redis."""
    workers = Workers(
        {"ACCEPTANCE_REDIS_URL": redis_url, QUEUE_VARIABLE: queue_name}, tmp_path / "workers.log"
    )
    tracker = Tracker(postgres_url)
    broker = make(redis_url, queue_name)
    broker.add_middlewares(TrackerMiddleware(tracker))
    names = ("good", "bad", "slow")
    found: dict[str, Execution] = {}
    await broker.startup()
    try:
        ids = {}
        for name in names:
            task = broker.find_task(f"untracked.{name}")
            assert task is not None
            ids[name] = (await task.kiq(7)).task_id
        before = [(await tracker.sync(one)).status for one in ids.values()]
        workers.start(
            "-m", "taskiq", "worker", "tests.acceptance.untracked:broker", "--workers", "1"
        )

        async def are_done() -> bool:
            for name, task_id in ids.items():
                found[name] = await tracker.sync(task_id)
            return all(one.is_completed for one in found.values())

        await until("all have results", are_done, 30)
    finally:
        await asyncio.to_thread(workers.stop)
        await broker.shutdown()
        await forget(redis_url, queue_name)

    good, bad, slow = (found[name] for name in names)

    assert [TaskStatus.PENDING] * 3 == before
    assert (TaskStatus.SUCCESS, {"number": 7}, 1) == (good.status, good.result, good.attempt)
    assert (TaskStatus.FAILURE, "no 7", "ValueError", 3) == (
        *(bad.status, bad.error, bad.error_type, bad.attempt),
    )
    assert (TaskStatus.FAILURE, "timeout") == (slow.status, slow.error_class)
