"""Real workers register, beat, are killed and rescued, block for long, and leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from aiotrack import Cause, TaskStatus, Worker, WorkerStatus
from tests.acceptance.conftest import Workers, forget
from tests.acceptance.crew import BEAT, QUEUE_VARIABLE, Crew
from tests.waits import until

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]

MINUTES = float(os.environ.get("AIOTRACK_LIVING_MINUTES", "60"))


class Site:
    """A project as its client, and its workers.

    Args:
        crew: The project.
        workers: Its processes.
    """

    def __init__(self, crew: Crew, workers: Workers) -> None:
        self.crew = crew
        self.tracker = crew.tracker
        self.workers = workers

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker of one process."""
        return self.workers.start(
            *("-m", "taskiq", "worker", "tests.acceptance.crew:broker", "--workers", "1"),
            *("--log-level", "WARNING", *options),
        )

    async def found(self, status: WorkerStatus, deadline: float = 20) -> Worker:
        """Wait for a worker with this status."""

        async def is_there() -> bool:
            return any(one.status is status for one in await self.tracker.workers())

        await until(f"a worker is {status}", is_there, deadline)
        return next(one for one in await self.tracker.workers() if one.status is status)

    async def under_way(self, task_id: str) -> None:
        """Wait until a task runs."""

        async def is_under_way() -> bool:
            return (await self.tracker.get(task_id)).status is TaskStatus.STARTED

        await until(f"{task_id} runs", is_under_way, 20)


@pytest.fixture
def site(database_url: str, redis_url: str, queue_name: str, tmp_path: Path) -> Callable[..., Any]:
    """A context manager: the project with this kind of broker."""

    @contextlib.asynccontextmanager
    async def site(kind: str, **more: str) -> AsyncIterator[Site]:
        environment = {
            **more,
            "AIOTRACK_DATABASE_URL": database_url,
            "ACCEPTANCE_REDIS_URL": redis_url,
            "ACCEPTANCE_BROKER": kind,
            QUEUE_VARIABLE: queue_name,
        }
        workers = Workers(environment, tmp_path / "workers.log")
        crew = Crew(database=database_url, redis=redis_url, queue=queue_name, kind=kind)
        await crew.broker.startup()
        try:
            yield Site(crew, workers)
        except BaseException:
            print(workers.told()[-6_000:])
            raise
        finally:
            await asyncio.to_thread(workers.stop)
            await crew.broker.shutdown()
            await forget(redis_url, queue_name)
        assert [] == workers.trouble()

    return site


async def test_a_worker_comes_and_goes(site: Callable[..., Any], queue_name: str) -> None:
    """It is seen as it starts, with all it tells, and its farewell as it ends."""
    async with site("stream") as here:
        main = here.worker("--max-async-tasks", "7")
        came = await here.found(WorkerStatus.ALIVE)
        task_id = (await here.crew.nap.kiq(1.5)).task_id
        await here.under_way(task_id)

        async def is_told() -> bool:
            return (await here.tracker.workers())[0].running == 1

        await until("the run is told", is_told, 3)
        busy = (await here.tracker.workers())[0]
        await here.tracker.wait(task_id, timeout=5)
        main.send_signal(signal.SIGTERM)
        await asyncio.to_thread(main.wait)
        ended_at = time.time()
        left = (await here.tracker.workers())[0]

    assert came.pid != os.getpid()
    assert (7, [queue_name]) == (came.concurrency, came.queues)
    assert {"crew.nap", "crew.block", "crew.again"} <= set(came.tasks)
    assert 1 / 7 == busy.load
    assert WorkerStatus.STOPPED == left.status
    assert left.stopped_at is not None
    assert left.stopped_at.timestamp() <= ended_at


async def test_a_killed_worker_is_lost_and_its_run_has_failed(site: Callable[..., Any]) -> None:
    """After three beats; another worker ends what it ran."""
    async with site("stream") as here:
        main = here.worker()
        await here.found(WorkerStatus.ALIVE)
        task_id = (await here.crew.nap.kiq(50)).task_id
        await here.under_way(task_id)
        here.worker()

        async def are_two() -> bool:
            return len(await here.tracker.workers()) == 2

        await until("two workers", are_two, 20)
        killed_at = time.monotonic()
        os.killpg(main.pid, signal.SIGKILL)
        lost = await here.found(WorkerStatus.LOST)
        seen = time.monotonic() - killed_at
        record = await here.tracker.wait(task_id, timeout=20)
        rescued = time.monotonic() - killed_at

    assert lost.id == record.worker
    assert ("FAILURE", True, "lost") == (record.status, record.presumed, record.error_class)
    assert BEAT < seen < 3 * BEAT + 1
    assert rescued < 3 * BEAT + 5


