"""``/locks/``, ``/queues/``, ``/settings/``, ``/audit/`` and ``/health``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from fastapi import Header, HTTPException
from httpx import ASGITransport, AsyncClient
from taskiq import InMemoryBroker
from taskiq_redis import ListQueueBroker

from aiotrack import LockLost, Tracker, TrackerMiddleware
from aiotrack.api import create_app
from aiotrack.testing.servers import PostgresServer
from tests.api.conftest import Clients, application, client_of

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SECRET = "hunter2-hunter2"


# ── locks ───────────────────────────────────────────────────────────────────────────────────────
async def test_locks(tracker: Tracker, api: Clients) -> None:
    """Who holds what; taken away only from the holder that is meant; with a row of the audit."""
    async with api(user=lambda request: 42) as client:
        assert {"items": []} == (await client.get("/locks/")).json()
        with pytest.raises(LockLost):
            async with tracker.lock("import", key=7, on_lost="flag", ttl=0.9) as lock:
                (shown,) = (await client.get("/locks")).json()["items"]
                assert [] == (await client.get("/locks?task_id=nobody")).json()["items"]
                wrong = {"name": shown["name"], "fence": lock.fence + 1}
                right = {"name": shown["name"], "fence": lock.fence, "reason": "stuck"}
                answers = [
                    await client.post("/locks/release/", json=body)
                    for body in (wrong, right, right)
                ]

    assert ("import/", "7", lock.fence) == (shown["name"][:7], shown["key"], shown["fence"])
    assert [False, True, False] == [one.json()["released"] for one in answers]
    (row,) = (await tracker.audit.list(action="lock.release")).items
    assert ("42", f"lock:{shown['name']}", "stuck") == (row.actor, row.target, row.reason)


WRONG_RELEASES: list[dict[str, Any]] = [
    {},
    {"name": "x"},
    {"name": "x", "fence": "1"},
    {"name": "x", "fence": 10**30},
    {"name": "x", "fence": -1},
    {"name": "", "fence": 1},
    {"name": "a b", "fence": 1},
    {"name": "\0/x", "fence": 1},
    {"name": "x" * 500, "fence": 1},
    {"name": "x", "fence": 1, "force": True},
]


@SQLITE
async def test_releases_that_cannot_be_meant(api: Clients) -> None:
    """422."""
    async with api() as client:
        for body in WRONG_RELEASES:
            answer = await client.post("/locks/release", json=body)
            assert 422 == answer.status_code, (body, answer.text)


async def test_locks_without_redis(made_sqlite_url: str) -> None:
    """503: nobody knows, or there are none."""
    for redis in (None, "redis://127.0.0.1:1/0"):
        tracker = Tracker(made_sqlite_url, redis=redis)
        async with tracker, client_of(application(tracker)) as client:
            read = await client.get("/locks/")
            write = await client.post("/locks/release", json={"name": "x", "fence": 1})
        assert (503, 503) == (read.status_code, write.status_code)
        assert "lock-unavailable" == read.json()["code"]


# ── queues ──────────────────────────────────────────────────────────────────────────────────────
async def test_queues(tracker: Tracker, api: Clients, redis_url: str, queue_name: str) -> None:
    """What waits in the queues of this process' brokers."""
    broker = ListQueueBroker(redis_url, queue_name=queue_name)
    broker.with_middlewares(TrackerMiddleware(tracker))

    @broker.task("shop.bill")
    async def bill() -> None:
        """Do nothing."""

    await broker.startup()
    async with api() as client:
        await bill.kiq()
        items = (await client.get("/queues/")).json()["items"]
    await broker.shutdown()

    assert [(queue_name, 1, 0)] == [
        (one["name"], one["depth"], one["dead_letters"]) for one in items
    ]


