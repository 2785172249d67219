"""R28, the long form: every poison in every way through a real worker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from aiotrack import TaskStatus
from tests.acceptance.conftest import Workers, forget
from tests.acceptance.venom import QUEUE_VARIABLE, WAYS, Venom
from tests.unit.poison import POISON
from tests.waits import until

ROW = 256 * 1024
"""Bytes of an execution with its attempts, as text."""


async def rows(url: str) -> dict[str, int]:
    """Give the bytes of each execution by task_id, its attempts included."""
    engine = create_async_engine(url)
    found: dict[str, int] = {}
    async with engine.connect() as connection:
        for table in ("aiotrack_executions", "aiotrack_attempts"):
            for row in (await connection.execute(text(f"SELECT * FROM {table}"))).mappings():
                size = sum(len(str(value).encode()) for value in row.values() if value is not None)
                found[row["task_id"]] = found.get(row["task_id"], 0) + size
    await engine.dispose()
    return found


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_every_poison_is_recorded_by_a_real_worker(
    database_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """R28: as argument, result and exception: final, whole beside its neighbours, readable."""
    environment = {
        "AIOTRACK_DATABASE_URL": database_url,
        "ACCEPTANCE_REDIS_URL": redis_url,
        QUEUE_VARIABLE: queue_name,
    }
    project = Venom(database=database_url, redis=redis_url, queue=queue_name)
    workers = Workers(environment, tmp_path / "workers.log")
    app = ("-m", "taskiq", "worker", "tests.acceptance.venom:broker", "--workers", "1")
    await project.broker.startup()
    try:
        workers.start(*app, "--log-level", "CRITICAL", "--max-async-tasks", "20")
        sent = {}
        for name in POISON:
            for way in WAYS:
                sent[(await project.tasks[way].kiq(name)).task_id] = (name, way)

        async def is_over() -> bool:
            stats = await project.tracker.stats(task_name=[f"venom.{way}" for way in WAYS])
            return stats.success + stats.failure >= len(sent)

        await until("all are final", is_over, 600)
        wrong = await faults(project, sent)
        sizes = await rows(database_url)
    finally:
        await asyncio.to_thread(workers.stop)
        await project.broker.shutdown()
        await forget(redis_url, queue_name)
    print(f"{len(sent)} tasks, the largest rows of {sorted(sizes.values())[-3:]} bytes")

    assert 3 * 120 <= len(sent)
    assert [] == wrong[:10]
    assert [] == [size for size in sizes.values() if size > ROW]


async def faults(project: Venom, sent: dict[str, tuple[str, str]]) -> list[Any]:
    """Give what is wrong with the records of what was sent."""
    wrong: list[Any] = []
    for task_id, (name, way) in sent.items():
        record = await project.tracker.get(task_id)
        attempts = await project.tracker.attempts(task_id)
        expected = TaskStatus.FAILURE if way == "error" else TaskStatus.SUCCESS
        if (record.status, record.args, len(attempts)) != (expected, [name], 1):
            wrong.append((name, way, record.status, record.error, record.args, len(attempts)))
        if "record_error" in record.metadata:
            wrong.append((name, way, record.metadata))
    inner = (await project.tracker.stats(task_name="venom.inner")).success
    if inner != len(POISON):
        wrong.append(f"{inner} arguments of {len(POISON)} are recorded")
    return wrong
