"""``aiotrack locks`` shows who holds what and takes it away; ``show`` says what a run holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aiotrack import LockLost, Tracker
from aiotrack.cli.app import app

Run = Callable[..., Any]


@pytest.fixture
async def tracker(sqlite_url: str, redis_url: str, queue_name: str) -> AsyncIterator[Tracker]:
    """Who holds locks while the program is asked."""
    async with Tracker(sqlite_url, redis=redis_url, settings={"namespace": queue_name}) as tracker:
        yield tracker


@pytest.fixture
def run(sqlite_url: str, redis_url: str, queue_name: str) -> Run:
    """Run a command."""

    async def run(*arguments: str, redis: str = redis_url) -> Any:
        environment = {
            "AIOTRACK_DATABASE_URL": sqlite_url,
            "AIOTRACK_REDIS_URL": redis,
            "AIOTRACK_NAMESPACE": queue_name,
            "COLUMNS": "250",
            "NO_COLOR": "1",
        }
        return await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)

    return run


async def test_who_holds_what(tracker: Tracker, run: Run) -> None:
    """As a table, as JSON, of one execution; and beside its record."""
    assert "no lock is held" in (await run("locks")).stdout
    async with (
        tracker.track("shop.rows", task_id="7") as one,
        tracker.lock("import", key=("\x1b[2J", 1)) as lock,
        tracker.track("shop.other"),
        tracker.lock("other"),
    ):
        await tracker.flush()
        table = (await run("locks")).stdout
        items = json.loads((await run("locks", "--json")).stdout)["items"]
        of_one = json.loads((await run("locks", "--json", "--task-id", "7")).stdout)["items"]
        shown = (await run("show", "7")).stdout
        told = json.loads((await run("show", "7", "--json")).stdout)["locks"]

    assert "\x1b" not in table
    assert lock.name in table
    assert str(tracker.worker_id) in table
    assert [lock.name, "other"] == [item["name"] for item in items]
    assert [lock.name] == [item["name"] for item in of_one]
    assert f"holds lock  {lock.name}" in shown
    assert [(lock.name, lock.fence, one.task_id)] == [
        (item["name"], item["fence"], item["task_id"]) for item in told
    ]


async def test_a_lock_is_taken_away(tracker: Tracker, run: Run) -> None:
    """With its fence only: 1 when somebody else holds it by now."""
    lock = tracker.lock("x", key=1)
    held = asyncio.Event()

    async def hold() -> None:
        async with lock:
            held.set()
            await asyncio.sleep(30)

    holding = asyncio.create_task(hold())
    await held.wait()
    wrong = await run("locks", "release", lock.name, "--fence", str(lock.fence - 1))
    right = await run("locks", "release", lock.name, "--fence", str(lock.fence))
    with pytest.raises(LockLost, match="somebody took it away"):
        await holding

    assert (1, 0) == (wrong.exit_code, right.exit_code)
    assert "is not held with fence" in wrong.stdout
    assert f"{lock.name} is free" in right.stdout
    assert 2 == (await run("locks", "release", "x")).exit_code


@pytest.mark.parametrize("has_database", [True, False])
async def test_who_took_a_lock_away_is_in_the_audit(
    tracker: Tracker, run: Run, tmp_path: Path, has_database: bool
) -> None:
    """As through the REST API; where there is no database the lock is free, and a warning told."""
    lock = tracker.lock("x", key=1, ttl=30, on_lost="flag")
    elsewhere = () if has_database else ("--database", f"sqlite+aiosqlite:///{tmp_path}/no.db")
    with pytest.raises(LockLost):
        async with lock:
            release = ("locks", "release", lock.name, "--by", "ada", "--reason", "it hangs")
            wrong = await run(*release, "--fence", str(lock.fence - 1), *elsewhere)
            right = await run(*release, "--fence", str(lock.fence), *elsewhere)
    rows = (await tracker.audit.list()).items

    assert (1, 0) == (wrong.exit_code, right.exit_code), right.output
    assert "" == wrong.stderr
    if has_database:
        (row,) = rows
        assert ("lock.release", f"lock:{lock.name}", "ada") == (row.action, row.target, row.actor)
        assert ("it hangs", {"fence": lock.fence}) == (row.reason, row.before)
        assert "" == right.stderr
    else:
        assert [] == rows
        assert "the audit does not know of it: there is no file" in right.stderr


async def test_without_redis(tracker: Tracker, run: Run) -> None:
    """The way is told; an execution is shown all the same."""
    async with tracker.track("shop.rows", task_id="7"):
        pass
    none = await run("locks", redis="")
    away = await run("locks", redis="redis://127.0.0.1:1")
    shown = await run("show", "7", redis="redis://127.0.0.1:1")

    assert 2 == none.exit_code
    assert "AIOTRACK_REDIS_URL" in none.stderr
    assert 3 == away.exit_code
    assert 0 == shown.exit_code
    assert "is Redis running" in shown.stderr
