"""Real workers are told to stop: in a second when it runs, for good when it waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from aiotrack import CancelOutcome, TaskStatus
from aiotrack.verdicts import presume
from tests.acceptance.app import Project
from tests.acceptance.cancels import IDLE, PLACE, add_long_tasks
from tests.acceptance.conftest import Workers
from tests.waits import until

APP = "tests.acceptance.cancels"


class Shop:
    """The project, its workers, and the bodies that began."""

    def __init__(self, project: Project, workers: Workers, begun: Path) -> None:
        self.project, self.workers, self.tracker = project, workers, project.tracker
        self._begun = begun

    def worker(self, processes: int = 2, *options: str) -> Any:
        """Start `taskiq worker`."""
        return self.workers.start(
            *("-m", "taskiq", "worker", f"{APP}:broker", "--log-level", "WARNING"),
            *("--workers", str(processes), "--wait-tasks-timeout", "5", *options),
        )

    def now(self) -> float:
        """Give the database's time, in seconds."""
        return self.tracker.clock.now() / 1e6

    def begun(self) -> list[str]:
        """Give the names of the bodies that began."""
        return self._begun.read_text().split() if self._begun.exists() else []

    async def send(self, count: int, task: str = "shop.long", **more: Any) -> dict[str, str]:
        """Send tasks, and give their ids by name."""
        return {
            name: await self.project.kiq(task, name, **more)
            for name in (f"{task}-{number}" for number in range(count))
        }

    async def until_begun(self, count: int) -> None:
        """Wait until so many bodies run."""

        async def have_begun() -> bool:
            return len(self.begun()) >= count

        await until(f"{count} bodies run", have_begun, 20)

    async def until_acknowledged(self) -> None:
        """Wait until the stream has nothing that a worker did not acknowledge."""
        async with Redis.from_url(self.project.broker.connection_pool_url) as redis:

            async def is_empty() -> bool:
                (group,) = await redis.xinfo_groups(self.project.queue)
                return group["pending"] == 0 and group["lag"] == 0

            await until("all is acknowledged", is_empty, 10)


