"""What TaskIQ's own admin middleware posts: in any order, with all that may be in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from taskiq import InMemoryBroker

from aiotrack import Tracker
from aiotrack.api import Scope, create_app, create_ingest
from tests.contract.posts import BEGIN, SECOND, STORIES, Story, Told

SECRETS = {scope: f"a-secret-of-{scope}-{'x' * 16}" for scope in Scope}
TOKENS = [f"{scope}:{secret}" for scope, secret in SECRETS.items()]
AT = "2027-01-01T10:00:00.250000"

Post = tuple[str, dict[str, Any]]


@contextlib.asynccontextmanager
async def server(tracker: Tracker, **options: Any) -> AsyncIterator[AsyncClient]:
    """Give a client of an application that takes reports."""
    app = FastAPI()
    app.include_router(create_ingest(tracker, **options))
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


async def tell(client: AsyncClient, task_id: str, *posts: Post) -> None:
    """Post, one after the other."""
    for kind, body in posts:
        headers = {"content-type": "application/json"}
        url = f"/api/tasks/{task_id}/{kind}"
        answer = await client.post(url, content=json.dumps(body), headers=headers)
        assert (200, {"success": True}) == (answer.status_code, answer.json()), answer.text


def queued(at: str = AT, **more: Any) -> Post:
    """Give a post as the middleware makes it."""
    body = {"args": [], "kwargs": {}, "labels": {}, "taskName": "shop:pay", "worker": None}
    return "queued", {**body, "queuedAt": at, **more}


def started(at: str = AT, **more: Any) -> Post:
    """Give a post as the middleware makes it."""
    body = {"args": [], "kwargs": {}, "labels": {}, "taskName": "shop:pay", "worker": "main"}
    return "started", {**body, "startedAt": at, **more}


def executed(at: str = AT, *, error: str | None = None, value: Any = None, took: float = 0) -> Post:
    """Give a post as the middleware makes it."""
    returned = {"return_value": value}
    body = {"finishedAt": at, "executionTime": took, "error": error, "returnValue": returned}
    return "executed", body


def on_the_wire(story: Story) -> Iterator[Post]:
    """Give a story's posts as they are sent."""
    for post in story.posts:
        labels = {"_retries": post.attempt - 1, "X-Taskiq-requeue": str(post.requeues)}
        more = {"labels": labels, "kwargs": {"order": 7}}
        if "queued" in post.run_id:
            yield queued(_iso(post.origin.created_at), **more)
        elif "executed" not in post.run_id:
            yield started(_iso(post.started_at), **more)
        else:
            value = "paid" if post.result else None
            took = post.duration or 0.0
            yield executed(_iso(post.finished_at), error=post.error, value=value, took=took)


def _iso(micros: int | None) -> str:
    from aiotrack.clock import to_datetime

    moment = to_datetime(micros)
    assert moment is not None
    return moment.replace(tzinfo=None).isoformat()


async def as_told(tracker: Tracker, task_id: str) -> Told:
    """Give what a story expects, from the record."""
    from aiotrack.clock import to_micros

    shown = await tracker.get(task_id)
    runs = [
        (
            one.attempt,
            str(one.status),
            None if one.finished_at is None else (to_micros(one.finished_at) - BEGIN) / SECOND,
        )
        for one in await tracker.attempts(task_id)
    ]
    return str(shown.status), shown.attempt, runs


@pytest.mark.parametrize("seed", range(2))
async def test_any_order_makes_the_same_record(tracker: Tracker, seed: int) -> None:
    """Stories over HTTP, shuffled, some posts twice, several at once: as a person expects."""
    random = Random(seed)
    async with server(tracker) as client:

        async def play(name: str, *, at_once: bool) -> None:
            story, expected = STORIES[name]
            posts = list(on_the_wire(story))
            order = random.sample(posts, len(posts)) + random.choices(posts, k=2)
            task_id = f"{name.replace(' ', '-')}-{at_once}"
            if at_once:
                await asyncio.gather(*(tell(client, task_id, post) for post in order))
            else:
                await tell(client, task_id, *order)
            assert expected == await as_told(tracker, task_id), (name, order)

        for name in STORIES:
            await play(name, at_once=False)
            await play(name, at_once=True)


