"""``aiotrack workers`` shows who lives, who is lost, who stopped."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from typer.testing import CliRunner

from aiotrack import Tracker
from aiotrack.cli.app import app
from tests.control.crew import enlist


async def run(url: str, *arguments: str) -> Any:
    """Run a command."""
    environment = {"AIOTRACK_DATABASE_URL": url, "COLUMNS": "250", "NO_COLOR": "1"}
    return await asyncio.to_thread(
        CliRunner().invoke, app, ["workers", *arguments], env=environment
    )


async def test_the_workers(sqlite_url: str) -> None:
    """As a table and as JSON, all or those of a status."""
    async with Tracker(sqlite_url) as tracker:
        empty = await run(sqlite_url)
        await enlist(tracker, "one\x1b[2J", queues=["a", "b"], tasks={"shop.pay": True})
        await enlist(tracker, "two", ago=100)
        await enlist(tracker, "three", ago=100, stopped=100)
    table = (await run(sqlite_url)).stdout
    items = json.loads((await run(sqlite_url, "--json")).stdout)["items"]
    lost = json.loads((await run(sqlite_url, "--json", "--status", "lost")).stdout)["items"]
    wrong = await run(sqlite_url, "--status", "asleep")

    assert "no worker is known" in empty.stdout
    assert "\x1b" not in table
    assert all(word in table for word in ("alive", "lost", "stopped", "a, b", "1/10", "50 %"))
    assert ["alive", "lost", "stopped"] == [item["status"] for item in items]
    assert ({"shop.pay": True}, 0.1) == (items[0]["tasks"], items[0]["load"])
    assert ["two"] == [item["id"] for item in lost]
    assert 2 == wrong.exit_code
