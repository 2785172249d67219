"""``aiotrack schedules`` shows what is sent when, and changes it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from redis.asyncio import Redis
from typer.testing import CliRunner

from aiotrack import Tracker
from aiotrack.cli.app import app
from aiotrack.redis.keys import schedule_keys


async def test_schedules_are_seen_and_changed(
    made_sqlite_url: str, redis_url: str, queue_name: str
) -> None:
    """As a table and as JSON; by name or id; who is not there, and a Redis that is away, too."""

    async def run(*arguments: str, redis: str = redis_url) -> Any:
        environment = {
            "AIOTRACK_DATABASE_URL": made_sqlite_url,
            "AIOTRACK_REDIS_URL": redis,
            "AIOTRACK_NAMESPACE": queue_name,
            "COLUMNS": "250",
            "NO_COLOR": "1",
        }
        return await asyncio.to_thread(
            CliRunner().invoke, app, ["schedules", *arguments], env=environment
        )

    empty = await run()
    async with Tracker(made_sqlite_url) as tracker:
        made = await tracker.definitions.create(
            name="prices\x1b[2J",
            task_type="shop.import_prices",
            schedule_kind="interval",
            schedule={"seconds": 300},
        )
        await tracker.definitions.create(name="by hand", task_type="shop.clean")
    key = str(made.id)
    told = [(await run(verb, key, "--by", "ada")).stdout for verb in ("start", "pause")]
    table = (await run()).stdout
    resumed = json.loads((await run("resume", key, "--json")).stdout)
    items = json.loads((await run("--json")).stdout)["items"]
    stopped = (await run("stop", key)).stdout
    codes = [
        (await run("start", "nobody")).exit_code,
        (await run("start", "by hand")).exit_code,
        (await run(redis="redis://127.0.0.1:1/0")).exit_code,
    ]
    async with Redis.from_url(redis_url) as client:
        await client.delete(*schedule_keys(queue_name))

    assert "nothing is defined" in empty.stdout
    assert [f"{key} is active\n", f"{key} is paused\n"] == told
    assert "\x1b" not in table
    assert all(word in table for word in ("paused", "inactive", "shop.import_prices", "300"))
    assert {"definition": made.id, "schedule_status": "active"} == resumed
    assert ["active", "inactive"] == [item["schedule_status"] for item in items]
    assert [True, False] == [item["next_run_at"] is not None for item in items]
    assert f"{key} is inactive\n" == stopped
    assert [4, 2, 3] == codes


async def test_a_name_in_digits_comes_before_an_id(
    made_sqlite_url: str, redis_url: str, queue_name: str
) -> None:
    """As in Python; without such a name it is an id, or that of a schedule."""
    environment = {
        "AIOTRACK_DATABASE_URL": made_sqlite_url,
        "AIOTRACK_REDIS_URL": redis_url,
        "AIOTRACK_NAMESPACE": queue_name,
    }

    async def run(*arguments: str) -> Any:
        words = ["schedules", *arguments, "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, words, env=environment)
        return json.loads(result.stdout)

    options = {"namespace": queue_name}
    async with Tracker(made_sqlite_url, redis=redis_url, settings=options) as tracker:
        for name in ("2027", "1"):
            await tracker.definitions.create(
                name=name,
                task_type="shop.import_prices",
                schedule_kind="interval",
                schedule={"seconds": 300},
            )
        told = [await run("start", "2027")]
        states = await tracker.schedules.statuses()
        told += [await run("start", "1"), await run("stop", "2"), await run("stop", "task_1")]
    async with Redis.from_url(redis_url) as client:
        await client.delete(*schedule_keys(queue_name))

    assert {1: "active", 2: "inactive"} == states
    assert ["2027", "1", 2, 1] == [one["definition"] for one in told]
