"""``/tasks`` and ``/task-types/``: what is sent, what is refused, what is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import pytest
from taskiq import InMemoryBroker
from taskiq_redis import ListQueueBroker

from aiotrack import TaskStatus, Tracker, TrackerMiddleware
from aiotrack.testing.servers import PostgresServer, ValkeyServer
from tests.api.conftest import Clients, application, client_of
from tests.control.crew import QuietBroker

FIELDS = {
    "task_id",
    "task_type",
    "description",
    "status",
    "priority",
    "timeout_seconds",
    "progress",
    "created_at",
    "started_at",
    "finished_at",
    "duration",
    "result",
    "error",
}
GOOD = {"task_type": "shop.bill", "description": "a bill", "parameters": {"order": 7}}


@pytest.fixture
async def shop(tracker: Tracker, broker: InMemoryBroker) -> InMemoryBroker:
    """Tasks that succeed, fail, and take as long as they like."""

    @broker.task("shop.bill")
    async def bill(order: int, note: str = "") -> dict[str, Any]:
        """Write a bill."""
        await tracker.progress(40.7)
        return {"order": order, "note": note}

    @broker.task("shop.fail")
    async def fail() -> None:
        raise ValueError("no paper")

    @broker.task("shop.wait", queue="slow")
    async def wait() -> None:
        await asyncio.sleep(60)

    @broker.task("shop.any")
    async def anything(**values: Any) -> int:
        return len(values)

    @broker.task("shop.secret", track=False)
    async def secret() -> None:
        """Leave no trace."""

    return broker


async def ended(tracker: Tracker, task_id: str) -> None:
    """Wait until a task is over."""
    await tracker.wait(task_id, timeout=20)


async def test_a_task_from_its_creation_to_its_end(
    tracker: Tracker, api: Clients, shop: InMemoryBroker
) -> None:
    """Sent, found at once, done; with all that was said of it."""
    body = GOOD | {"priority": 5, "timeout_seconds": 30}
    async with api(user=lambda request: 42) as client:
        answer = await client.post("/tasks", json=body)
        task_id = answer.json()["task_id"]
        assert (201, {"task_id": task_id, "status": "created"}) == (
            answer.status_code,
            answer.json(),
        )
        await ended(tracker, task_id)
        told = (await client.get(f"/tasks/{task_id}/")).json()

    assert FIELDS == told.keys()
    assert ("completed", "shop.bill", "a bill") == (
        told["status"],
        told["task_type"],
        told["description"],
    )
    assert (5, 30.0, 40) == (told["priority"], told["timeout_seconds"], told["progress"])
    assert ({"order": 7, "note": ""}, None) == (told["result"], told["error"])
    assert told["created_at"] <= told["started_at"] <= told["finished_at"]
    assert told["finished_at"].endswith("Z")
    assert "42" == (await tracker.get(task_id)).created_by
    (row,) = (await tracker.audit.list(action="task.create")).items
    assert ("42", f"execution:{task_id}") == (row.actor, row.target)


async def test_a_failure_is_an_answer(tracker: Tracker, api: Clients, shop: InMemoryBroker) -> None:
    """A task that failed is a 200 that says so."""
    async with api() as client:
        sent = await client.post("/tasks", json={"task_type": "shop.fail", "description": ""})
        await ended(tracker, sent.json()["task_id"])
        answer = await client.get(f"/tasks/{sent.json()['task_id']}")

    assert (200, "failed", "no paper") == (
        answer.status_code,
        answer.json()["status"],
        answer.json()["error"],
    )


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("PENDING", "created"),
        ("STARTED", "running"),
        ("RETRY", "running"),
        ("SUCCESS", "completed"),
        ("FAILURE", "failed"),
        ("REVOKED", "cancelled"),
    ],
)
async def test_words(tracker: Tracker, api: Clients, status: str, word: str) -> None:
    """Each status has one; metadata of others may be anything."""
    odd = {"description": {"a": 1}, "progress_percent": "much"}
    await tracker.register("odd/id %", "x", status=status, metadata=odd)
    async with api() as client:
        answer = await client.get("/tasks/odd%2Fid%20%25")

    assert 200 == answer.status_code
    told = answer.json()
    assert (word, '{"a":1}', None) == (told["status"], told["description"], told["progress"])


@pytest.mark.parametrize("task_id", ["a/b", "a/", "/a", "a//b/", "ü?#", "x" * 400, ".", "\0"])
async def test_a_task_id_is_any_text(tracker: Tracker, api: Clients, task_id: str) -> None:
    """Percent-encoded in the path, with slashes and all, with and without a slash behind it."""
    await tracker.register(task_id, "x")
    quoted = "".join(f"%{byte:02X}" for byte in task_id.encode())
    async with api() as client:
        for path in (f"/tasks/{quoted}", f"/tasks/{quoted}/"):
            answer = await client.get(path)
            assert (200, "x") == (answer.status_code, answer.json().get("task_type")), answer.text
        missing = await client.get(f"/tasks/{quoted}z")
    assert 404 == missing.status_code
    assert "execution-not-found" == missing.json()["code"]


async def test_cancelling(tracker: Tracker, api: Clients, shop: InMemoryBroker) -> None:
    """What runs ends; twice does no harm; the audit knows who and why."""
    async with api(user=lambda request: "42") as client:
        body = {"task_type": "shop.wait", "description": "long"}
        task_id = (await client.post("/tasks", json=body)).json()["task_id"]
        async with contextlib.aclosing(tracker.watch(task_id)) as states:
            async for one in states:
                if one.status is TaskStatus.STARTED:
                    break
        first = await client.delete(f"/tasks/{task_id}?reason=enough")
        await ended(tracker, task_id)
        second = await client.delete(f"/tasks/{task_id}/")
        unknown = await client.delete("/tasks/nobody")

    assert (200, "cancelling") == (first.status_code, first.json()["outcome"])
    assert {"task_id": task_id, "status": "cancelled", "outcome": "finished"} == second.json()
    assert 404 == unknown.status_code
    known = await tracker.get(task_id)
    assert ("42", "enough") == (known.cancelled_by, known.cancel_reason)
    rows = (await tracker.audit.list(action="task.cancel")).items
    assert ["finished", "cancelling"] == [(row.after or {})["outcome"] for row in rows]
    assert [None, "enough"] == [row.reason for row in rows]


async def test_own_tasks(tracker: Tracker, api: Clients, shop: InMemoryBroker) -> None:
    """Those of others are not there, for who sees only his own."""
    await tracker.register("his", "x", created_by="7")
    await tracker.register("nobody's", "x")
    async with api(user=lambda request: "42", access="own") as client:
        mine = (await client.post("/tasks", json=GOOD)).json()["task_id"]
        statuses = [
            (await client.request(method, f"/tasks/{task_id}")).status_code
            for task_id in (mine, "his", "nobody's", "none")
            for method in ("GET", "DELETE")
        ]

    assert [200, 200, *[404] * 6] == statuses


SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what happens before any database is asked."""


