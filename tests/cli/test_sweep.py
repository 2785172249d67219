"""``aiotrack sweep`` sweeps now; ``aiotrack config`` shows and changes what is set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from aiotrack import Tracker
from aiotrack.cli.app import app

Run = Callable[..., Any]


@pytest.fixture
def run(database_url: str) -> Run:
    """Run a command."""

    async def run(*arguments: str) -> Any:
        environment = {
            "AIOTRACK_DATABASE_URL": database_url,
            "AIOTRACK_TIMEOUT_MINUTES": "15",
            "COLUMNS": "250",
            "NO_COLOR": "1",
        }
        return await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)

    return run


async def leave(tracker: Tracker) -> None:
    """Leave something for each sweep."""
    ago = datetime.now(UTC) - timedelta(days=40)
    await tracker.register("old", "shop.pay", status="SUCCESS", created_at=ago, finished_at=ago)
    await tracker.register("hangs", "shop.pay", status="STARTED", created_at=ago, started_at=ago)


async def test_sweeps_by_hand(tracker: Tracker, run: Run) -> None:
    """Each says how many; as JSON, too; nonsense is wrong usage."""
    await leave(tracker)
    marked = await run("sweep", "mark_timed_out", "--json")
    none = await run("sweep", "cleanup", "--retention-days", "-1")
    cleaned = await run("sweep", "cleanup")
    everything = await run("sweep", "cleanup", "--retention-days", "0", "--unfinished-too")
    rolled = await run("sweep", "roll_up")
    rescued = await run("sweep", "rescue_lost")
    wrong = await run("sweep", "cleanup", "--retention-days", "-7")

    assert {"sweep": "mark_timed_out", "count": 1} == json.loads(marked.stdout)
    assert "0 deleted\n" == none.stdout
    assert "1 deleted\n" == cleaned.stdout
    assert "1 deleted\n" == everything.stdout
    assert ("0 recomputed\n", "0 presumed lost\n") == (rolled.stdout, rescued.stdout)
    assert (2, True) == (wrong.exit_code, "retention_days: -7.0 is outside" in wrong.stderr)


async def test_what_is_set_and_by_whom(tracker: Tracker, run: Run) -> None:
    """All settings with their layer; rows can be set and taken back."""
    made = await run("config", "set", "retention_days", "-1", "--user", "[bold]4\x1b2")
    again = await run("config", "set", "retention_days", "7")
    table = (await run("config")).stdout
    told = json.loads((await run("config", "--json", "--user", "[bold]4\x1b2")).stdout)
    gone = await run("config", "unset", "retention_days")
    missing = await run("config", "unset", "retention_days")
    wrong = await run("config", "set", "logs", "7")
    by_key = {one["key"]: one for one in told["settings"]}

    assert "retention_days = -1, by user\n" == made.stdout
    assert "retention_days = 7, by global\n" == again.stdout
    assert "\x1b" not in table
    assert "[bold]4" in table
    assert "(all)" in table
    assert ("user", -1) == (by_key["retention_days"]["layer"], by_key["retention_days"]["value"])
    assert 7 == by_key["retention_days"]["layers"]["global"]
    assert "environment" == by_key["timeout_minutes"]["source"]
    assert 2 == len(told["rows"])
    assert "retention_days = 30, by default\n" == gone.stdout
    assert (1, True) == (missing.exit_code, "there was no such row" in missing.stdout)
    assert (2, True) == (wrong.exit_code, "is set at the start only" in wrong.stderr)
