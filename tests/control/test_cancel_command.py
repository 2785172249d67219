"""``aiotrack cancel``: one line, and an exit code that scripts can use."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from aiotrack import Tracker
from aiotrack.cli.app import app
from aiotrack.cli.codes import exit_code
from aiotrack.errors import ExecutionNotFound


@pytest.fixture
def filled_url(database_url: str) -> str:
    """A database with one execution that waits."""

    async def fill() -> None:
        async with Tracker(database_url) as tracker:
            await tracker.register("a", "shop.pay")

    asyncio.run(fill())
    return database_url


def run(url: str, *arguments: str) -> Any:
    """Run the command."""
    return CliRunner().invoke(app, ["cancel", *arguments], env={"AIOTRACK_DATABASE_URL": url})


def test_it_is_revoked_once(filled_url: str) -> None:
    """The second time it was over before."""
    first = run(filled_url, "a", "--reason", "wrong", "--by", "ada", "--json")
    second = run(filled_url, "a")

    async def found() -> Any:
        async with Tracker(filled_url) as tracker:
            return await tracker.get("a")

    execution = asyncio.run(found())

    assert (0, {"task_id": "a", "outcome": "revoked"}) == (
        *(first.exit_code, json.loads(first.stdout)),
    )
    assert (1, "it was over before; nothing has changed\n") == (second.exit_code, second.stdout)
    assert ("wrong", "ada") == (execution.cancel_reason, execution.cancelled_by)


def test_an_unknown_id_is_not_found(filled_url: str) -> None:
    """As everywhere in the program."""
    result = run(filled_url, "b")

    assert "no execution with task_id 'b'" in result.stderr
    assert 4 == result.exit_code == exit_code(ExecutionNotFound("b"))
