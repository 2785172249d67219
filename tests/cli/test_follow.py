"""``aiotrack explain``, ``watch`` and ``sync``."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from taskiq import InMemoryBroker, SimpleRetryMiddleware
from typer.testing import CliRunner

from aiotrack import TaskStatus, Tracker, TrackerMiddleware, tracking
from aiotrack.cli.app import app
from tests.control.crew import ended, started, write

Run = Callable[..., Any]


@pytest.fixture
def run(database_url: str) -> Run:
    """Run a command on a database."""

    def run(*arguments: str) -> Any:
        environment = {"AIOTRACK_DATABASE_URL": database_url, "COLUMNS": "200", "NO_COLOR": "1"}
        return CliRunner().invoke(app, arguments, env=environment)

    return run


@pytest.fixture
def fill(database_url: str) -> Callable[..., None]:
    """Let something write with a tracker."""

    def fill(work: Callable[[Tracker], Any]) -> None:
        async def inside() -> None:
            async with Tracker(database_url) as tracker:
                await work(tracker)

        asyncio.run(inside())

    return fill


async def some(tracker: Tracker) -> None:
    """Record executions that ended in every way, and some that did not."""
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker), SimpleRetryMiddleware())
    tried = []

    @broker.task("shop.flaky", retry_on_error=True, max_retries=3)
    async def flaky() -> dict[str, int]:
        tried.append(1)
        if len(tried) == 1:
            raise ConnectionError("the bank is \x1b[31maway")
        return {"sum": 7}

    await broker.startup()
    with tracking(created_by="42"):
        await flaky.kicker().with_task_id("flaky").kiq()
    await tracker.wait("flaky", timeout=30)
    await tracker.register("stopped", "shop.stopped")
    await tracker.cancel("stopped", by="anna", reason="too dear")
    ago = datetime.now(UTC) - timedelta(minutes=3)
    await tracker.register(
        "waits", "shop.waits", created_at=ago, metadata={"depends_on": ["stopped"]}
    )
    await tracker.register("runs", "shop.runs", status="STARTED", started_at=ago, created_at=ago)
    await tracker.update("runs", metadata={"progress_percent": 40, "progress_message": "rows"})
    await tracker.register("skips", "shop.skips", metadata={"skipped_by": "runs"}, result={})
    await tracker.register("fails", "shop.fails")
    await tracker.update("fails", "FAILURE", error=TimeoutError("too long"))
    await broker.shutdown()


def test_executions_are_told_in_words(run: Run, fill: Callable[..., None]) -> None:
    """Who asked, what happened, and what is waited for, without what moves a cursor."""
    fill(some)
    told = {
        name: run("explain", name).stdout
        for name in ("flaky", "stopped", "waits", "runs", "skips", "fails")
    }

    assert "✓ shop.flaky is SUCCESS" in told["flaky"]
    assert "42 asked for it at" in told["flaky"]
    assert "Attempt 1" in told["flaky"]
    assert "failed after" in told["flaky"]
    assert "ConnectionError: the bank is \\x1b[31maway" in told["flaky"]
    assert "It was tried again." in told["flaky"]
    assert 'It gave {"sum": 7}.' in told["flaky"]
    assert "anna cancelled it: too dear" in told["stopped"]
    assert "It has waited for 3 min" in told["waits"]
    assert "It waits for stopped, which is REVOKED." in told["waits"]
    assert "No worker lives." in told["waits"]
    assert "has run for 3 min" in told["runs"]
    assert "It says: 40 % rows" in told["runs"]
    assert "It did nothing: runs did the same work." in told["skips"]
    assert "too long" in told["fails"]
    assert "transient: an error that may go away" in told["fails"]
    assert not any("\x1b" in text for text in told.values())
    data = json.loads(run("explain", "flaky", "--json").stdout)
    assert ("flaky", "SUCCESS") == (data["task_id"], data["status"])
    assert any("the bank" in line for line in data["story"])
    assert 4 == run("explain", "nobody").exit_code


async def redelivered(tracker: Tracker) -> None:
    """Record a run whose worker was killed, and one that did its work; a cancel came too late."""
    lost, done = (started(tracker, "x", worker) for worker in ("killed", "second"))
    done.run_id, done.started_at = "other", tracker.clock.now()
    end = ended(done, TaskStatus.SUCCESS, tracker.clock.now() + 1000)
    end.cancelled_by, end.cancel_reason = "ada", "wrong file"
    await write(tracker, lost, done, end)


def test_what_nobody_knows_is_told_so(run: Run, fill: Callable[..., None]) -> None:
    """A killed worker's run has no end, and what ended by itself was not cancelled."""
    fill(redelivered)
    told = run("explain", "x").stdout

    assert "It waited 1 min" in told
    assert "on killed; no end of it is known." in told
    assert "has run for" not in told
    assert "1 of its 2 runs were of a message that was delivered again." in told
    assert "ada asked to cancel it: wrong file" in told


