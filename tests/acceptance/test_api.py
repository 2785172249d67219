"""What is sent, cancelled and asked for over REST, with a real worker behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from aiotrack.api import create_router
from aiotrack.errors import WaitTimeout
from tests.acceptance.cancels import PLACE, add_long_tasks
from tests.waits import until


async def test_tasks_definitions_and_health(
    start_project: Callable[..., Any],
    database_url: str,
    queue_name: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One ends, one is cancelled, one is triggered; the worker that does it is seen."""
    monkeypatch.setenv("AIOTRACK_NAMESPACE", queue_name)
    monkeypatch.setenv("AIOTRACK_REDIS_URL", redis_url)
    monkeypatch.setenv(PLACE, str(tmp_path / "begun"))
    app = FastAPI()
    async with start_project(database_url) as (project, workers):
        add_long_tasks(project.broker)
        app.include_router(create_router(project.tracker))
        transport = ASGITransport(app)
        async with AsyncClient(transport=transport, base_url="http://testserver") as client:
            await project.tracker.startup()  # the schema is made, however long that takes
            before = (await client.get("/health")).json()
            workers.start(
                *("-m", "taskiq", "worker", "tests.acceptance.cancels:broker"),
                *("--log-level", "WARNING", "--workers", "1"),
            )

            async def is_healthy() -> bool:
                return bool((await client.get("/health")).json()["is_healthy"])

            await until("the worker beats", is_healthy, 20)
            seen = (await client.get("/health")).json()

            async def send(name: str, seconds: float) -> str:
                body = {
                    "task_type": "shop.long",
                    "description": name,
                    "parameters": {"name": name, "seconds": seconds},
                }
                answer = await client.post("/tasks", json=body)
                assert 201 == answer.status_code, answer.text
                task_id: str = answer.json()["task_id"]
                return task_id

            async def status(task_id: str) -> str:
                answer = await client.get(f"/tasks/{task_id}")
                word: str = answer.json()["status"]
                return word

            async def runs() -> bool:
                return await status(long) == "running"

            short, long = await send("short", 0.01), await send("long", 60)
            await until("the long one runs", runs, 20)
            outcome = (await client.delete(f"/tasks/{long}?reason=enough")).json()["outcome"]
            assert "cancelling" == outcome
            try:
                await project.tracker.wait(long, timeout=20)
            except WaitTimeout as error:
                begun = (tmp_path / "begun").read_text().split()
                error.add_note(f"bodies that began: {begun}; the worker says {workers.trouble()}")
                raise
            await project.tracker.wait(short, timeout=20)
            definition = {"name": "by hand", "task_type": "shop.long"}
            parameters = {"name": "triggered", "seconds": 0.01}
            made = await client.post("/configs", json=definition | {"parameters": parameters})
            path = f"/configs/{made.json()['id']}"
            sent = await client.post(f"{path}/schedule?action=trigger")
            triggered = await project.tracker.wait(sent.json()["task_id"], timeout=20)
            words = [await status(one) for one in (short, long, triggered.task_id)]
            stats = (await client.get(f"{path}/stats")).json()
            deeds = [one["action"] for one in (await client.get("/audit/")).json()["items"]]

    assert (True, False) == (before["ready"], before["is_healthy"])
    assert all(one["ok"] for one in seen["dependencies"].values())
    assert ["completed", "cancelled", "completed"] == words, triggered
    assert (1, 1) == (stats["total"], stats["success"])
    assert [
        *("schedule.trigger", "definition.create", "task.cancel", "task.create", "task.create"),
    ] == deeds
    assert [] == workers.trouble()
