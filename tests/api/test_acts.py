"""What is done to executions through the API: sync, cancel, rerun, in ones and in bulk."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import text
from taskiq import InMemoryBroker

from aiotrack import TaskStatus, Tracker
from aiotrack.api import bodies
from tests.api.conftest import Clients


async def audit(tracker: Tracker) -> list[dict[str, Any]]:
    """Give the rows of the audit, the oldest first."""
    query = text("SELECT actor, action, target, reason, after FROM aiotrack_audit ORDER BY id")

    async def work(connection: Any) -> Any:
        return (await connection.execute(query)).mappings().all()

    rows = await tracker.core().repository.ask(work)
    return [dict(row) | {"after": row["after"] and json.loads(row["after"])} for row in rows]


@pytest.fixture
def sleeping(broker: InMemoryBroker) -> Any:
    """A task that sleeps for long."""

    @broker.task("shop:sleep")
    async def sleep() -> None:
        await asyncio.sleep(60)

    return sleep


@pytest.fixture
def adding(broker: InMemoryBroker) -> Any:
    """A task that adds."""

    @broker.task("shop:add")
    async def add(a: int, b: int = 1, password: str = "") -> int:
        if a < 0:
            raise ValueError("too small")
        return a + b

    return add


async def test_cancel_by_either_name(api: Clients, tracker: Tracker, sleeping: Any) -> None:
    """It ends, and the record and the audit say who, and why."""
    one, two = await sleeping.kiq(), await sleeping.kiq()
    async with api(user=lambda request: "ada") as client:
        first = await client.post(
            f"/executions/by-task-id/{one.task_id}/cancel/", json={"reason": "enough"}
        )
        known = await tracker.wait(one.task_id, 10)
        number = (await tracker.get(two.task_id)).id
        unknown = await client.post(f"/executions/{number}/cancel?why=so")
        second = await client.post(f"/executions/{number}/cancel?reason=too+much")
        await tracker.wait(two.task_id, 10)
        again = await client.post(f"/executions/{number}/cancel/", json={})
        faults = await client.post(
            f"/executions/{number}/cancel/", json={"reason": "x" * 1001, "why": 1}
        )

    assert 200 == first.status_code
    assert first.json()["outcome"] in {"cancelling", "revoked"}
    assert one.task_id == first.json()["execution"]["task_id"]
    assert (TaskStatus.REVOKED, "enough", "ada") == (
        known.status,
        known.cancel_reason,
        known.cancelled_by,
    )
    assert second.json()["outcome"] in {"cancelling", "revoked"}
    assert "finished" == again.json()["outcome"]
    assert ["query.why"] == [one["path"] for one in unknown.json()["errors"]]
    assert "too much" == (await tracker.get(two.task_id)).cancel_reason
    assert {"body.reason", "body.why"} == {one["path"] for one in faults.json()["errors"]}
    told = await audit(tracker)
    assert ["execution.cancel"] * 3 == [row["action"] for row in told]
    assert ("ada", f"execution:{one.task_id}", "enough") == tuple(
        told[0][name] for name in ("actor", "target", "reason")
    )


async def test_rerun(api: Clients, tracker: Tracker, adding: Any) -> None:
    """A new execution, or the reason why there is none."""
    sent = await adding.kiq(1, b=2)
    secret = await adding.kiq(1, password="hunter2")
    for one in (sent, secret):
        await tracker.wait(one.task_id, 10)
    unknown = await tracker.register("x", "nobody:knows", args=[1], status="failed")
    async with api(user=lambda request: "ada") as client:
        answer = await client.post(f"/executions/by-task-id/{sent.task_id}/rerun/")
        masked = await client.post(f"/executions/by-task-id/{secret.task_id}/rerun/")
        strange = await client.post(f"/executions/{unknown.id}/rerun/")
    new = answer.json()
    ended = await tracker.wait(new["task_id"], 10)

    assert (201, sent.task_id) == (answer.status_code, new["rerun_of"])
    assert 3 == ended.result
    assert "ada" == ended.metadata["rerun_by"]
    assert (409, "not-repeatable") == (masked.status_code, masked.json()["code"])
    assert "hunter2" not in masked.text
    assert 409 == strange.status_code
    (row,) = await audit(tracker)
    assert ("execution.rerun", f"execution:{sent.task_id}", {"task_id": new["task_id"]}) == (
        row["action"],
        row["target"],
        row["after"],
    )


async def test_a_sweep_is_not_rerun(api: Clients, tracker: Tracker, broker: InMemoryBroker) -> None:
    """As `POST /tasks` sends none: it may delete."""
    sweep = broker.find_task("aiotrack:cleanup")
    assert sweep is not None
    await sweep.kiq(retention_days=30)
    await broker.wait_all()
    (record,) = (await tracker.list(module="aiotrack")).items
    async with api() as client:
        one = await client.post(f"/executions/{record.id}/rerun/")
        many = await client.post("/executions/rerun/?module=aiotrack")

    assert (409, "not-repeatable") == (one.status_code, one.json()["code"])
    assert 0 == many.json()["total"]


async def test_sync(api: Clients, tracker: Tracker, adding: Any, broker: InMemoryBroker) -> None:
    """What the result backend knows is in the record afterwards, and in the answer."""
    sent = await adding.kiq(1)
    await tracker.wait(sent.task_id, 10)
    result = await broker.result_backend.get_result(sent.task_id)
    for name in ("a", "b", "c", "d"):
        await tracker.register(name, "shop:add", status="started")
        await broker.result_backend.set_result(name, result)
    number = (await tracker.get("a")).id
    async with api() as client:
        unasked = await client.get("/executions/status/?task_id=a&sync=false")
        filled = [
            await client.post(f"/executions/{number}/sync/"),
            await client.post("/executions/by-task-id/b/sync"),
            await client.get("/executions/status/?task_id=c"),
            await client.get("/executions/status/?task_id=d&sync=true"),
            await client.post(f"/executions/{number}/sync/"),
        ]

    assert "STARTED" == unasked.json()["status"]
    assert [(200, "SUCCESS", 2)] * 5 == [
        (one.status_code, one.json()["status"], one.json()["result"]) for one in filled
    ]
    assert ["execution:a", "execution:b"] == [row["target"] for row in await audit(tracker)]


async def test_bulk_cancel(api: Clients, tracker: Tracker, sleeping: Any) -> None:
    """Everything that matches, counted; without any filter only if that is meant."""
    for number in range(4):
        await tracker.register(f"p{number}", "mail.send", created_by=number % 2)
    await tracker.register("over", "mail.send", status="success")
    async with api(user=lambda request: 1) as client:
        bare = await client.post("/executions/cancel/")
        unknown = await client.post("/executions/cancel/?modul=mail&limit=10001")
        own = await client.post("/executions/cancel/?module=mail", json={"reason": "enough"})
        rest = await client.post("/executions/cancel/?my_tasks=false&all=true&limit=1")
        last = await client.post("/executions/cancel/?my_tasks=false&status=pending,done")

    assert (422, "no-filter") == (bare.status_code, bare.json()["code"])
    assert {"query.modul", "query.limit"} == {one["path"] for one in unknown.json()["errors"]}
    assert (2, 2) == (own.json()["total"], own.json()["outcomes"]["revoked"])
    assert "enough" == (await tracker.get("p1")).cancel_reason
    assert 1 == rest.json()["total"]
    assert {"revoked": 1, "cancelling": 0, "not_interruptible": 0, "finished": 1} == (
        last.json()["outcomes"]
    )
    told = await audit(tracker)
    assert ["executions.cancel"] * 3 == [row["action"] for row in told]
    assert {"module": ["mail"]} == told[0]["after"]["query"]


async def test_bulk_rerun(api: Clients, tracker: Tracker, adding: Any) -> None:
    """What failed is sent again once, with a reason for what is not."""
    for number in range(3):
        sent = await adding.kiq(-number - 1)
        await tracker.wait(sent.task_id, 10)
    await tracker.register("x", "nobody:knows", status="failed", error="no")
    async with api() as client:
        bare = await client.post("/executions/rerun/")
        first = (await client.post("/executions/rerun/?status=failed&limit=2")).json()
        rest = (await client.post("/executions/rerun/?status=failed&task_name=shop:add")).json()
        strange = (await client.post("/executions/rerun/?metadata.x=1&text=x")).json()
        failed = (await client.post("/executions/rerun/?text=nobody")).json()

    assert 422 == bare.status_code
    assert (2, 2, 0) == tuple(first[name] for name in ("total", "sent", "failed"))
    assert 1 <= rest["sent"]
    assert not {one["task_id"] for one in first["items"]} & {
        one["task_id"] for one in rest["items"]
    }
    assert 0 == strange["total"]
    assert [("x", None, "unknown-task")] == [
        (one["task_id"], one["rerun_as"], one["code"]) for one in failed["items"]
    ]


async def test_bulk_stays_within_what_is_ones_own(api: Clients, tracker: Tracker) -> None:
    """Whatever is asked for."""
    await tracker.register("theirs", "mail.send", created_by="ada")
    await tracker.register("own", "mail.send", created_by=42)
    async with api(user=lambda request: 42, access="own") as client:
        refused = await client.post("/executions/cancel/?created_by=ada")
        counted = await client.post("/executions/cancel/?all=true&my_tasks=false")

    assert 403 == refused.status_code
    assert 1 == counted.json()["total"]
    assert TaskStatus.PENDING is (await tracker.get("theirs")).status


async def test_bodies_that_are_none(api: Clients, tracker: Tracker) -> None:
    """Refused by what is wrong with them, before anything is done."""
    await tracker.register("x", "mail.send")
    deep = "[" * 10**6 + "]" * 10**6
    cases: list[tuple[Any, dict[str, str], int]] = [
        (b"{", {"content-type": "application/json"}, 422),
        (b"reason=x", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"[1]", {"content-type": "application/json"}, 422),
        (b"\xff\xfe", {"content-type": "application/json"}, 422),
        (b'"\xcc\x835\xff"', {"content-type": "application/json"}, 422),
        (b"9" * 6000, {"content-type": "application/json"}, 422),
        (b'{"reason": NaN}', {"content-type": "application/json"}, 422),
        (b'{"reason": "' + b"x" * bodies.MOST + b'"}', {"content-type": "application/json"}, 413),
        (deep[: bodies.MOST].encode(), {"content-type": "application/json"}, 422),
        (b'{"reason": 7}', {"content-type": "application/json"}, 422),
        (b'{"reason": "\\ud800"}', {"content-type": "application/json"}, 422),
    ]
    async with api() as client:
        for content, headers, status in cases:
            answer = await client.post(
                "/executions/by-task-id/x/cancel/", content=content, headers=headers
            )
            assert status == answer.status_code, answer.text
        odd = await client.post("/executions/by-task-id/x/cancel/", json={"reason": "\x00 ä"})
    assert 200 == odd.status_code
    assert "ä" in str((await tracker.get("x")).cancel_reason)