# ── settings ────────────────────────────────────────────────────────────────────────────────────
async def test_settings_and_layers(tracker: Tracker, api: Clients) -> None:
    """Set for all and for one, and taken back; each change is in the audit."""
    async with api(user=lambda request: "boss") as client:
        before = {one["key"]: one for one in (await client.get("/settings/")).json()["items"]}
        globally = await client.put("/settings/retention_days", json={"value": 60})
        his = await client.put("/settings/retention_days/", json={"value": 7, "user": "42"})
        mine = {one["key"]: one for one in (await client.get("/settings?user=42")).json()["items"]}
        one = await client.get("/settings/retention_days?user=42")
        nobody = await client.get("/settings/nonsense")
        gone = await client.delete("/settings/retention_days?user=42")
        again = await client.delete("/settings/retention_days?user=42")

    assert ("default", 30) == (before["retention_days"]["layer"], before["retention_days"]["value"])
    assert {"retention_days", "timeout_minutes"} == {
        key for key, one in before.items() if one["is_settable"]
    }
    assert ("settings", "keyword") == (before["namespace"]["layer"], before["namespace"]["source"])
    assert (200, 60, "global") == (
        globally.status_code,
        globally.json()["value"],
        globally.json()["layer"],
    )
    assert {"user": 7, "global": 60, "settings": None, "default": 30} == his.json()["layers"]
    assert (mine["retention_days"], 404) == (one.json(), nobody.status_code)
    assert ("user", 7) == (mine["retention_days"]["layer"], mine["retention_days"]["value"])
    assert [60, 60] == [one.json()["value"] for one in (gone, again)]
    rows = (await tracker.audit.list(target="setting:retention_days")).items
    assert ["setting.unset", "setting.set", "setting.set"] == [row.action for row in rows]
    assert {"boss"} == {row.actor for row in rows}
    assert [{"user": "42", "value": 7}, {"user": "42", "value": None}] == [
        dict(row.before or {}) for row in rows[:2]
    ]


async def test_addresses_are_those_in_use(made_sqlite_url: str) -> None:
    """Also those that the tracker was made with; passwords, wherever they stand, are left out."""
    redis = f"redis://u:{SECRET}@127.0.0.1:1/0?password={SECRET}&protocol=2"
    tracker = Tracker(made_sqlite_url, redis=redis)
    async with tracker, client_of(application(tracker)) as client:
        answer = await client.get("/settings/")
    items = {one["key"]: one for one in answer.json()["items"]}

    assert made_sqlite_url == items["database_url"]["value"]
    assert "...@127.0.0.1:1/0?password=...&protocol=2" == items["redis_url"]["value"]
    assert {"keyword"} == {items[key]["source"] for key in ("database_url", "redis_url")}
    assert SECRET not in answer.text


WRONG_SETTINGS: list[tuple[str, dict[str, Any], int]] = [
    ("nonsense", {"value": 1}, 404),
    ("%00", {"value": 1}, 404),
    ("namespace", {"value": 1}, 422),
    ("retention_days", {}, 422),
    ("retention_days", {"value": "7"}, 422),
    ("retention_days", {"value": -2}, 422),
    ("retention_days", {"value": 1e300}, 422),
    ("retention_days", {"value": 10**30}, 422),
    ("retention_days", {"value": True}, 422),
    ("retention_days", {"value": 1, "scope": "all"}, 422),
    ("retention_days", {"value": 1, "scope": "user"}, 422),
    ("retention_days", {"value": 1, "scope": "global", "user": "42"}, 422),
    ("retention_days", {"value": 1, "user": "x" * 300}, 422),
    ("retention_days", {"value": 1, "user": "\0"}, 422),
    ("retention_days", {"value": 1, "usr": "42"}, 422),
]


@SQLITE
async def test_settings_that_cannot_be(tracker: Tracker, api: Clients) -> None:
    """Nothing is stored."""
    async with api() as client:
        for key, body, status in WRONG_SETTINGS:
            answer = await client.put(f"/settings/{key}", json=body)
            assert status == answer.status_code, (key, body, answer.text)

    assert [] == await tracker.settings.rows()