async def test_every_field(tracker: Tracker) -> None:
    """What a post says is in the record, under the names that a worker of ours gives it."""
    labels = {"queue": "slow", "priority": "7", "created_by": "42", "timeout": "30"}
    more = {"args": [1], "kwargs": {"order": 7, "password": "hunter2"}, "labels": labels}
    async with server(tracker) as client:
        await tell(
            client,
            "a1",
            queued("2027-01-01T10:00:00.250000", **more),
            started("2027-01-01T10:00:01.250000", **more),
            executed("2027-01-01T10:00:02.250000", value={"paid": [1, 2]}, took=1.0),
        )
    found = await tracker.get("a1")

    assert ("shop:pay", "shop", "main") == (found.task_name, found.module, found.worker)
    assert ([1], 7, "[redacted]") == (found.args, found.kwargs["order"], found.kwargs["password"])
    assert ("slow", 7, "42", 30) == (
        found.queue,
        found.priority,
        found.created_by,
        found.time_limit,
    )
    assert ("2027-01-01T10:00:00.250000+00:00", 1.0, 1.0) == (
        found.created_at.isoformat(),
        found.wait,
        found.duration,
    )
    assert ({"paid": [1, 2]}, 1, 0) == (found.result, found.runs, found.duplicates)


async def test_what_arrives_before_its_name(tracker: Tracker) -> None:
    """An end without its beginning is shown with an empty name, until that comes."""
    async with server(tracker) as client:
        await tell(client, "a1", executed(error="shop.errors.NoMoney('a', 'b')", took=2))
        nameless = await tracker.get("a1")
        await tell(client, "a1", queued())
        named = await tracker.get("a1")

    assert ("", "FAILURE") == (nameless.task_name, nameless.status)
    assert ("shop.errors.NoMoney", 2.0) == (nameless.error_type, nameless.duration)
    assert ("shop:pay", "shop", "FAILURE") == (named.task_name, named.module, named.status)


async def test_ids_names_and_values_of_any_kind(tracker: Tracker) -> None:
    """Whatever a task can carry is taken, and a refusal is none of the server's faults."""
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    odd = "a/b c%?#ü\x00\ud800"
    path = "a%2Fb%20c%25%3F%23%C3%BC%00%0A"
    async with server(tracker) as client:
        await tell(
            client,
            path,
            queued(taskName=f"shop:{odd}"),
            started(kwargs={"odd": odd, "deep": deep, "huge": 10**30, "nan": math.nan}),
            executed(value=["x" * 2_000_000, odd, math.inf], error=None, took=-3.0),
        )
    found = await tracker.get("a/b c%?#ü\x00\n")

    assert "SUCCESS" == found.status
    assert 0.0 == found.duration


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("queued", {}),
        ("queued", {**queued()[1], "queuedAt": "yesterday"}),
        ("queued", {**queued()[1], "queuedAt": "1950-01-01T00:00:00"}),
        ("queued", {**queued()[1], "queuedAt": "9999-12-31T23:59:59"}),
        ("queued", {**queued()[1], "queuedAt": 1_700_000_000}),
        ("queued", {**queued()[1], "args": {}}),
        ("started", {**started()[1], "taskName": 7}),
        ("executed", {**executed()[1], "executionTime": 1e300}),
        ("executed", {**executed()[1], "executionTime": "NaN"}),
        ("executed", {**executed()[1], "executionTime": False}),
        ("executed", {**executed()[1], "returnValue": 7}),
    ],
)
async def test_posts_that_are_none(tracker: Tracker, kind: str, body: dict[str, Any]) -> None:
    """They are refused with what is wrong, and leave no record."""
    async with server(tracker) as client:
        answer = await client.post(f"/api/tasks/a1/{kind}", json=body)

    assert (422, "application/problem+json") == (
        answer.status_code,
        answer.headers["content-type"],
    )
    assert [] == (await tracker.list()).items


