"""``/configs``: definitions, their schedules, and what is told while Redis is away."""

from __future__ import annotations

import json
from typing import Any

import pytest
from taskiq import InMemoryBroker

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.testing.servers import ValkeyServer
from tests.api.conftest import Clients, application, client_of

FIELDS = {
    "id",
    "name",
    "description",
    "task_type",
    "schedule_kind",
    "schedule",
    "parameters",
    "max_retries",
    "timeout_seconds",
    "priority",
    "queue",
    "created_at",
    "updated_at",
    "is_scheduled",
    "schedule_status",
    "next_run_at",
}
EVERY = {
    "name": "bills",
    "task_type": "shop.bill",
    "schedule_kind": "interval",
    "schedule": {"seconds": 300},
    "parameters": {"order": 1},
}
MANUAL = {"name": "by hand", "task_type": "shop.bill", "parameters": {"order": 2}}
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def add_tasks(broker: Any) -> None:
    """Give a broker a task."""

    @broker.task("shop.bill")
    async def bill(order: int) -> int:
        return order


@pytest.fixture
def shop(broker: InMemoryBroker) -> InMemoryBroker:
    """A broker with a task that definitions may send."""
    add_tasks(broker)
    return broker


async def test_creating_starts_the_schedule(
    tracker: Tracker, api: Clients, shop: InMemoryBroker
) -> None:
    """Unless it is manual, or nobody wants it."""
    async with api(user=lambda request: 42) as client:
        started = await client.post("/configs", json=EVERY)
        manual = await client.post("/configs/", json=MANUAL)
        waiting = await client.post("/configs?start=false", json=EVERY | {"name": "later"})

    assert [201, 201, 201] == [one.status_code for one in (started, manual, waiting)]
    assert FIELDS == started.json().keys()
    assert ["active", "inactive", "inactive"] == [
        one.json()["schedule_status"] for one in (started, manual, waiting)
    ]
    assert [True, False, True] == [one.json()["is_scheduled"] for one in (started, manual, waiting)]
    assert started.json()["next_run_at"] > started.json()["created_at"]
    assert None is manual.json()["next_run_at"] is waiting.json()["next_run_at"]
    found = (await tracker.audit.list(target=f"definition:{started.json()['id']}")).items
    assert [("42", "schedule.start"), ("42", "definition.create")] == [
        (one.actor, one.action) for one in found
    ]


async def test_reading(tracker: Tracker, api: Clients, shop: InMemoryBroker) -> None:
    """By id and by name, which may be a number; filters and pages."""
    async with api() as client:
        one = (await client.post("/configs", json=EVERY)).json()
        for name in ("a/b", "777777", "ü%"):
            await client.post("/configs", json=MANUAL | {"name": name})
        for path in ("bills", str(one["id"]), "777777", "%C3%BC%25", "bills/"):
            answer = await client.get(f"/configs/{path}")
            assert 200 == answer.status_code, path
        assert one == (await client.get(f"/configs/{one['id']}/")).json()
        for path in ("nobody", "99999", "9" * 60, "-1"):
            missing = await client.get(f"/configs/{path}")
            assert (404, "definition-not-found") == (missing.status_code, missing.json()["code"])
        page = (await client.get("/configs?limit=3")).json()
        rest = (await client.get(f"/configs?page_size=3&after={page['next']}")).json()
        crons = (await client.get("/configs/?schedule_kind=interval&text=BILL")).json()
        counts = await client.get("/config-types")

    assert ["bills", "a/b", "777777", "ü%"] == [
        item["name"] for item in page["items"] + rest["items"]
    ]
    assert None is rest["next"]
    assert [one] == crons["items"]
    assert {"counts": {"shop.bill": 4}} == counts.json()


async def test_changing_and_deleting(tracker: Tracker, api: Clients, shop: InMemoryBroker) -> None:
    """What is left out stays; a schedule follows; what was sent keeps its id."""
    async with api() as client:
        made = (await client.post("/configs", json=EVERY)).json()
        changed = await client.patch(
            f"/configs/{made['id']}", json={"schedule": {"seconds": 7200}, "priority": 9}
        )
        same = await client.patch("/configs/bills/", json={})
        gone = await client.delete("/configs/bills")
        missing = [
            (await client.request(method, f"/configs/{made['id']}", **body)).status_code
            for method, body in (("GET", {}), ("PATCH", {"json": {}}), ("DELETE", {}))
        ]

    told = changed.json()
    assert (200, {"seconds": 7200}, 9, "bills") == (
        changed.status_code,
        told["schedule"],
        told["priority"],
        told["name"],
    )
    assert told["next_run_at"] > made["next_run_at"]
    assert told["schedule"] == same.json()["schedule"]
    assert (204, b"") == (gone.status_code, gone.content)
    assert [404, 404, 404] == missing


