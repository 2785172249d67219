"""`aiotrack serve` as a process of its own: what it opens, to whom, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiotrack import Tracker
from tests.acceptance.conftest import Workers, forget
from tests.acceptance.reporting import QUEUE_VARIABLE, TOKEN, URL_VARIABLE, Reporting
from tests.waits import until

SERVES = re.compile(r"^aiotrack serves (http://\S+)/api/v1 ", re.MULTILINE)
SECRET = "x" * 24


class Served:
    """Servers of a test, each with its output in a file."""

    def __init__(self, folder: Path, database: str) -> None:
        self._workers = Workers({"AIOTRACK_DATABASE_URL": database}, folder / "serve.log")

    def start(self, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Run `aiotrack serve`."""
        self._workers.environment |= environment
        return self._workers.start("-m", "aiotrack", "serve", *options)

    def address(self, process: subprocess.Popen[bytes], deadline: float = 20.0) -> str:
        """Wait for the line that says where the last one is."""
        end = time.monotonic() + deadline
        while not (found := SERVES.findall(self.told())):
            assert process.poll() is None, self.told()
            assert time.monotonic() < end, self.told()
            time.sleep(0.05)
        return str(found[-1])

    def told(self) -> str:
        """Give what they wrote."""
        return self._workers.told()

    def stop(self) -> None:
        """End all."""
        self._workers.stop()


@pytest.fixture
def served(tmp_path: Path, made_sqlite_url: str) -> Iterator[Served]:
    """Servers on a database of the test's own."""
    served = Served(tmp_path, made_sqlite_url)
    yield served
    served.stop()


def test_it_serves_and_stops(served: Served) -> None:
    """On a port that is free, behind a token; a stop is clean, and quick."""
    process = served.start("--port", "0", AIOTRACK_API_TOKENS=f"ci:read:{SECRET}")
    url = served.address(process)
    headers = {"authorization": f"Bearer {SECRET}"}

    assert 401 == httpx.get(f"{url}/api/v1/workers/").status_code
    assert {"items": []} == httpx.get(f"{url}/api/v1/workers/", headers=headers).json()
    assert "3.1" in httpx.get(f"{url}/api/v1/openapi.json").json()["openapi"]
    assert 403 == httpx.post(f"{url}/api/tasks/a/queued", json={}, headers=headers).status_code

    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(10)
    assert SECRET not in served.told()
    assert "Traceback" not in served.told()


async def test_a_stop_ends_streams(served: Served, made_sqlite_url: str) -> None:
    """Who follows something hears of the end of it; the server does not wait for him."""
    async with Tracker(made_sqlite_url) as tracker:
        await tracker.register("a1", "shop.pay", status="started")
    process = served.start("--port", "0")
    url = await asyncio.to_thread(served.address, process)
    async with httpx.AsyncClient(timeout=30) as client, asyncio.timeout(30):
        path = f"{url}/api/v1/executions/by-task-id/a1/events/"
        async with client.stream("GET", path) as events:
            lines = events.aiter_lines()
            while "STARTED" not in await anext(lines):
                pass
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(httpx.TransportError):
                async for _ in lines:
                    pass
        assert 0 == await asyncio.to_thread(process.wait, 10)
    assert "Traceback" not in served.told()


def test_only_its_own_names(served: Served) -> None:
    """Without a token, a name that was made to lead to this machine gets nothing."""
    process = served.start("--port", "0", "--host", "localhost")
    url = served.address(process)
    port = url.rpartition(":")[2]
    for host, status in (
        (f"localhost:{port}", 200),
        (f"127.0.0.1:{port}", 200),
        ("LOCALHOST", 200),
        (f"[::1]:{port}", 200),
        (f"evil.example:{port}", 403),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ):
        answer = httpx.get(f"{url}/api/v1/workers/", headers={"host": host})
        assert status == answer.status_code, host


async def test_a_project_that_reports_with_taskiqs_own_middleware(
    served: Served, made_sqlite_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """Only its URL is changed: what succeeds, fails and is tried again is recorded as it went."""
    process = served.start("--port", "0", "--token", TOKEN)
    url = served.address(process)
    environment = {
        "ACCEPTANCE_REDIS_URL": redis_url,
        QUEUE_VARIABLE: queue_name,
        URL_VARIABLE: url,
    }
    workers = Workers(environment, tmp_path / "workers.log")
    project = Reporting(redis=redis_url, queue=queue_name, admin=url)
    await project.broker.startup()
    workers.start(
        *("-m", "taskiq", "worker", "tests.acceptance.reporting:broker", "--workers", "2"),
    )
    try:
        async with Tracker(made_sqlite_url) as tracker:
            sent = [
                *[await project.pay.kiq(number) for number in range(20)],
                await project.refuse.kiq(),
                *[await project.again.kiq(number) for number in (2, 3, 4)],
            ]

            async def are_over() -> bool:
                found = (await tracker.list(limit=100)).items
                return len(found) == len(sent) and all(one.is_completed for one in found)

            await until("all are over", are_over, 40)
            await check(tracker, [task.task_id for task in sent])
    finally:
        await asyncio.to_thread(workers.stop)
        await project.broker.shutdown()
        await project.redis.aclose()
        await forget(redis_url, queue_name)
    assert "Failed to report" not in workers.told()
    assert "Traceback" not in served.told()


async def check(tracker: Tracker, ids: list[str]) -> None:
    """Compare the records with what the tasks did."""

    async def shown(task_id: str) -> Any:
        one = await tracker.get(task_id)
        runs = [(run.attempt, str(run.status)) for run in await tracker.attempts(task_id)]
        assert one.wait is not None
        assert (one.worker, one.duplicates) == ("shop", 0)
        return one.task_name, str(one.status), one.attempt, one.result, one.error, runs

    for number, task_id in enumerate(ids[:20]):
        success = [(1, "SUCCESS")]
        expected = ("shop.pay", "SUCCESS", 1, {"paid": number}, None, success)
        assert expected == await shown(task_id)
    refused, twice, thrice, never = ids[20:]
    failed = ("shop.refuse", "FAILURE", 1, None, "ValueError('no money')", [(1, "FAILURE")])
    assert failed == await shown(refused)
    tries = [(1, "RETRY"), (2, "SUCCESS")]
    assert ("shop.again", "SUCCESS", 2, 2, None, tries) == await shown(twice)
    tries = [(1, "RETRY"), (2, "RETRY"), (3, "SUCCESS")]
    assert ("shop.again", "SUCCESS", 3, 3, None, tries) == await shown(thrice)
    tries[2] = (3, "FAILURE")
    assert ("shop.again", "FAILURE", 3, None, "OSError('try 3')", tries) == await shown(never)