@SQLITE
@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, {"body.task_type", "body.description"}),
        ([], {"body"}),
        (GOOD | {"priority": 11}, {"body.priority"}),
        (GOOD | {"priority": 0}, {"body.priority"}),
        (GOOD | {"priority": True}, {"body.priority"}),
        (GOOD | {"priority": "5"}, {"body.priority"}),
        (GOOD | {"priority": 10**30}, {"body.priority"}),
        (GOOD | {"timeout_seconds": 0}, {"body.timeout_seconds"}),
        (GOOD | {"timeout_seconds": 1e12}, {"body.timeout_seconds"}),
        (GOOD | {"description": "x" * 10_000}, {"body.description"}),
        (GOOD | {"description": "\0"}, {"body.description"}),
        (GOOD | {"description": "\ud800"}, {"body.description"}),
        (GOOD | {"task_type": "\ud800"}, {"body.task_type"}),
        (GOOD | {"task_type": "nobody's"}, {"body.task_type"}),
        (GOOD | {"task_type": "aiotrack:cleanup"}, {"body.task_type"}),
        (GOOD | {"task_type": "shop.secret"}, {"body.task_type"}),
        (GOOD | {"task_type": ["shop.bill"]}, {"body.task_type"}),
        (GOOD | {"timeout": 5}, {"body.timeout"}),
        (GOOD | {"parameters": {"order": "many"}}, {"body.parameters"}),
        (GOOD | {"parameters": {"order": 1, "note": "\ud800"}}, {"body.parameters"}),
        (GOOD | {"task_type": "shop.any", "parameters": {"self": 1}}, {"body.parameters"}),
        (GOOD | {"parameters": [7]}, {"body.parameters"}),
        (
            GOOD | {"priority": 11, "parameters": {"ordr": 1}, "more": 1, "timeout_seconds": -1},
            {"body.priority", "body.parameters", "body.more", "body.timeout_seconds"},
        ),
    ],
)
async def test_bad_input(
    tracker: Tracker, api: Clients, shop: InMemoryBroker, body: Any, paths: set[str]
) -> None:
    """422 with every fault and where it is; nothing is sent."""
    async with api() as client:
        answer = await client.post(
            "/tasks", content=json.dumps(body), headers={"content-type": "application/json"}
        )

    assert 422 == answer.status_code, answer.text
    assert paths == {one["path"] for one in answer.json()["errors"]}
    assert [] == (await tracker.list()).items