# ── audit ───────────────────────────────────────────────────────────────────────────────────────
async def test_audit(tracker: Tracker, api: Clients) -> None:
    """Filters, times with and without an offset, and pages."""
    for n in range(3):
        await tracker.audit.append("a.b", f"t:{n}", by="42", reason="x", after={"n": n})
    ago = (datetime.now(UTC) - timedelta(hours=1)).replace(tzinfo=None).isoformat()
    async with api() as client:
        page = (await client.get("/audit/?limit=2&actor=42&action=a.b")).json()
        rest = (
            await client.get(f"/audit?page_size=2&actor=42&action=a.b&after={page['next']}")
        ).json()
        one = (await client.get(f"/audit?target=t:1&since={ago}")).json()["items"]
        none = (await client.get("/audit/", params={"until": f"{ago}Z"})).json()["items"]
        today = datetime.now(UTC).date().isoformat()
        whole = (await client.get(f"/audit?since={today}&until={today}")).json()["items"]
        plus = (await client.get(f"/audit?until={ago}+00:00")).json()["items"]

    assert ["t:2", "t:1", "t:0"] == [row["target"] for row in page["items"] + rest["items"]]
    assert None is rest["next"]
    assert ([], [], 3) == (none, plus, len(whole))
    assert {
        "at": one[0]["at"],
        "actor": "42",
        "action": "a.b",
        "target": "t:1",
        "reason": "x",
        "before": None,
        "after": {"n": 1},
    } == one[0]
    assert one[0]["at"].endswith("Z")


WRONG_QUERIES = [
    "limit=0",
    "limit=9999999999999999999999999999999",
    "after=x",
    "since=yesterday",
    "since=99999999999999999999",
    "since=0.5",
    "actor=%00",
    "target=" + "x" * 2000,
    "actr=42",
]


@SQLITE
async def test_bad_queries_of_the_audit(api: Clients) -> None:
    """422; the ends of the calendar are times like others."""
    async with api() as client:
        for query in WRONG_QUERIES:
            answer = await client.get(f"/audit/?{query}")
            assert 422 == answer.status_code, (query, answer.text)
        for end in ("0001-01-01", "9999-12-31", "9999-12-31T23:59-14:00", "0001-01-01T00:00+14:00"):
            answer = await client.get("/audit/", params={"since": end, "until": end})
            assert 200 == answer.status_code, (end, answer.text)


# ── health ──────────────────────────────────────────────────────────────────────────────────────
async def test_health(api: Clients) -> None:
    """All of it for who may read; a word for everybody."""
    tokens = ["read:" + "r" * 20]
    async with api(tokens=tokens) as client:
        closed = await client.get("/health")
        words = [await client.get(f"/health/{word}/") for word in ("live", "ready")]
    async with api(tokens=tokens, headers={"access-token": "r" * 20}) as client:
        whole = await client.get("/health/")

    assert 401 == closed.status_code
    assert [(200, {"status": "live"}), (200, {"status": "ready"})] == [
        (one.status_code, one.json()) for one in words
    ]
    assert 200 == whole.status_code
    told = whole.json()
    assert {"is_healthy", "live", "ready", "dependencies"} == told.keys()
    assert (False, True, True) == (told["is_healthy"], told["live"], told["ready"])
    assert {"database", "redis", "broker", "workers"} == told["dependencies"].keys()
    assert all({"ok", "latency", "error"} == one.keys() for one in told["dependencies"].values())


async def test_probes_are_open_where_an_application_asks_who_calls(api: Clients) -> None:
    """Its resolver may refuse whom it does not know: of a probe it is not asked."""

    def refuse(x_user: Annotated[str, Header()]) -> str:
        raise HTTPException(401, f"{x_user} is unknown")

    async with api(user=refuse, access=lambda user: "none") as client:
        words = [await client.get(f"/health/{word}") for word in ("live", "ready")]
        whole = await client.get("/health", headers={"x-user": "42"})

    assert [(200, {"status": "live"}), (200, {"status": "ready"})] == [
        (one.status_code, one.json()) for one in words
    ]
    assert 401 == whole.status_code


