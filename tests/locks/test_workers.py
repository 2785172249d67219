"""R11: `prevent_duplicate_task` in real workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.acceptance.conftest import Workers, forget
from tests.locks.guarded import QUEUE_VARIABLE, REDIS_VARIABLE, TIMEOUT_VARIABLE, make_broker
from tests.waits import until

SKIPPED = {"success": False, "status": "skipped", "reason": "task_already_running"}
LEASE = 3.0
"""Seconds: the decorator's timeout, and so its lease."""


@contextlib.asynccontextmanager
async def project(
    database: str, redis: str, queue: str, folder: Path, timeout: float
) -> AsyncIterator[tuple[Any, Any, Workers]]:
    """Give the client's broker, a client of Redis, and workers that are not started yet."""
    variables = {
        "AIOTRACK_DATABASE_URL": database,
        REDIS_VARIABLE: redis,
        QUEUE_VARIABLE: queue,
        TIMEOUT_VARIABLE: str(timeout),
    }
    workers = Workers(variables, folder / "workers.log")
    broker = make_broker(redis, queue, database, timeout)
    await broker.startup()
    try:
        async with Redis.from_url(redis) as client:
            yield broker, client, workers
    finally:
        await asyncio.to_thread(workers.stop)
        await broker.shutdown()
        await forget(redis, queue)
    assert [] == workers.trouble()


def start(workers: Workers, processes: int) -> Any:
    """Start `taskiq worker`."""
    return workers.start(
        *("-m", "taskiq", "worker", "tests.locks.guarded:broker", "--log-level", "WARNING"),
        *("--workers", str(processes), "--wait-tasks-timeout", "5", "--max-async-tasks", "100"),
    )


async def run_once(broker: Any, client: Any, queue: str, what: str, kicks: int) -> None:
    """Send the same work so often: it runs once, the others say that it does."""
    work = broker.find_task("guarded.work")
    sent = [await work.kiq(what, 3.0) for _ in range(kicks)]
    results = [(await one.wait_result(timeout=30)).return_value for one in sent]

    assert 1 == results.count(f"did {what}")
    assert kicks - 1 == results.count(SKIPPED)
    assert 1 == await client.llen(f"{queue}:bodies:{what}")


async def begun(client: Any, queue: str, what: str, times: int = 1) -> None:
    """Wait until its body runs."""

    async def runs() -> bool:
        return int(await client.llen(f"{queue}:bodies:{what}")) >= times

    await until(f"{what} runs", runs, 20)


async def free_again(broker: Any, client: Any, workers: Workers, queue: str) -> float:
    """Give the seconds from now until another worker may do what a killed one did."""
    killed_at = time.monotonic()
    work = broker.find_task("guarded.work")
    start(workers, 1)
    while await client.llen(f"{queue}:bodies:c") < 2:
        await work.kiq("c", 0.0)  # the first may go to a reader that is dead
        await asyncio.sleep(0.2)
    return time.monotonic() - killed_at


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_workers_do_it_once(
    postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """A hundred sends to four workers; a copy of a message; a worker that is killed inside."""
    async with project(postgres_url, redis_url, queue_name, tmp_path, LEASE) as it:
        broker, client, workers = it
        process = start(workers, 4)
        await run_once(broker, client, queue_name, "a", 100)

        work = broker.find_task("guarded.work")
        copies = [
            await work.kicker().with_task_id(f"{queue_name}-b").kiq("b", 2.5) for _ in range(2)
        ]
        result = await copies[0].wait_result(timeout=30)
        await asyncio.sleep(1)
        assert "did b" == (await copies[1].get_result()).return_value == result.return_value
        assert 1 == await client.llen(f"{queue_name}:bodies:b")

        await work.kiq("c", 60.0)
        await begun(client, queue_name, "c")
        os.killpg(process.pid, signal.SIGKILL)
        freed = await free_again(broker, client, workers, queue_name)
    assert freed <= LEASE + 8, "the lease, and what a worker takes to start here"


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_fifty_times_a_hundred_sends(
    postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """R11 in full, with the lease of the default."""
    async with project(postgres_url, redis_url, queue_name, tmp_path, 3600) as it:
        broker, client, workers = it
        process = start(workers, 4)
        for number in range(50):
            await run_once(broker, client, queue_name, f"a{number}", 100)
        print("50 x 100 sends to 4 workers: 50 bodies, 4,950 skips")

        work = broker.find_task("guarded.work")
        await work.kiq("c", 600.0)
        await begun(client, queue_name, "c")
        os.killpg(process.pid, signal.SIGKILL)
        freed = await free_again(broker, client, workers, queue_name)
        print(f"the work of a killed worker was free after {freed:.1f} s")
    assert freed <= 31.5
