"""`aiotrack tasks` and `aiotrack queues` ask the project's own broker."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from aiotrack.cli import app

SHOP = """
import os
from taskiq import InMemoryBroker
from taskiq_redis import ListQueueBroker
from aiotrack import Tracker, TrackerMiddleware
from aiotrack.brokers import PriorityStreamBroker

tracker = Tracker(os.environ["SHOP_DATABASE"])
broker = ListQueueBroker(os.environ["SHOP_REDIS"], queue_name=os.environ["SHOP_QUEUE"])
broker.add_middlewares(TrackerMiddleware(tracker))
away = PriorityStreamBroker("redis://127.0.0.1:1")
away.add_middlewares(TrackerMiddleware(Tracker(os.environ["SHOP_DATABASE"])))
alone = InMemoryBroker().with_middlewares(TrackerMiddleware(Tracker(os.environ["SHOP_DATABASE"])))
"""
TASKS = '''
from shop_app import broker

@broker.task("shop.add", queue="gpu")
async def add(one: int, *, two: int = 2, **more: int) -> int:
    """Add numbers.

    More is told nowhere.
    """
    return one + two
'''


@dataclass
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def shop(
    made_sqlite_url: str,
    tmp_path: Path,
    redis_url: str,
    queue_name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Any]:
    """A project in a folder of its own with three messages in its queue, and `aiotrack` in it."""
    (tmp_path / "shop_app.py").write_text(SHOP)
    (tmp_path / "shop_tasks.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in (
        ("DATABASE", made_sqlite_url),
        ("REDIS", redis_url),
        ("QUEUE", queue_name),
    ):
        monkeypatch.setenv(f"SHOP_{name}", value)

    async def put(count: int) -> None:
        async with Redis.from_url(redis_url) as redis:
            for _ in range(count):
                await redis.lpush(queue_name, "message")
            if not count:
                await redis.delete(queue_name)

    def run(*arguments: str) -> Ended:
        for name in ("shop_app", "shop_tasks"):
            sys.modules.pop(name, None)
        code = app.run(arguments)
        return Ended(code, *capsys.readouterr())

    asyncio.run(put(3))
    yield run
    asyncio.run(put(0))


def test_tasks_are_shown_with_what_they_take(shop: Any) -> None:
    """As a table, and as JSON."""
    table = shop("tasks", "shop_app:broker", "--import", "shop_tasks")
    data = json.loads(shop("tasks", "shop_app:broker", "--import", "shop_tasks", "--json").out)[
        "items"
    ]
    none = shop("tasks", "shop_app:broker")

    assert 0 == table.code, table.err
    line = table.out.splitlines()[-1]
    assert ["shop.add", "gpu", "one, two?, ...", "Add numbers."] == [
        part.strip() for part in line.split("  ") if part.strip()
    ]
    assert ["shop.add"] == [one["name"] for one in data]
    assert ["one"] == data[0]["parameters"]["required"]
    assert "--import" in none.out


def test_queues_are_shown(shop: Any, queue_name: str) -> None:
    """As a table, and as JSON; of a broker without a queue it is said."""
    table = shop("queues", "shop_app:broker")
    data = json.loads(shop("queues", "shop_app:broker", "--json").out)["items"]
    none = shop("queues", "shop_app:alone")

    assert 0 == table.code, table.err
    assert [queue_name, "3", "0", "0"] == table.out.splitlines()[-1].split()
    expected = {
        "name": queue_name,
        "depth": 3,
        "oldest_age": None,
        "consumers": 0,
        "dead_letters": 0,
    }
    assert [expected] == data
    assert "does not tell" in none.out


def test_a_broker_that_is_away_is_told(shop: Any) -> None:
    """With the exit code for it: it is not one that does not tell."""
    away = shop("queues", "shop_app:away")

    assert 3 == away.code
    assert "a broker of shop_app:away does not answer" in away.err
    assert "does not tell" not in away.out


def test_a_broker_that_is_none_is_told(shop: Any) -> None:
    """In one line, with the exit code of wrong usage."""
    wrong = shop("tasks", "shop_app:tracker")

    assert 2 == wrong.code
    assert "is no broker" in wrong.err
