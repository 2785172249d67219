"""`aiotrack rerun` sends by the project's own broker, and says what it cannot send."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiotrack import Tracker

ROOT = Path(__file__).resolve().parents[2]

SHOP = """
import os
from taskiq import InMemoryBroker
from aiotrack import Tracker, TrackerMiddleware
from aiotrack.brokers import PriorityStreamBroker

plain = InMemoryBroker()
broker = InMemoryBroker(await_inplace=True)
broker.add_middlewares(TrackerMiddleware(Tracker(os.environ["SHOP_DATABASE"])))
away = PriorityStreamBroker("redis://127.0.0.1:1")
away.add_middlewares(TrackerMiddleware(Tracker(os.environ["SHOP_DATABASE"])))
away.register_task(lambda one, two: one + two, "shop.add")
"""
TASKS = """
from shop_app import broker

@broker.task("shop.add")
async def add(one: int, *, two: int) -> int:
    return one + two
"""


@pytest.fixture
def shop(sqlite_url: str, tmp_path: Path) -> Any:
    """A project in a folder of its own, with records, and `aiotrack rerun` in it."""
    (tmp_path / "shop_app.py").write_text(SHOP)
    (tmp_path / "shop_tasks.py").write_text(TASKS)

    async def fill() -> None:
        async with Tracker(sqlite_url) as tracker:
            await tracker.register("sum", "shop.add", args=[1], kwargs={"two": 2}, status="failed")
            await tracker.register("key", "shop.add", kwargs={"token": "abc"}, status="failed")

    asyncio.run(fill())

    def rerun(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "aiotrack", "rerun", *arguments],
            cwd=tmp_path,
            env={**os.environ, "SHOP_DATABASE": sqlite_url, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return rerun


def test_rerun_sends_again_and_tells_the_new_id(shop: Any, sqlite_url: str) -> None:
    """With who asked; the record of the new one is linked."""
    ended = shop("shop_app:broker", "sum", "--import", "shop_tasks", "--by", "ada", "--json")
    told = json.loads(ended.stdout)["items"][0]

    async def read() -> Any:
        async with Tracker(sqlite_url) as tracker:
            record = await tracker.get(told["execution"]["task_id"])
            return record, (await tracker.audit.list()).items

    record, (row,) = asyncio.run(read())

    assert 0 == ended.returncode, ended.stderr
    assert ("sum", None) == (told["task_id"], told["error"])
    assert ("sum", 3, "ada") == (record.rerun_of, record.result, record.metadata["rerun_by"])
    assert ("execution.rerun", "execution:sum", "ada", {"task_id": record.task_id}) == (
        *(row.action, row.target, row.actor, row.after),
    )


def test_rerun_tells_what_it_cannot_send(shop: Any) -> None:
    """Each in a line, and the others are sent all the same."""
    ended = shop("shop_app:broker", "key", "nobody", "sum", "--import", "shop_tasks")

    assert 1 == ended.returncode
    assert "sum runs again as " in ended.stdout
    assert "kwargs.token (redacted)" in ended.stderr
    assert "no execution with task_id 'nobody'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("more", "code"), [((), 3), (("key",), 1)])
def test_rerun_tells_that_the_broker_is_away(shop: Any, more: tuple[str, ...], code: int) -> None:
    """With the exit code for it, unless something else is wrong with one of them."""
    ended = shop("shop_app:away", "sum", *more)

    assert code == ended.returncode, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("shop_app:broker", "sum"), 1, "import the module that defines it"),
        (("shop_app:plain", "sum"), 2, "has no TrackerMiddleware"),
        (("shop_app:TASKS", "sum"), 2, "write it as for taskiq worker"),
        (("no_such_app:broker", "sum"), 2, "write it as for taskiq worker"),
        (("shop_app:os", "sum"), 2, "is no broker, but module"),
    ],
)
def test_rerun_says_what_is_wrong_with_the_broker(
    shop: Any, arguments: tuple[str, ...], code: int, told: str
) -> None:
    """In one line."""
    ended = shop(*arguments)

    assert code == ended.returncode
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