NO_BODIES = [
    b"",
    b"{",
    b"\xff",
    b'{"parameters":' + b"9" * 5000 + b"}",
    b'{"task_type":"shop.bill","description":"","parameters":{"order":1e999}}',
    b'{"task_type":"shop.bill","description":"","parameters":{"order":NaN}}',
]


@SQLITE
async def test_bodies_that_are_none(api: Clients, shop: InMemoryBroker) -> None:
    """422, whatever is wrong with them."""
    headers = {"content-type": "application/json"}
    async with api() as client:
        for raw in NO_BODIES:
            answer = await client.post("/tasks", content=raw, headers=headers)
            assert 422 == answer.status_code, (raw, answer.text)
            assert answer.json()["detail"]


async def test_a_missing_parameter_is_named_beside_all_others(
    api: Clients, shop: InMemoryBroker
) -> None:
    """Missing, unknown and of a wrong type, in one answer."""
    body = {"task_type": "shop.bill", "description": "x", "parameters": {"note": 5, "more": 1}}
    async with api() as client:
        answer = await client.post("/tasks", json=body)

    told = " ".join(one["message"] for one in answer.json()["errors"])
    assert all(word in told for word in ("order is missing", "note: Input", "'more'")), told


async def test_a_process_without_tasks_says_so(tracker: Tracker, api: Clients) -> None:
    """The way out is named: broker and imports."""
    async with api() as client:
        answer = await client.post("/tasks", json=GOOD)
        types = await client.get("/task-types")

    assert 422 == answer.status_code
    assert "knows no task at all" in answer.json()["errors"][0]["message"]
    assert {"items": []} == types.json()


async def test_task_types(api: Clients, shop: InMemoryBroker) -> None:
    """What can be sent, and what it takes; not the tracker's own sweeps."""
    async with api() as client:
        items = (await client.get("/task-types/")).json()["items"]

    assert ["shop.any", "shop.bill", "shop.fail", "shop.wait"] == [one["name"] for one in items]
    assert ("Write a bill.", ["order"]) == (items[1]["doc"], items[1]["parameters"]["required"])
    assert "slow" == items[3]["queue"]


async def test_one_broker_of_several(tracker: Tracker, api: Clients, shop: InMemoryBroker) -> None:
    """With ``broker=`` only its tasks can be sent."""
    other = QuietBroker().with_middlewares(TrackerMiddleware(tracker))

    @other.task("other.work")
    async def work() -> None:
        """Do nothing."""

    async with api(broker=other) as client:
        types = [one["name"] for one in (await client.get("/task-types/")).json()["items"]]
        refused = await client.post("/tasks", json=GOOD)
        sent = await client.post("/tasks", json={"task_type": "other.work", "description": ""})

    assert (["other.work"], 422, 201) == (types, refused.status_code, sent.status_code)
    assert 1 == len(other.sent)


