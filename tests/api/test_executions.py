"""Reading executions: lists and their parameters, one of them, its attempts and logs, counts."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from httpx import AsyncClient
from taskiq import InMemoryBroker

from aiotrack import Execution, Tracker
from aiotrack.api.counts import StatsAnswer
from tests.api.conftest import Clients

ROW = {
    *("id", "task_id", "task_name", "module", "status", "created_at", "started_at"),
    *("finished_at", "created_by", "duration", "is_completed", "is_running", "progress"),
    *("created_by_id", "created_by_username"),
}
WHOLE = ROW | {
    *("attempt", "queue", "priority", "worker", "wait", "args", "kwargs", "result", "error"),
    *("error_type", "error_class", "traceback", "metadata", "schedule_id", "config_id"),
    *("parent_task_id", "rerun_of", "presumed", "runs", "duplicates", "cancel_reason"),
    *("cancelled_by", "trace_id", "trace_url", "time_limit", "is_success"),
}
DAY = datetime(2026, 3, 1, tzinfo=UTC)


async def ids(client: AsyncClient, query: str = "", path: str = "/executions/") -> list[str]:
    """Give the task_ids of a page."""
    answer = await client.get(f"{path}?{query}")
    assert 200 == answer.status_code, answer.text
    return [one["task_id"] for one in answer.json()["items"]]


async def refused(client: AsyncClient, query: str, path: str = "/executions/") -> list[str]:
    """Give the paths of the faults of a query."""
    answer = await client.get(f"{path}?{query}")
    assert 422 == answer.status_code, answer.text
    assert "application/problem+json" == answer.headers["content-type"]
    return [one["path"] for one in answer.json()["errors"]]


@pytest.fixture
async def rows(tracker: Tracker) -> list[Execution]:
    """Eight executions of three days, the oldest first."""
    told: list[dict[str, Any]] = [
        {"task_name": "mail.send", "status": "success", "metadata": {"n": 7, "s": "7", "b": True}},
        {"task_name": "mail.send", "status": "failed", "error": "no", "created_by": 42},
        {"task_name": "mail.read", "status": "started", "created_by": 42},
        {"task_name": "shop.rows", "status": "pending", "metadata": {"n": None}},
        {"task_name": "shop.rows", "status": "revoked", "created_by": "ada"},
        {"task_name": "shop.sync", "status": "success", "result": {"sum": 10**15}},
        {"task_name": "shop.sync", "status": "retry", "metadata": {"a.b": "x", "n": 7.0}},
        {"task_name": "x", "status": "success", "module": "näme, with comma"},
    ]
    return [
        await tracker.register(
            f"t{number}", **one, created_at=DAY + timedelta(hours=9 * number), started_at=None
        )
        for number, one in enumerate(told)
    ]


# ── lists ───────────────────────────────────────────────────────────────────────────────────────
async def test_a_list_shows_what_the_contract_says(api: Clients, rows: list[Execution]) -> None:
    """The newest first, with exactly these fields."""
    async with api() as client:
        answer = (await client.get("/executions/")).json()
        last = answer["items"][-1]

    assert {"items", "next"} == set(answer)
    assert [f"t{number}" for number in range(7, -1, -1)] == [
        one["task_id"] for one in answer["items"]
    ]
    assert answer["next"] is None
    assert all(set(one) == ROW for one in answer["items"])
    assert ("SUCCESS", "mail", "2026-03-01T00:00:00Z") == (
        last["status"],
        last["module"],
        last["created_at"],
    )
    assert {"percent": None, "message": None, "step": None} == last["progress"]


NARROWED = [
    ("module=mail", "210"),
    ("module=mail&module=n%C3%A4me,%20with%20comma", "7210"),
    ("task_name=shop.sync", "65"),
    ("status=failed", "1"),
    ("status=FAILURE,running&status=queued", "321"),
    ("created_by=42", "21"),
    ("created_by=42&created_by=ada", "421"),
    ("text=shop.", "6543"),
    ("text=t3", "3"),
    ("metadata.n=7", "60"),
    ("metadata.s=7", ""),
    ("metadata.s=%227%22", "0"),
    ("metadata.b=true&metadata.n=7", "0"),
    ("metadata.n=null", "3"),
    ("metadata.a.b=x", "6"),
    ("metadata.n=[7]", ""),
    ("metadata.=x", ""),
    ("start_date=2026-03-02", "76543"),
    ("end_date=2026-03-01", "210"),
    ("start_date=2026-03-01T09:00:00&end_date=2026-03-01T18:00:00Z", "21"),
    ("since=2026-03-01T10:00:00%2B01:00&until=2026-03-01", "21"),
    ("since=2026-03-01T10:00:00+01:00&until=2026-03-01", "21"),
    ("since=2026-03-01&start_date=2026-03-03&end_date=2027-01-01&until=2026-03-03", "76"),
    ("order=created_at&page_size=2", "01"),
    ("order=%2Bcreated_at&limit=2", "01"),
    ("page_size=2&limit=3", "76"),
    ("page=2&page_size=3", "432"),
    ("page=3&limit=3", "10"),
    ("page=4&limit=3", ""),
    ("page=2&limit=3&order=-finished_at&status=success,failed,revoked", "10"),
    ("page=2&limit=2&text=shop.", "43"),
    ("page=2&limit=1&module=mail&module=shop&order=created_at", "1"),
    ("page=2&limit=1&status=success", "5"),
    ("page=3&limit=1&text=t&status=success,failed", "1"),
    ("worker=&module=&text=&status=,", "76543210"),
    ("config_id=7", ""),
    ("schedule_id=task_7", ""),
    ("error_class=timeout&worker=w", ""),
    ("text=%00", ""),
    ("module=%00&created_by=%00", ""),
    ("module=%ED%A0%80", ""),
]


async def test_every_parameter_narrows(api: Clients, rows: list[Execution]) -> None:
    """As the filters of `tracker.list` do; empty ones are those of forms nobody filled in."""
    async with api() as client:
        for query, expected in NARROWED:
            assert [f"t{one}" for one in expected] == await ids(client, query), query


BAD = [
    ("modul=mail", ["query.modul"]),
    ("page_size=0&limit=501&x=1", ["query.page_size", "query.limit", "query.x"]),
    (f"config_id={10**30}", ["query.config_id.0"]),
    (f"config_id={'9' * 6000}", ["query.config_id.0"]),
    ("config_id=seven&page=0", ["query.config_id.0", "query.page"]),
    ("status=nonsense", ["query.status"]),
    ("order=id", ["query.order"]),
    ("since=never&end_date=2026-13-01", ["query.end_date", "query.since"]),
    ("since=0001-01-01T00:00:00%2B14:00&page=x", ["query.page"]),
    ("metadata.a=1&metadata.a=2", ["query.metadata.a"]),
    (f"metadata.a={'x' * 1001}", ["query.metadata.a"]),
    (f"metadata.a={10**30}", []),
    (f"text={'x' * 1001}", ["query.text"]),
    ("&".join(f"module={number}" for number in range(101)), ["query.module"]),
    ("&".join(f"metadata.{number}=x" for number in range(101)), []),
    ("after=nonsense", []),
    (f"after={'x' * 1001}", ["query.after"]),
    ("page=201", []),
    ("page=10001&page_size=1", ["query.page"]),
    ("count=perhaps", ["query.count"]),
]


async def test_one_value_is_not_given_twice(api: Clients) -> None:
    """Which of them counts, nobody could know; where several are alternatives, they all do."""
    async with api() as client:
        answer = await client.get("/executions/?text=a&text=b&page_size=5&page_size=6")
        audit = await client.get("/audit/?actor=a&actor=b")
        fine = await client.get("/executions/?module=a&module=b&status=&worker=")
    assert 422 == answer.status_code
    assert {"query.text", "query.page_size"} == {one["path"] for one in answer.json()["errors"]}
    assert 422 == audit.status_code
    assert {"query.actor"} == {one["path"] for one in audit.json()["errors"]}
    assert 200 == fine.status_code


async def test_bad_parameters_are_named(api: Clients) -> None:
    """All of them, before anything is asked of the database."""
    async with api() as client:
        for query, paths in BAD:
            assert paths == await refused(client, query), query


@pytest.mark.parametrize(
    "path", ["1", "1/attempts", "1/events", "by-task-id/t0", "by-task-id/t0/logs", "status"]
)
async def test_what_takes_no_filters_says_so(
    api: Clients, rows: list[Execution], path: str
) -> None:
    """A parameter that does nothing would be a typing error that nobody sees."""
    async with api() as client:
        answer = await client.get(f"/executions/{path}?task_id=t0&module=x&module=y")
        assert 422 == answer.status_code
        assert "query.module" in {one["path"] for one in answer.json()["errors"]}


async def test_moments_at_the_ends_of_time(api: Clients, rows: list[Execution]) -> None:
    """They are moments, too."""
    async with api() as client:
        for query in (
            "since=0001-01-01T00:00:00%2B14:00&until=9999-12-31T23:59:59-14:00",
            "start_date=0001-01-01&end_date=9999-12-31",
        ):
            assert 8 == len(await ids(client, query))


async def test_pages_are_the_list(api: Clients, tracker: Tracker, rows: list[Execution]) -> None:
    """By cursor and by number, in every order, with rows that have no value."""
    async with api() as client:
        for order in ("-created_at", "created_at", "-finished_at", "finished_at", "-duration"):
            everything = await ids(client, f"order={order}")
            for size in (1, 3, 8):
                pages = [
                    await ids(client, f"order={order}&page_size={size}&page={page}")
                    for page in range(1, 8 // size + 2)
                ]
                assert everything == [one for page in pages for one in page], (order, size)
            second = (await client.get(f"/executions/?order={order}&limit=2&page=2")).json()
            assert everything[4:6] == await ids(
                client, f"order={order}&limit=2&after={second['next']}&page=7"
            )


async def test_a_count_is_given_when_asked_for(api: Clients, rows: list[Execution]) -> None:
    """Exact as far as 10,000."""
    async with api() as client:
        answer = (await client.get("/executions/?count=true&limit=1&module=mail")).json()
        past = (await client.get("/executions/?count=true&page=9&module=mail")).json()

    assert (3, True, 1) == (answer["total"], answer["total_exact"], len(answer["items"]))
    assert {"items": [], "next": None, "total": 3, "total_exact": True} == past


async def test_names_of_people(api: Clients, rows: list[Execution]) -> None:
    """The application knows them; each is asked for once."""
    asked = []

    async def name_of(user_id: str) -> str | None:
        asked.append(user_id)
        return {"42": "Ada"}.get(user_id)

    async with api(username=name_of) as client:
        items = (await client.get("/executions/")).json()["items"]
        one = (await client.get("/executions/by-task-id/t1/")).json()

    assert ["ada", "42", "42"] == asked
    assert {(None, None), ("42", "Ada"), ("ada", None)} == {
        (item["created_by_id"], item["created_by_username"]) for item in items
    }
    assert ("42", "42", "Ada") == tuple(
        one[name] for name in ("created_by", "created_by_id", "created_by_username")
    )


# ── whose they are ──────────────────────────────────────────────────────────────────────────────
async def test_a_list_is_the_callers_own_unless_he_asks(
    api: Clients, rows: list[Execution]
) -> None:
    """By `my_tasks` and `created_by`, for lists and counts alike."""
    cases = {
        "": "21",
        "my_tasks=true": "21",
        "my_tasks=False": "76543210",
        "my_tasks=whatever": "21",
        "created_by=ada": "4",
        "created_by=ada&my_tasks=true": "4",
        "my_tasks=false&module=shop": "6543",
    }
    async with api(user=lambda request: 42) as client:
        for query, expected in cases.items():
            assert [f"t{one}" for one in expected] == await ids(client, query), query
            stats = (await client.get(f"/executions/stats/?{query}")).json()
            assert len(expected) == stats["total"], query
        assert ["t2", "t1"] == await ids(client, "my_tasks=false", "/executions/my-tasks/")
        other = await client.get("/executions/my-tasks/?created_by=ada")
        assert 403 == other.status_code


async def test_who_has_access_to_his_own_sees_nothing_else(
    api: Clients, rows: list[Execution], tracker: Tracker
) -> None:
    """403 for somebody else's lists, and what is somebody else's is not there."""
    async with api(user=lambda request: "42", access="own") as client:
        for query in ("", "my_tasks=false", "created_by=42"):
            assert ["t2", "t1"] == await ids(client, query)
        for path in ("/executions/", "/executions/stats/", "/executions/events/"):
            assert 403 == (await client.get(f"{path}?created_by=ada")).status_code, path
            assert 403 == (await client.get(f"{path}?created_by=42&created_by=x")).status_code
        theirs = (await tracker.get("t4")).id
        for path in ("", "attempts/", "logs/", "events/"):
            found = [
                await client.get(f"/executions/{name}/{path}")
                for name in (theirs, 987654321, "by-task-id/t4", "by-task-id/none")
            ]
            assert [404] * 4 == [one.status_code for one in found], path
        for path in ("sync/", "cancel/", "rerun/"):
            for name in (theirs, "by-task-id/t4"):
                answer = await client.post(f"/executions/{name}/{path}")
                assert 404 == answer.status_code, path
                assert "execution-not-found" == answer.json()["code"]
        assert 404 == (await client.get("/executions/status/?task_id=t4")).status_code
        assert 200 == (await client.get("/executions/by-task-id/t1")).status_code


async def test_nobody_in_particular_sees_all(api: Clients, rows: list[Execution]) -> None:
    """A token is no caller; `/my-tasks/` needs one."""
    secret = "s" * 16
    async with api(tokens=[f"read:{secret}"], headers={"access-token": secret}) as client:
        assert 8 == len(await ids(client))
        assert 8 == len(await ids(client, "my_tasks=true"))
        answer = await client.get("/executions/my-tasks/")
        assert (401, "unauthorized") == (answer.status_code, answer.json()["code"])


# ── one of them ─────────────────────────────────────────────────────────────────────────────────
async def test_one_execution_with_all_that_is_known(
    api: Clients, tracker: Tracker, rows: list[Execution]
) -> None:
    """By its id, by its task_id, and as a status; a slash at the end is optional."""
    await tracker.progress(40, "page 4", "fetch", task_id="t2", rows=7)
    known = await tracker.get("t2")
    async with api() as client:
        found = [
            (await client.get(path)).json()
            for path in (
                f"/executions/{known.id}/",
                f"/executions/{known.id}",
                "/executions/by-task-id/t2/",
                "/executions/by-task-id/t2",
                "/executions/status/?task_id=t2",
                "/executions/status?task_id=t2&sync=false",
            )
        ]

    assert set(found[0]) == WHOLE
    assert all(one == found[0] for one in found)
    assert {"percent": 40, "message": "page 4", "step": "fetch"} == found[0]["progress"]
    assert 7 == found[0]["metadata"]["rows"]
    assert (True, False, False) == tuple(
        found[0][name] for name in ("is_running", "is_completed", "is_success")
    )


TASK_IDS = [
    *("a/b", "a/b/attempts", "attempts", "events", "a/", "/", "a%2Fb", "%", "a b+c", "ä€😀"),
    *("a?b#c", "42", "x\n", "\x00", "x" * 300, "a;b", "{id}", "<script>", "by-task-id"),
]


async def test_any_task_id_stands_in_a_path(api: Clients, tracker: Tracker) -> None:
    """Percent-encoded; whatever stands under an id stands under it, too."""
    async with api() as client:
        for task_id in TASK_IDS:
            known = await tracker.register(task_id, "shop.rows", status="failed", error="no")
            for name in (known.id, f"by-task-id/{quote(task_id, safe='')}"):
                await shows(client, f"/executions/{name}", known.id)


async def test_a_task_id_that_is_no_text(api: Clients, tracker: Tracker) -> None:
    """No path holds a lone surrogate, but JSON does."""
    known = await tracker.register("\ud800", "shop.rows", status="failed", error="no")
    async with api() as client:
        await shows(client, f"/executions/{known.id}", known.id)
        (one,) = (await client.get("/executions/")).json()["items"]

    assert "\ud800" == one["task_id"]


async def shows(client: AsyncClient, path: str, id_: int) -> None:
    """Look at everything under the path of an execution that failed."""
    for end in ("", "/"):
        one = await client.get(path + end)
        assert (200, id_) == (one.status_code, one.json().get("id")), (path, one.text)
        runs = await client.get(f"{path}/attempts{end}")
        assert ["no"] == [run["error"] for run in runs.json()["items"]]
        lines = await client.get(f"{path}/logs{end}")
        assert {"items": [], "next": None} == lines.json()
        stream = await client.get(f"{path}/events{end}")
        assert "text/event-stream; charset=utf-8" == stream.headers["content-type"]
        assert "event: execution" in stream.text


async def test_what_nobody_knows(api: Clients) -> None:
    """Is a 404 everywhere, and so is what can be no id."""
    async with api() as client:
        for name in ("987654321", str(2**63 - 1), "by-task-id/none", "by-task-id/a%2Fb%2Fc"):
            for what in ("", "attempts/", "logs/", "events/"):
                answer = await client.get(f"/executions/{name}/{what}")
                assert (404, "execution-not-found") == (
                    answer.status_code,
                    answer.json()["code"],
                )
            for what in ("sync/", "cancel/", "rerun/"):
                answer = await client.post(f"/executions/{name}/{what}")
                assert 404 == answer.status_code
        assert 404 == (await client.get("/executions/status/?task_id=none")).status_code
        for name in ("abc", str(10**30), "9" * 6000, "-1", "1.5", "%00"):
            answer = await client.get(f"/executions/{name}/")
            assert 404 == answer.status_code
        assert 405 == (await client.get("/executions/cancel/")).status_code
        assert ["query.task_id"] == await refused(client, "", "/executions/status/")
        assert ["query.sync"] == await refused(
            client, "task_id=x&sync=maybe", "/executions/status/"
        )


async def test_attempts_and_logs(api: Clients, tracker: Tracker, broker: InMemoryBroker) -> None:
    """Each run with its own error, and what it logged, by pages."""

    @broker.task("shop:speak")
    async def speak() -> None:
        for number in range(5):
            logging.getLogger("shop").warning("line %d", number)
        raise ValueError("no more")

    sent = await speak.kiq()
    await tracker.wait(sent.task_id, 10)
    async with api() as client:
        path = f"/executions/by-task-id/{sent.task_id}"
        (run,) = (await client.get(f"{path}/attempts/")).json()["items"]
        first = (await client.get(f"{path}/logs/?limit=3&level=WARNING")).json()
        rest = (
            await client.get(f"{path}/logs/?page_size=3&level=WARNING&after={first['next']}")
        ).json()
        faults = await refused(client, "level=LOUD&attempt=0&limit=9999&x=1", f"{path}/logs/")

    assert (1, "first", "FAILURE", "no more") == tuple(
        run[name] for name in ("attempt", "cause", "status", "error")
    )
    messages = [line["message"] for line in first["items"] + rest["items"]]
    assert [f"line {number}" for number in range(5)] == messages[:5]
    assert {"at", "level", "logger", "message", "attempt"} == set(first["items"][0])
    assert {"query.attempt", "query.limit", "query.x"} <= set(faults)


# ── counts ──────────────────────────────────────────────────────────────────────────────────────
async def test_counts(api: Clients, tracker: Tracker, rows: list[Execution]) -> None:
    """What `tracker.stats` gives, all of it."""
    stats = await tracker.stats()
    async with api() as client:
        found = (await client.get("/executions/stats/")).json()
        mail = (await client.get("/executions/stats/?module=mail")).json()
        faults = await refused(client, "limit=3&order=id", "/executions/stats/")

    assert (8, 3, 1, 0.25) == tuple(
        found[name] for name in ("total", "success", "failure", "failure_rate")
    )
    assert {"mail", "shop", "näme, with comma"} == set(found["by_module"])
    assert 2 == found["by_task_name"]["mail.send"]["total"]
    assert len(stats.timeline) == len(found["timeline"])
    assert 8 == sum(bucket["total"] for bucket in found["timeline"])
    assert (3, ["mail"]) == (mail["total"], list(mail["by_module"]))
    assert ["query.limit", "query.order"] == faults


async def test_counts_of_durations(api: Clients, tracker: Tracker) -> None:
    """From nothing to the longest, each where it belongs; a model of the document takes them."""
    for number, seconds in enumerate((0.0, 0.3, 0.4, 7.0)):
        told = {"started_at": DAY, "finished_at": DAY + timedelta(seconds=seconds)}
        await tracker.register(str(number), "shop.bill", status="success", **told)
    async with api() as client:
        found = (await client.get("/executions/stats/")).json()

    StatsAnswer.model_validate(found)
    told = {(one["above"], one["up_to"]): one["count"] for one in found["durations"]}
    assert {(0.0, 0.001): 1, (0.2, 0.5): 2, (5.0, 10.0): 1} == {
        bounds: count for bounds, count in told.items() if count
    }
    assert (5.0, 10.0) == list(told)[-1]
