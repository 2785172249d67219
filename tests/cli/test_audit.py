"""``aiotrack audit`` shows who did what to what."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from typer.testing import CliRunner

from aiotrack import Tracker
from aiotrack.cli.app import app


async def run(url: str, *arguments: str) -> Any:
    """Run a command."""
    environment = {"AIOTRACK_DATABASE_URL": url, "COLUMNS": "250", "NO_COLOR": "1"}
    return await asyncio.to_thread(CliRunner().invoke, app, ["audit", *arguments], env=environment)


async def test_the_audit(sqlite_url: str) -> None:
    """As a table and as JSON; filters and pages."""
    async with Tracker(sqlite_url) as tracker:
        empty = await run(sqlite_url)
        await tracker.audit.append("a.open", "t:1", by="x\x1b[2J", reason="why", after={"n": 1})
        await tracker.audit.append("a.shut", "t:2", by="y")
    table = (await run(sqlite_url)).stdout
    page = json.loads((await run(sqlite_url, "--json", "--limit", "1")).stdout)
    rest = json.loads((await run(sqlite_url, "--json", "--after", page["next"])).stdout)
    more = await run(sqlite_url, "--limit", "1")
    mine = json.loads((await run(sqlite_url, "--json", "--actor", "y", "--since", "1h")).stdout)
    wrong = await run(sqlite_url, "--limit", "0")

    assert "nobody did anything" in empty.stdout
    assert "\x1b" not in table
    assert all(word in table for word in ("a.open", "t:2", "why", '{"n": 1}'))
    assert ["t:2", "t:1"] == [one["target"] for one in page["items"] + rest["items"]]
    assert "--after" in more.output
    assert ["t:2"] == [one["target"] for one in mine["items"]]
    assert 2 == wrong.exit_code