async def test_a_killed_worker_s_run_is_sent_again(site: Callable[..., Any]) -> None:
    """On a broker that loses it, if the task says so: the next worker runs it to its end."""
    async with site("list") as here:
        main = here.worker()
        await here.found(WorkerStatus.ALIVE)
        task_id = (await here.crew.again.kiq(2, note="twice")).task_id
        await here.under_way(task_id)
        os.killpg(main.pid, signal.SIGKILL)
        await asyncio.to_thread(main.wait)
        here.worker()

        async def is_success() -> bool:
            return (await here.tracker.get(task_id)).is_success

        await until("the second run succeeds", is_success, 30)
        record = await here.tracker.get(task_id)
        attempts = await here.tracker.attempts(task_id)

    assert ("twice", 1) == (record.result, record.attempt)
    assert [Cause.FIRST, Cause.REQUEUE] == [attempt.cause for attempt in attempts]
    assert [TaskStatus.FAILURE, TaskStatus.SUCCESS] == [attempt.status for attempt in attempts]
    assert "lost" == attempts[0].error_class


async def test_a_blocked_worker_is_not_lost(site: Callable[..., Any]) -> None:
    """A body that blocks the loop for ten beats ends as if nothing was."""
    async with site("stream") as here:
        here.worker()
        await here.found(WorkerStatus.ALIVE)
        here.worker()
        task_id = (await here.crew.block.kiq(10 * BEAT)).task_id
        end, seen = time.monotonic() + 12 * BEAT, set()
        while time.monotonic() < end:
            seen |= {one.status for one in await here.tracker.workers()}
            await asyncio.sleep(0.1)
        record = await here.tracker.wait(task_id, timeout=10)

    assert {WorkerStatus.ALIVE} == seen
    assert ("blocked", 1, False) == (record.result, record.runs, record.presumed)


async def test_a_paused_worker_s_late_word_wins(site: Callable[..., Any]) -> None:
    """SIGSTOP makes it lost; what it says when it goes on replaces the verdict."""
    async with site("list") as here:
        here.worker()
        first = await here.found(WorkerStatus.ALIVE)
        task_id = (await here.crew.nap.kiq(1)).task_id
        await here.under_way(task_id)
        os.kill(first.pid, signal.SIGSTOP)
        here.worker()
        presumed = await here.tracker.wait(task_id, timeout=30)
        os.kill(first.pid, signal.SIGCONT)

        async def is_success() -> bool:
            return (await here.tracker.get(task_id)).is_success

        await until("its own word is there", is_success, 10)

        async def is_back() -> bool:
            return {WorkerStatus.ALIVE} == {one.status for one in await here.tracker.workers()}

        await until("it is alive again", is_back, 10)

    assert (TaskStatus.FAILURE, True) == (presumed.status, presumed.presumed)


async def test_a_receiver_in_a_program_is_a_worker(
    database_url: str, redis_url: str, queue_name: str
) -> None:
    """`run_receiver_task` says nothing to middlewares: its first run makes it one."""
    from taskiq.api import run_receiver_task

    crew = Crew(database=database_url, redis=redis_url, queue=queue_name, kind="stream")
    await crew.broker.startup()
    before = await crew.tracker.workers()
    receiver = asyncio.ensure_future(run_receiver_task(crew.broker, max_async_tasks=9))
    task_id = (await crew.nap.kiq(0.5)).task_id
    await crew.tracker.wait(task_id, timeout=10)

    async def is_there() -> bool:
        return [9] == [one.concurrency for one in await crew.tracker.workers()]

    await until("it is a worker", is_there, 3)
    found = await crew.tracker.workers()
    receiver.cancel()
    await asyncio.wait({receiver})
    await crew.broker.shutdown()
    await forget(redis_url, queue_name)

    assert [] == before
    assert [(os.getpid(), WorkerStatus.ALIVE)] == [(one.pid, one.status) for one in found]


@pytest.mark.chaos
@pytest.mark.timeout(60 * MINUTES + 120)
async def test_nobody_is_lost_who_lives(site: Callable[..., Any]) -> None:
    """R31: an hour of three busy workers with the beats that are the default: no false alarm."""
    lost: list[str] = []
    end = time.monotonic() + 60 * MINUTES
    looks = sent = 0
    async with site("stream", ACCEPTANCE_BEAT="5") as here:
        for _ in range(3):
            here.worker("--max-async-tasks", "5")
        while time.monotonic() < end:
            for kind in (here.crew.nap, here.crew.nap, here.crew.block):
                await kind.kiq(random.uniform(0.1, 4.0))
                sent += 1
            await asyncio.sleep(2)
            found = await here.tracker.workers()
            lost += [one.id for one in found if one.status is WorkerStatus.LOST]
            looks += 1
        verdicts = (await here.tracker.count(error_class="lost")).value
        rescues = (await here.tracker.count(module="aiotrack")).value
    print(f"{MINUTES:g} minutes, {looks} looks, {sent} tasks: {len(lost)} false alarms")

    assert ([], 0, 0) == (lost, verdicts, rescues)