def test_watch_ends_with_what_it_follows(run: Run, fill: Callable[..., None]) -> None:
    """Exit code 0 after a success, 1 after any other end; an id or filters, not both."""
    fill(some)
    codes = [run("watch", name).exit_code for name in ("flaky", "fails", "stopped", "nobody")]

    assert [0, 1, 1, 4] == codes
    assert "✗ FAILURE" in run("watch", "fails").stdout
    assert ["FAILURE"] == [json.loads(run("watch", "fails", "--json").stdout)["status"]]
    assert 2 == run("watch", "fails", "--module", "shop").exit_code


def test_watch_shows_changes_as_they_come(
    database_url: str, fill: Callable[..., None], tmp_path: Path
) -> None:
    """Of an execution that another process changes; each change is a line."""

    async def begin(tracker: Tracker) -> None:
        await tracker.register("x", "shop.x", status="STARTED")

    fill(begin)
    with subprocess.Popen(
        [sys.executable, "-m", "aiotrack", "watch", "x", "--json"],
        env={**os.environ, "AIOTRACK_DATABASE_URL": database_url},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline())]

        async def go_on(tracker: Tracker) -> None:
            await tracker.update("x", metadata={"progress_percent": 50})

        fill(go_on)
        seen.append(json.loads(process.stdout.readline()))

        async def end(tracker: Tracker) -> None:
            await tracker.update("x", "SUCCESS", result=1)

        fill(end)
        seen.append(json.loads(process.stdout.readline()))
        assert 0 == process.wait(20)

    assert ["STARTED", "STARTED", "SUCCESS"] == [one["status"] for one in seen]
    assert 50 == seen[1]["metadata"]["progress_percent"]


PROJECT = """
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend
from aiotrack import Tracker, TrackerMiddleware
broker = ListQueueBroker({redis!r}, queue_name={queue!r}).with_result_backend(
    RedisAsyncResultBackend({redis!r}, prefix_str={queue!r})
).with_middlewares(TrackerMiddleware(Tracker({database!r})))
"""


def test_sync_asks_the_result_backend(
    run: Run,
    fill: Callable[..., None],
    database_url: str,
    redis_url: str,
    queue_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An end that only the broker's backend knows; 1 while nobody knows one."""
    from taskiq import TaskiqResult
    from taskiq_redis import RedisAsyncResultBackend

    name = f"project_{queue_name.replace('-', '_')}"
    values = {"redis": redis_url, "queue": queue_name, "database": database_url}
    (tmp_path / f"{name}.py").write_text(PROJECT.format(**values))
    monkeypatch.syspath_prepend(tmp_path)

    async def begin(tracker: Tracker) -> None:
        for task_id in ("known", "unknown"):
            await tracker.register(task_id, "shop.x", status="STARTED")
        backend: Any = RedisAsyncResultBackend(redis_url, prefix_str=queue_name)
        result = TaskiqResult(is_err=False, return_value=7, execution_time=0.1)
        await backend.set_result("known", result)
        await backend.shutdown()

    fill(begin)
    found, missing = (run("sync", f"{name}:broker", one) for one in ("known", "unknown"))

    assert 0 == found.exit_code
    assert "✓ SUCCESS" in found.stdout
    assert 1 == missing.exit_code
    data = json.loads(run("sync", f"{name}:broker", "known", "--json").stdout)
    assert 7 == data["result"]