async def test_a_broker_without_the_tracker(api: Clients) -> None:
    """Nothing of it would be recorded: it is refused, and said why."""
    stranger = QuietBroker()

    @stranger.task("other.work")
    async def work() -> None:
        """Do nothing."""

    async with api(broker=stranger) as client:
        answer = await client.post("/tasks", json={"task_type": "other.work", "description": ""})

    assert 422 == answer.status_code
    assert "TrackerMiddleware" in answer.json()["errors"][0]["message"]
    assert [] == stranger.sent


async def test_a_full_queue(made_sqlite_url: str, redis_url: str, queue_name: str) -> None:
    """503, with the time after which it is worth another try."""
    async with Tracker(made_sqlite_url, settings={"max_queue": 1}) as tracker:
        broker = ListQueueBroker(redis_url, queue_name=queue_name).with_middlewares(
            TrackerMiddleware(tracker)
        )

        @broker.task("shop.bill")
        async def bill(order: int) -> None:
            """Do nothing."""

        await broker.startup()
        async with client_of(application(tracker)) as client:
            statuses = [(await client.post("/tasks", json=GOOD)) for _ in range(2)]
        await broker.shutdown()

    assert [201, 503] == [one.status_code for one in statuses]
    assert ("queue-full", "2") == (
        statuses[1].json()["code"],
        statuses[1].headers["retry-after"],
    )


async def test_a_broker_that_is_away(made_sqlite_url: str, own_valkey: ValkeyServer) -> None:
    """503, and nothing is recorded that was not sent."""
    async with Tracker(made_sqlite_url, settings={"max_queue": 0}) as tracker:
        broker = ListQueueBroker(own_valkey.url).with_middlewares(TrackerMiddleware(tracker))

        @broker.task("shop.bill")
        async def bill(order: int) -> None:
            """Do nothing."""

        await broker.startup()
        own_valkey.stop()
        async with client_of(application(tracker)) as client:
            answer = await client.post("/tasks", json=GOOD)
        left = (await tracker.list()).items
        await broker.shutdown()

    assert (503, "broker-unavailable") == (answer.status_code, answer.json()["code"])
    assert "2" == answer.headers["retry-after"]
    assert [] == left


async def test_a_write_whose_row_of_the_audit_cannot_be_stored(
    tracker: Tracker, api: Clients, shop: InMemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """It is done all the same, and logged."""
    from sqlalchemy import text

    async with tracker.core().repository.engine.begin() as connection:
        await connection.execute(text("DROP TABLE aiotrack_audit"))
    async with api() as client:
        answer = await client.post("/tasks", json=GOOD)

    assert 201 == answer.status_code
    assert "the audit does not know of 'task.create'" in caplog.text


async def test_unknown_query_parameters(api: Clients, shop: InMemoryBroker) -> None:
    """A typing error is named, not ignored."""
    async with api() as client:
        answer = await client.get("/task-types/?nam=x&nam=y&page=1")

    assert 422 == answer.status_code
    assert ["query.nam", "query.page"] == [one["path"] for one in answer.json()["errors"]]


async def test_a_database_that_says_nothing(own_postgres: PostgresServer) -> None:
    """What was sent is said to be, within the seconds that a commit and a row of the audit get."""
    async with Tracker(own_postgres.url) as tracker:
        broker = QuietBroker().with_middlewares(TrackerMiddleware(tracker))

        @broker.task("shop.bill")
        async def bill(order: int) -> None:
            """Do nothing."""

        async with client_of(application(tracker)) as client:
            own_postgres.pause()
            try:
                begun = time.monotonic()
                sent = await client.post("/tasks", json=GOOD)
                took = time.monotonic() - begun
                asked = await client.get(f"/tasks/{sent.json()['task_id']}")
            finally:
                own_postgres.resume()

    assert (201, 503) == (sent.status_code, asked.status_code)
    assert took < 15  # three seconds, on a machine with nothing else to do
    assert 1 == len(broker.sent)