async def test_steering(tracker: Tracker, api: Clients, shop: InMemoryBroker) -> None:
    """Every verb, in the body or in the query; the audit knows who and why."""
    async with api(user=lambda request: "42") as client:
        made = (await client.post("/configs", json=EVERY)).json()
        path = f"/configs/{made['id']}/schedule"
        states = []
        for action in ("pause", "pause", "resume", "stop", "start"):
            body = {"action": action, "reason": "because"}
            answer = await client.post(path, json=body)
            states.append(answer.json()["schedule_status"])
        query = await client.post("/configs/bills/schedule/?action=pause")
        sent = await client.post(path, json={"action": "trigger"})
        await tracker.wait(sent.json()["task_id"], timeout=20)
        stats = await client.get(f"/configs/{made['id']}/stats")

    assert ["paused", "paused", "active", "inactive", "active"] == states
    assert "paused" == query.json()["schedule_status"]
    assert (200, None) == (sent.status_code, sent.json()["next_run_at"])
    known = await tracker.get(sent.json()["task_id"])
    assert (made["id"], "42") == (known.config_id, known.created_by)
    assert (1, 1, 0.0) == tuple(stats.json()[key] for key in ("total", "success", "failure_rate"))
    assert 1 == stats.json()["by_task_name"]["shop.bill"]["success"]
    rows = (await tracker.audit.list(actor="42", action="schedule.stop")).items
    assert ["because"] == [row.reason for row in rows]


@SQLITE
async def test_steering_what_cannot_be(
    tracker: Tracker, api: Clients, shop: InMemoryBroker
) -> None:
    """No action, two of them, one that there is not; a manual one; a task that nobody knows."""
    async with api() as client:
        await client.post("/configs", json=EVERY)
        await client.post("/configs", json=MANUAL)
        path = "/configs/bills/schedule"
        refused = [
            await client.post(path),
            await client.post(path, json={}),
            await client.post(path, json={"action": "explode"}),
            await client.post(f"{path}?action=explode"),
            await client.post(f"{path}?action=stop", json={"action": "start"}),
            await client.post("/configs/by%20hand/schedule?action=start"),
        ]
        missing = await client.post("/configs/nobody/schedule?action=stop")
        tracker.brokers.clear()
        unknown = await client.post(f"{path}?action=trigger")

    assert [422] * 6 == [one.status_code for one in refused], [one.text for one in refused]
    assert 404 == missing.status_code
    assert (409, "unknown-task") == (unknown.status_code, unknown.json()["code"])


@SQLITE
@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, {"body.name", "body.task_type"}),
        ([], {"body"}),
        (5, {"body"}),
        (
            EVERY
            | {
                "schedule_kind": "cron",
                "schedule": {"cron": "* * *"},
                "priority": 11,
                "parameters": {"ordr": 1},
                "by": "me",
                "timeout_seconds": 10**400,
            },
            {
                "body.schedule",
                "body.priority",
                "body.parameters",
                "body.by",
                "body.timeout_seconds",
            },
        ),
        (EVERY | {"task_type": "nobody's"}, {"body.task_type"}),
        (EVERY | {"name": "x" * 201}, {"body.name"}),
        (EVERY | {"name": "\ud800"}, {"body.name"}),
        (EVERY | {"description": "\0"}, {"body.description"}),
        (EVERY | {"queue": 7, "max_retries": 10**30}, {"body.queue", "body.max_retries"}),
        (EVERY | {"parameters": {"order": 1e999}}, set()),
        (EVERY | {"self": 1, "": 2}, {"body.self", "body."}),
    ],
)
async def test_bad_input(
    tracker: Tracker, api: Clients, shop: InMemoryBroker, body: Any, paths: set[str]
) -> None:
    """422 with every fault and where it is, of a new one and of a change; nothing is stored."""
    async with api() as client:
        known = (await client.post("/configs", json=MANUAL)).json()
        headers = {"content-type": "application/json"}
        content = json.dumps(body)
        answer = await client.post("/configs", content=content, headers=headers)
        change = await client.patch("/configs/by%20hand", content=content, headers=headers)
        listed = (await client.get("/configs")).json()["items"]

    assert 422 == answer.status_code, answer.text
    assert paths <= {one["path"] for one in answer.json()["errors"]}, answer.text
    if body != {}:
        assert 422 == change.status_code, change.text
        assert paths <= {one["path"] for one in change.json()["errors"]}, change.text
    assert [known["id"]] == [one["id"] for one in listed]