@pytest.fixture(params=["redis", "alone"])
def start_shop(
    request: pytest.FixtureRequest,
    start_project: Callable[..., Any],
    redis_url: str,
    queue_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """A shop whose cancels travel through Redis, and one whose workers only poll."""
    begun = tmp_path / "begun"
    monkeypatch.setenv("AIOTRACK_NAMESPACE", queue_name)
    monkeypatch.setenv(PLACE, str(begun))
    if request.param == "redis":
        monkeypatch.setenv("AIOTRACK_REDIS_URL", redis_url)

    @contextlib.asynccontextmanager
    async def start_shop(database: str, **options: Any) -> AsyncIterator[Shop]:
        async with start_project(database, **options) as (project, workers):
            add_long_tasks(project.broker)
            project.broker.connection_pool_url = redis_url
            yield Shop(project, workers, begun)

    return start_shop


async def test_what_runs_and_what_waits(start_shop: Callable[..., Any], database_url: str) -> None:
    """Async bodies end within a second, sync ones when they look; what is prefetched never runs."""
    async with start_shop(database_url) as shop:
        shop.worker(1, "--max-async-tasks", "14")
        running = await shop.send(12)
        await shop.until_begun(12)
        deaf = await shop.project.kiq("shop.long_sync", "deaf", 3.0, looks=False)
        looks = await shop.project.kiq("shop.long_sync", "looks", 30.0, looks=True)
        await shop.until_begun(14)
        waiting = await shop.send(8)
        await asyncio.sleep(0.3)  # the worker holds them in its memory

        outcomes = [await shop.tracker.cancel(one) for one in waiting.values()]
        assert [CancelOutcome.REVOKED] * 8 == outcomes
        await asyncio.sleep(0.7)  # without Redis the worker looks twice a second
        assert CancelOutcome.NOT_INTERRUPTIBLE is await shop.tracker.cancel(deaf, reason="x")
        assert await shop.tracker.cancel(looks) in {  # on a slow machine it has looked by then
            *(CancelOutcome.NOT_INTERRUPTIBLE, CancelOutcome.REVOKED),
        }
        times = []
        for task_id in running.values():
            begun = time.monotonic()
            assert CancelOutcome.CANCELLING is await shop.tracker.cancel(
                task_id, reason="enough", by="ada"
            )
            found = await shop.tracker.wait(task_id, timeout=5)
            times.append(found.finished_at.timestamp() - shop.now() + time.monotonic() - begun)
            assert (TaskStatus.REVOKED, "enough", "ada") == (
                *(found.status, found.cancel_reason, found.cancelled_by),
            )
        print(f"cancelled within {max(times):.3f} s at most")
        ends = [(await shop.tracker.wait(one, timeout=10)) for one in (deaf, looks)]
        await shop.until_acknowledged()

        assert max(times) < 1, times
        assert 14 == len(shop.begun())
        assert [TaskStatus.SUCCESS, TaskStatus.REVOKED] == [one.status for one in ends]
        assert "x" == ends[0].cancel_reason
        for task_id in waiting.values():
            one = await shop.tracker.get(task_id)
            assert (TaskStatus.REVOKED, 0) == (one.status, one.runs)
        assert [] == shop.workers.trouble()


@pytest.mark.parametrize("kind", ["stream", "list"])
async def test_a_worker_that_starts_later_knows(
    start_shop: Callable[..., Any], postgres_url: str, kind: str
) -> None:
    """What was cancelled while no worker ran is refused, and its neighbours run."""
    async with start_shop(postgres_url, kind=kind) as shop:
        process = shop.worker(1)
        await shop.project.kiq("shop.long", "first", 0.0)
        await shop.until_begun(1)
        if kind == "stream":  # a stop between its end and that leaves it to nobody
            await shop.until_acknowledged()
        await asyncio.to_thread(shop.workers.stop)
        assert process.poll() is not None

        cancelled = await shop.send(20)
        kept = await shop.project.kiq("shop.long", "kept", 0.0)
        counted = await shop.tracker.cancel_many(status="PENDING", text="shop.long", limit=21)
        ids = [*cancelled.values(), kept]
        late = await shop.project.kiq("shop.long", "late", 0.0)
        shop.worker(2)
        found = await shop.tracker.wait(late, timeout=20)
        if kind == "stream":
            await shop.until_acknowledged()

        assert {CancelOutcome.REVOKED: 21} == counted
        assert TaskStatus.SUCCESS is found.status
        assert ["first", "late"] == shop.begun()
        for task_id in ids:
            one = await shop.tracker.get(task_id)
            assert (TaskStatus.REVOKED, 0, None) == (one.status, one.runs, one.started_at)
        assert [] == shop.workers.trouble()


async def test_what_waits_for_a_retry_is_dropped(
    start_shop: Callable[..., Any], database_url: str
) -> None:
    """The scheduler sends it all the same; no body begins."""
    async with start_shop(database_url, retry="scheduled") as shop:
        shop.worker(1)
        task_id = await shop.project.kiq("shop.long_retry", "once")

        async def waits() -> bool:
            return (await shop.tracker.get(task_id)).status is TaskStatus.RETRY

        await until("it waits for its retry", waits, 20)
        outcome = await shop.tracker.cancel(task_id, reason="no more")
        found = await shop.tracker.get(task_id)
        shop.workers.start(
            *("-m", "taskiq", "scheduler", f"{APP}:scheduler", "--log-level", "WARNING"),
            *("--update-interval", "1"),
        )
        await asyncio.sleep(4)
        await shop.until_acknowledged()

        assert CancelOutcome.REVOKED is outcome
        assert (TaskStatus.REVOKED, 2, "no more") == (
            *(found.status, found.attempt, found.cancel_reason),
        )
        assert ["once"] == shop.begun()
        assert TaskStatus.REVOKED is (await shop.tracker.get(task_id)).status
        assert 1 == len(await shop.tracker.attempts(task_id))
        assert [] == shop.workers.trouble()


async def test_what_a_killed_worker_left(
    start_shop: Callable[..., Any], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is delivered again, and refused; REVOKED as soon as the lost run is seen to be lost."""
    monkeypatch.setenv(IDLE, "1000")
    async with start_shop(postgres_url) as shop:
        process = shop.worker(1)
        ids = await shop.send(5)
        await shop.until_begun(5)
        await asyncio.sleep(0.3)  # their starts are told
        os.killpg(process.pid, signal.SIGKILL)
        outcomes = {await shop.tracker.cancel(one, reason="enough") for one in ids.values()}
        shop.worker(1)
        await asyncio.sleep(1.1)
        await shop.project.kiq("shop.long", "traffic", 0.0)  # then it looks for what others left
        await shop.until_acknowledged()
        tracker, known = shop.tracker, [*ids.values()]
        await tracker.core().repository.revise(
            known,
            lambda history: filter(
                None,
                [presume(history, now=tracker.clock.now(), error="lost", error_class="lost")],
            ),
        )

        assert {CancelOutcome.CANCELLING} == outcomes
        assert sorted([*ids, "traffic"]) == sorted(shop.begun())  # each body began once
        for one in known:
            found = await tracker.get(one)
            assert (TaskStatus.REVOKED, "enough", False) == (
                *(found.status, found.cancel_reason, found.presumed),
            )
        assert [] == shop.workers.trouble()