async def test_who_may_report(tracker: Tracker) -> None:
    """A token with the scope to operate, in the header that the middleware sends."""
    kind, body = queued()
    async with server(tracker, tokens=TOKENS) as client:
        for sent, status in (
            (None, 401),
            ("y" * 40, 401),
            (SECRETS[Scope.READ], 403),
            (SECRETS[Scope.OPERATE], 200),
            (SECRETS[Scope.ADMIN], 200),
        ):
            headers = {} if sent is None else {"access-token": sent}
            answer = await client.post(f"/api/tasks/a1/{kind}", json=body, headers=headers)
            assert status == answer.status_code


async def test_where_it_is_served(tracker: Tracker) -> None:
    """At the root of an application of its own, unless that knows callers but no token."""
    for options, status in (({}, 401), ({"user": lambda request: "42"}, 404)):
        tokens = TOKENS if status == 401 else ()
        transport = ASGITransport(create_app(tracker, tokens=tokens, **options))
        async with AsyncClient(transport=transport, base_url="http://testserver") as client:
            assert status == (await client.post("/api/tasks/a1/queued", json={})).status_code


async def test_messages_that_are_not_to_be_recorded(tracker: Tracker) -> None:
    """A label says so; their end comes without labels, and leaves nothing either."""
    labels = {"track": "False"}
    async with server(tracker) as client:
        await tell(client, "a1", queued(labels=labels), started(labels=labels), executed())

    assert [] == (await tracker.list()).items


async def test_beside_our_own_middleware(tracker: Tracker, broker: InMemoryBroker) -> None:
    """A project that reports both ways to one tracker has each run once, as its worker saw it."""

    @broker.task("shop:pay")
    async def pay(token: str) -> str:
        return token

    async with server(tracker) as client:
        for first in (True, False):
            task_id = f"a-{first}"
            posts = [
                queued("2020-01-01T10:00:00", args=["hunter2"]),
                started("2020-01-01T10:00:01", args=["hunter2"]),
                executed("2020-01-01T10:00:02", value="a rumour", took=1),
            ]
            if first:
                await tell(client, task_id, *posts)
            sent = await pay.kicker().with_task_id(task_id).kiq("hunter2")
            await sent.wait_result()
            if not first:
                await tell(client, task_id, *posts)
            found = await tracker.get(task_id)

            assert ("SUCCESS", "hunter2") == (found.status, found.result)
            assert (["[redacted]"], 1, 0) == (found.args, found.runs, found.duplicates)
            assert 1 == len(await tracker.attempts(task_id))


async def test_verdicts_yield_to_the_workers_word(tracker: Tracker) -> None:
    """A run that was presumed to have timed out ends as its worker says; by hand it stays."""
    async with server(tracker) as client:
        await tell(client, "a1", started("2024-01-01T10:00:00"))
        assert 1 <= await tracker.mark_timed_out(timeout_minutes=1)
        presumed = await tracker.get("a1")
        await tell(client, "a1", executed("2024-01-01T12:00:00", took=7200, value=1))
        told = await tracker.get("a1")
        await tell(client, "a2", started("2024-01-01T10:00:00"))
        await tracker.update("a2", "failed", error="by hand")
        await tell(client, "a2", executed("2024-01-01T12:00:00", took=7200, value=1))
        kept = await tracker.attempts("a2")

    assert (True, "FAILURE") == (presumed.presumed, presumed.status)
    assert (False, "SUCCESS", 7200.0) == (told.presumed, told.status, told.duration)
    assert ["by hand"] == [one.error for one in kept]