async def test_secrets_are_kept_and_not_shown(
    tracker: Tracker, api: Clients, shop: InMemoryBroker
) -> None:
    """They have to be sent; what comes back as it was shown changes nothing."""

    @shop.task("shop.login")
    async def login(user: str, password: str, dsn: str) -> None:
        """Do nothing."""

    known = {"user": "u", "password": "hunter2-hunter2", "dsn": "redis://u:hunter2-hunter2@h/0"}
    body = {"name": "login", "task_type": "shop.login", "parameters": known}
    async with api() as client:
        made = (await client.post("/configs", json=body)).json()
        shown = made["parameters"]
        back = await client.patch(
            "/configs/login", json={"parameters": shown | {"user": "v"}, "description": "new"}
        )
        moved = await client.patch(
            "/configs/login", json={"parameters": shown | {"user": shown["password"]}}
        )
        copied = await client.post("/configs", json=body | {"name": "two", "parameters": shown})

    assert "hunter2" not in str(made) + back.text
    assert "u" == shown["user"]
    assert (200, 422, 422) == (back.status_code, moved.status_code, copied.status_code)
    assert {"body.parameters.user"} == {one["path"] for one in moved.json()["errors"]}
    assert known | {"user": "v"} == (await tracker.definitions.get("login")).parameters


@SQLITE
async def test_a_name_that_is_taken(tracker: Tracker, api: Clients, shop: InMemoryBroker) -> None:
    """It is a fault of the name."""
    async with api() as client:
        await client.post("/configs", json=EVERY)
        again = await client.post("/configs", json=EVERY)

    assert 422 == again.status_code
    assert ["body.name"] == [one["path"] for one in again.json()["errors"]]


WRONG_QUERIES = [
    "limit=0",
    "page_size=501",
    "limit=501",
    f"limit={10**30}",
    "after=nonsense",
    "schedule_kind=daily",
    "name=%00",
    "page=1",
    "text=" + "x" * 2000,
]


@SQLITE
async def test_bad_queries(api: Clients) -> None:
    """422 that names the parameter."""
    async with api() as client:
        for query in WRONG_QUERIES:
            answer = await client.get(f"/configs?{query}")
            assert 422 == answer.status_code, (query, answer.text)


async def test_without_redis(database_url: str, own_valkey: ValkeyServer) -> None:
    """Reading says null, the verbs 503, and nothing is stored that could not be started."""
    tracker = Tracker(database_url, redis=own_valkey.url)
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
    add_tasks(broker)
    async with tracker, client_of(application(tracker)) as client:
        made = (await client.post("/configs", json=EVERY)).json()
        own_valkey.stop()
        answers = [
            await client.post("/configs", json=EVERY | {"name": "second"}),
            await client.post("/configs/bills/schedule?action=pause"),
            await client.patch("/configs/bills", json={"priority": 3}),
            await client.delete("/configs/bills"),
        ]
        waiting = await client.post("/configs?start=false", json=EVERY | {"name": "third"})
        manual = await client.post("/configs", json=MANUAL)
        sent = await client.post("/configs/bills/schedule?action=trigger")
        one = (await client.get("/configs/bills")).json()
        listed = (await client.get("/configs")).json()["items"]

    assert [503] * 4 == [answer.status_code for answer in answers]
    assert all("retry-after" in answer.headers for answer in answers)
    assert [201, 201, 200] == [waiting.status_code, manual.status_code, sent.status_code]
    assert (None, None) == (sent.json()["schedule_status"], manual.json()["schedule_status"])
    assert made | {"schedule_status": None, "next_run_at": None} == one
    assert ["bills", "third", "by hand"] == [item["name"] for item in listed]
    assert {None} == {item["schedule_status"] for item in listed}
