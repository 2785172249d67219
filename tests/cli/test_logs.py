"""``aiotrack logs`` prints what an execution logged, and follows it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from aiotrack import Tracker
from aiotrack.cli.app import app

Run = Callable[..., Any]


async def fill(url: str) -> None:
    """Record an execution that logged three lines."""
    log = logging.getLogger("shop")
    async with Tracker(url) as tracker, tracker.track("shop.x", task_id="x"):
        log.warning("one")
        log.error("two \x1b[2J\nand more")
        logging.getLogger("shop.rows").warning("three")


@pytest.fixture
def run(sqlite_url: str) -> Run:
    """Run a command on the filled database."""
    asyncio.run(fill(sqlite_url))

    def run(*arguments: str) -> Any:
        environment = {"AIOTRACK_DATABASE_URL": sqlite_url, "COLUMNS": "200", "NO_COLOR": "1"}
        return CliRunner().invoke(app, arguments, env=environment)

    return run


@pytest.mark.parametrize("follow", [[], ["--follow"]], ids=["page", "follow"])
def test_lines_are_shown(run: Run, follow: list[str]) -> None:
    """Time, attempt, level, logger, message; nothing that moves the cursor."""
    result = run("logs", "x", *follow)
    lines = result.stdout.splitlines()

    assert 0 == result.exit_code
    assert ["WARNING", "ERROR", "WARNING"] == [lines[n].split()[3] for n in (0, 1, 3)]
    assert lines[1].endswith(" 1 ERROR    shop: two \\x1b[2J")
    assert "and more" == lines[2]


@pytest.mark.parametrize("follow", [[], ["--follow"]], ids=["page", "follow"])
def test_levels_and_attempts_narrow(run: Run, follow: list[str]) -> None:
    """As in Python, followed or not."""

    assert 2 == len(run("logs", "x", "--level", "error", *follow).stdout.splitlines())
    assert "" == run("logs", "x", "--attempt", "2", *follow).stdout
    assert 2 == run("logs", "x", "--level", "LOUD", *follow).exit_code
    assert 4 == run("logs", "nobody", *follow).exit_code


def test_json_is_a_page_or_a_line_each(run: Run) -> None:
    """For programs: a page with its cursor; followed, an object for each line."""
    page = json.loads(run("logs", "x", "--json", "--limit", "2").stdout)
    rest = run("logs", "x", "--limit", "2", "--after", page["next"])
    followed = [json.loads(line) for line in run("logs", "x", "-f", "--json").stdout.splitlines()]

    assert ["one", "two \x1b[2J\nand more"] == [item["message"] for item in page["items"]]
    assert page["items"][0]["at"].endswith("+00:00")
    assert rest.stdout.endswith("shop.rows: three\n")
    assert page["items"] == followed[:2]


def test_a_full_page_names_the_next_one(run: Run) -> None:
    """For people, as in lists."""

    assert "more: --after " in run("logs", "x", "--limit", "1").stdout
