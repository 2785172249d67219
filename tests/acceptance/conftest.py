"""Real workers: `taskiq worker` and `taskiq scheduler` as processes of one test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis

from tests.acceptance.app import QUEUE_VARIABLE, Project

ROOT = Path(__file__).parents[2]
APP = "tests.acceptance.app"
SHOWN = 6_000
"""Characters of a process' output in a failure."""

TROUBLE = re.compile(
    r"database is locked|\[aiotrack[\w.-]*\]\[(?:ERROR|CRITICAL)|\[asyncio\]\[ERROR"
    r"|ResourceWarning|never awaited|never retrieved"
)
"""What must not stand in the output of a worker."""


class Workers:
    """Processes of one project, their output in one file."""

    def __init__(self, environment: dict[str, str], output: Path) -> None:
        self.environment = {**os.environ, **environment}
        # Workers are children of TaskIQ's, which end without a word: measured, they would only be
        # slower. All of this runs in other tests' own process, too.
        self.environment.pop("COVERAGE_PROCESS_CONFIG", None)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.output = output

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Run Python with *command*; stopped with the others."""
        with self.output.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def worker(self, processes: int = 2, *options: str) -> None:
        """Start `taskiq worker` with so many processes."""
        self.start(
            *("-m", "taskiq", "worker", f"{APP}:broker", "--log-level", "WARNING"),
            *("--workers", str(processes), "--wait-tasks-timeout", "5", *options),
        )

    def scheduler(self) -> None:
        """Start `taskiq scheduler` that looks at its sources every second."""
        self.start(
            *("-m", "taskiq", "scheduler", f"{APP}:scheduler", "--log-level", "WARNING"),
            *("--update-interval", "1"),
        )

    def stop(self) -> None:
        """Ask all to end, the last first; kill what stays."""
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 15
        for process in self._processes:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                children = psutil.Process(process.pid).children(recursive=True)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                psutil.wait_procs(children, 15)  # until then a message may be delivered to them
        self._processes.clear()

    def told(self) -> str:
        """Give all that the processes wrote."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def trouble(self) -> list[str]:
        """Give the lines that must not be there."""
        return [line for line in self.told().splitlines() if TROUBLE.search(line)]


@pytest.fixture
def start_project(
    redis_url: str, queue_name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Any]:
    """A context manager: the project as its client, and its workers, not yet started."""

    @contextlib.asynccontextmanager
    async def start_project(
        database: str, *, kind: str = "stream", retry: str = "none", place: str = "first"
    ) -> AsyncIterator[tuple[Project, Workers]]:
        environment = {
            "AIOTRACK_DATABASE_URL": database,
            "ACCEPTANCE_REDIS_URL": redis_url,
            QUEUE_VARIABLE: queue_name,
            "ACCEPTANCE_BROKER": kind,
            "ACCEPTANCE_RETRY": retry,
            "ACCEPTANCE_PLACE": place,
        }
        workers = Workers(environment, tmp_path / "workers.log")
        project = Project(
            database=database,
            redis=redis_url,
            queue=queue_name,
            kind=kind,
            retry=retry,
            place=place,
        )
        await project.broker.startup()
        try:
            yield project, workers
        finally:
            await asyncio.to_thread(workers.stop)
            await project.broker.shutdown()
            await project.source.shutdown()
            await project.source._connection_pool.disconnect()
            await forget(redis_url, queue_name)
            request.node.add_report_section("call", "workers", workers.told()[-SHOWN:])

    return start_project


Open = Callable[..., contextlib.AbstractAsyncContextManager[tuple[Any, Workers]]]


@pytest.fixture
def open_project(
    redis_url: str, queue_name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Open:
    """A context manager: a project as its client, and its workers, not yet started.

    It takes the project's class, its database, and what more its workers have as environment.
    """

    @contextlib.asynccontextmanager
    async def open_project(
        make: Callable[..., Any], database: str, redis: str = redis_url, **more: str
    ) -> AsyncIterator[tuple[Any, Workers]]:
        environment = {
            "AIOTRACK_DATABASE_URL": database,
            "AIOTRACK_JOURNAL_DIR": str(tmp_path / "journals"),
            "ACCEPTANCE_REDIS_URL": redis,
            QUEUE_VARIABLE: queue_name,
            **more,
        }
        workers = Workers(environment, tmp_path / "workers.log")
        project = make(database=database, redis=redis, queue=queue_name)
        await project.broker.startup()
        try:
            yield project, workers
        finally:
            await asyncio.to_thread(workers.stop)
            await project.broker.shutdown()
            await project.redis.aclose()
            await forget(redis, queue_name)
            request.node.add_report_section("call", "workers", workers.told()[-SHOWN:])

    return open_project


async def forget(redis_url: str, queue_name: str) -> None:
    """Delete the keys of a test."""
    async with Redis.from_url(redis_url) as redis:
        keys = [key async for key in redis.scan_iter(f"*{queue_name}*")]
        if keys:
            await redis.delete(*keys)
