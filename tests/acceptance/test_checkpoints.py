"""A worker is killed in the middle of long work: the next one goes on where it stood."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from aiotrack import Cause, TaskStatus
from tests.acceptance.conftest import Workers, forget
from tests.acceptance.resumes import IDLE, QUEUE_VARIABLE, STEPS, Resumes
from tests.waits import until


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_redelivered_run_goes_on_from_the_checkpoint(
    database_url: str, redis_url: str, queue_name: str, tmp_path: Path, kind: str
) -> None:
    """SIGKILL after some steps: no step that was stored is done again, none is left out."""
    steps = tmp_path / "steps"
    environment = {
        "AIOTRACK_DATABASE_URL": database_url,
        "ACCEPTANCE_REDIS_URL": redis_url,
        "ACCEPTANCE_STEPS": str(steps),
        QUEUE_VARIABLE: queue_name,
    }
    workers = Workers(environment, tmp_path / "workers.log")
    project = Resumes(database=database_url, redis=redis_url, queue=queue_name)
    command = ("-m", "taskiq", "worker", "tests.acceptance.resumes:broker", "--workers", "1")
    tracker = project.tracker
    await project.broker.startup()
    try:
        task_id = (await project.tasks[kind].kiq()).task_id
        main = workers.start(*command)

        async def is_under_way() -> bool:
            return (await tracker.last_checkpoint(task_id=task_id) or 0) >= 3

        await until("three steps are done", is_under_way, 20)
        os.killpg(main.pid, signal.SIGKILL)
        await asyncio.to_thread(main.wait)
        stood = await tracker.last_checkpoint(task_id=task_id)
        workers.start(*command)

        async def is_done() -> bool:
            await project.ping.kiq()  # the stream looks for idle messages when new ones come
            return (await tracker.get(task_id)).is_completed

        await until("the second run is done", is_done, IDLE + 25)
        record = await tracker.get(task_id)
        attempts = await tracker.attempts(task_id)
        done = [int(step) for step in await project.redis.lrange(f"{queue_name}-steps", 0, -1)]
        if kind == "sync":
            done = [int(line) for line in steps.read_text().split()]
    finally:
        await asyncio.to_thread(workers.stop)
        await project.broker.shutdown()
        await project.redis.aclose()
        await forget(redis_url, queue_name)

    assert 3 <= stood < STEPS
    assert (TaskStatus.SUCCESS, f"from {stood}") == (record.status, record.result)
    assert [Cause.FIRST, Cause.REDELIVERY] == [one.cause for one in attempts]
    in_the_air = done[: len(done) - (STEPS - stood)]
    assert [*range(stood), *in_the_air[stood:], *range(stood, STEPS)] == done
    assert in_the_air[stood:] in ([], [stood]), "only the step that was being done is done again"