async def test_health_without_a_database(own_postgres: PostgresServer) -> None:
    """503 with the same body, before the first start and after; no password is told."""
    url = own_postgres.url
    own_postgres.stop()
    tracker = Tracker(url, redis=f"redis://u:{SECRET}@127.0.0.1:1/0")
    await tracker.startup(wait=False)
    async with client_of(application(tracker)) as client:
        whole = await client.get("/health")
        words = [await client.get(f"/health/{word}") for word in ("live", "ready")]
        own_postgres.start()
        after = await client.get("/health/ready")
    await tracker.shutdown()

    assert (503, False) == (whole.status_code, whole.json()["ready"])
    assert ("application/json", "2") == tuple(
        whole.headers[name] for name in ("content-type", "retry-after")
    )
    assert [(200, "live"), (503, "not ready")] == [
        (one.status_code, one.json()["status"]) for one in words
    ]
    assert (200, "ready") == (after.status_code, after.json()["status"])
    assert SECRET not in whole.text


# ── methods ─────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/tasks/x", "DELETE, GET"),
        ("/configs/x/", "DELETE, GET, PATCH"),
        ("/configs", "GET, POST"),
        ("/settings/retention_days", "DELETE, GET, PUT"),
    ],
)
async def test_methods_that_there_are(made_sqlite_url: str, path: str, methods: str) -> None:
    """A 405 lists those of all routes of a path."""
    app = create_app(Tracker(made_sqlite_url))
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://testserver/api/v1") as client:
        answer = await client.request("OPTIONS", path)

    assert (405, methods) == (answer.status_code, answer.headers["allow"])
    assert "method-not-allowed" == answer.json()["code"]


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────
async def test_no_answer_tells_a_secret(
    database_url: str, redis_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R38: planted wherever these resources read, found nowhere in what they answer."""
    for name in (
        "postgresql://u:{}@h/x?password={}&sslpassword={}",
        "redis://u:{}@h/0?password={}",
    ):
        variable = "AIOTRACK_DATABASE_URL" if name.startswith("p") else "AIOTRACK_REDIS_URL"
        monkeypatch.setenv(variable, name.format(SECRET, SECRET, SECRET))
    url, text = f"redis://u:{SECRET}@h/0", f"password={SECRET}"
    tracker = Tracker(database_url, redis=redis_url, settings={"namespace": queue_name})
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))

    @broker.task("shop.login", api_key=SECRET, dsn=url)
    async def login(user: str, password: str = SECRET) -> dict[str, Any]:
        return {"token": SECRET, "deep": [{"password": SECRET}], "seen": url}

    @broker.task("shop.fail")
    async def fail(password: str) -> None:
        raise ConnectionError(f"cannot reach {url} with {text}")

    secret = {"user": "u", "password": SECRET}
    told = ""
    await broker.startup()
    async with client_of(application(tracker)) as client:
        for name, parameters in (("shop.login", secret), ("shop.fail", {"password": SECRET})):
            body = {"task_type": name, "description": f"{text} at {url}", "parameters": parameters}
            sent = await client.post("/tasks", json=body)
            task_id = sent.json()["task_id"]
            await tracker.wait(task_id, timeout=20)
            told += sent.text + (await client.get(f"/tasks/{task_id}")).text
            told += (await client.delete(f"/tasks/{task_id}", params={"reason": text})).text
        bad = {"task_type": "shop.login", "description": "x", "parameters": {"pasword": SECRET}}
        told += (await client.post("/tasks", json=bad)).text
        config = {"name": "login", "task_type": "shop.login", "description": text}
        made = await client.post("/configs", json=config | {"parameters": secret})
        patched = await client.patch("/configs/login", json={"parameters": {**secret, "user": "v"}})
        told += made.text + patched.text + (await client.get("/configs")).text
        verb = {"action": "trigger", "reason": text}
        told += (await client.post("/configs/login/schedule", json=verb)).text
        async with tracker.lock("login", key=url):
            told += (await client.get("/locks/")).text
        await tracker.audit.append(
            text, url, by=text, reason=url, before=secret, after={"x": [secret]}
        )
        for path in ("/task-types/", "/settings/", "/queues/", "/audit/?limit=500", "/health"):
            answer = await client.get(path)
            assert 200 == answer.status_code
            told += f"\n{path}: {answer.text}"
    await broker.shutdown()

    assert SECRET not in told, told[max(0, told.index(SECRET) - 300) :][:600]
