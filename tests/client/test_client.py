"""The client says what the tracker says, over HTTP; and follows through restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from taskiq import InMemoryBroker

from aiotrack import (
    AccessRefused,
    CancelOutcome,
    DefinitionNotFound,
    ExecutionNotFound,
    InvalidDefinition,
    InvalidInput,
    InvalidQuery,
    InvalidSetting,
    InvalidStatus,
    InvalidValue,
    LockLost,
    NotRepeatable,
    Tracker,
    TrackerMiddleware,
    UnknownTask,
    WaitTimeout,
)
from aiotrack.api import create_app
from aiotrack.client import Client
from aiotrack.client.follow import follow
from tests.client.site import Apart, running

SECRET = "y" * 24

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what the database has no part in."""


@pytest.fixture
async def tracker(database_url: str, redis_url: str, queue_name: str) -> AsyncIterator[Tracker]:
    """A started tracker with Redis, on each database."""
    async with Tracker(database_url, redis=redis_url, settings={"namespace": queue_name}) as made:
        yield made


@pytest.fixture
async def broker(tracker: Tracker) -> InMemoryBroker:
    """A broker whose tasks run where they are sent; the server starts and stops it."""
    return InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))


@pytest.fixture
async def client(tracker: Tracker, broker: InMemoryBroker) -> AsyncIterator[Client]:
    """A client of a server with that tracker and broker."""
    app = create_app(tracker, broker=broker, tokens=[f"me:admin:{SECRET}"])
    async with running(app) as url, Client(url, token=SECRET, retries=1) as client:
        yield client


async def test_what_the_tracker_says(
    tracker: Tracker, broker: InMemoryBroker, client: Client
) -> None:
    """Every verb gives the same values as the tracker's."""

    @broker.task("shop.pay", queue="slow", timeout=60)
    async def pay(order: int, note: str = "") -> dict[str, int]:
        if order == 13:
            raise ValueError("no money")
        await tracker.progress(50, "half", step="pay")
        return {"paid": order}

    for number in (7, 13):
        sent = await pay.kicker().with_labels(created_by="42").kiq(order=number)
        await sent.wait_result()
    await tracker.register("by hand/with %25 ü", "shop.count", metadata={"order_id": 7})

    assert await tracker.health() is not None
    ids = [one.task_id for one in (await tracker.list()).items]
    for task_id in ids:
        whole = await tracker.get(task_id)
        assert whole == await client.get(task_id)
        assert whole == await client.get_by_id(whole.id)
        assert await tracker.attempts(task_id) == await client.attempts(task_id)
        assert await tracker.logs(task_id) == await client.logs(task_id, level="DEBUG")
        assert whole == await client.sync(task_id)
    assert ids == [one.task_id for one in (await client.list()).items]
    assert await tracker.stats() == await client.stats()
    assert await tracker.count() == await client.count()
    assert await tracker.workers() == await client.workers()
    assert await tracker.queues() == await client.queues()
    assert [] == await client.locks.list()
    assert await tracker.alerts.list() == await client.alerts.list()
    assert await tracker.settings.explain("max_queue") == await client.settings.explain("max_queue")
    (told,) = await client.tasks()
    (known,) = tracker.tasks()
    assert (known.name, known.parameters) == (told.name, told.parameters)
    assert (await client.health()).dependencies["database"].ok


async def test_filters(tracker: Tracker, client: Client) -> None:
    """They find what the tracker finds; pages go on; a row tells the progress."""
    for number in range(5):
        await tracker.register(
            number,
            f"shop.{number % 2}",
            created_by=number,
            metadata={"order_id": number, "kind": "7", "progress_percent": 10 * number},
            status="done" if number else "queued",
        )
    now = datetime.now(UTC)
    for filters, expected in (
        ({"module": "shop"}, 5),
        ({"module": ["shop", "else"], "task_name": "shop.1"}, 2),
        ({"status": "completed"}, 4),
        ({"status": ["queued", "SUCCESS"]}, 5),
        ({"created_by": [1, "2"]}, 2),
        ({"metadata": {"order_id": 3}}, 1),
        ({"metadata": {"kind": "7"}}, 5),
        ({"metadata": {"kind": 7}}, 0),
        ({"since": timedelta(hours=1), "until": now + timedelta(hours=1)}, 5),
        ({"until": now - timedelta(hours=1)}, 0),
        ({"text": "shop.0"}, 3),
        ({"config_id": 7, "worker": "w", "schedule_id": "s", "error_class": "lost"}, 0),
    ):
        assert expected == len((await client.list(**filters)).items), filters
        assert expected == (await client.count(**filters)).value, filters
        assert expected == (await client.stats(**filters)).total, filters
    first = await client.list(limit=2, order="created_at")
    second = await client.list(limit=2, order="created_at", after=first.next)
    assert ["0", "1", "2", "3"] == [one.task_id for one in (*first.items, *second.items)]
    assert 10 == first.items[1].metadata["progress_percent"]


@SQLITE
async def test_ids_that_a_url_loses(tracker: Tracker, client: Client) -> None:
    """Dots are found all the same, by every verb; what cannot be asked for is said so."""
    for task_id in (".", "..", "...", "a/../b", "%2e"):
        known = await tracker.register(task_id, "shop.pay")
        assert known == await client.get(task_id), task_id
        assert await tracker.attempts(task_id) == await client.attempts(task_id)
        assert [] == (await client.logs(task_id)).items
        assert known == await client.sync(task_id)
        assert known == await anext(client.watch(task_id))
        await client.cancel(task_id, reason=f"as {task_id}")
        assert f"as {task_id}" == (await client.get(task_id)).cancel_reason, task_id
    await tracker.register("\ud800x", "shop.pay")
    for task_id in ("\ud800x", ""):
        with pytest.raises(InvalidValue, match="use get_by_id"):
            await client.get(task_id)


@SQLITE
async def test_the_trackers_own_errors(
    tracker: Tracker, broker: InMemoryBroker, client: Client
) -> None:
    """What the tracker would raise is raised, with its data."""

    @broker.task("shop.pay")
    async def pay(order: int, token: str = "") -> None:
        await asyncio.sleep(0)

    await (await pay.kicker().with_task_id("secret").kiq(order=1, token="t")).wait_result()
    await tracker.register("unknown", "no.such:task", status="failed")
    for call, kind in (
        (client.get("nobody"), ExecutionNotFound),
        (client.get_by_id(987_654), ExecutionNotFound),
        (client.attempts("nobody"), ExecutionNotFound),
        (client.logs("nobody"), ExecutionNotFound),
        (client.cancel("nobody"), ExecutionNotFound),
        (client.sync("nobody"), ExecutionNotFound),
        (client.wait("nobody"), ExecutionNotFound),
        (client.rerun("secret"), NotRepeatable),
        (client.rerun("unknown"), UnknownTask),
        (client.list(limit=0), InvalidQuery),
        (client.list(after="nonsense"), InvalidQuery),
        (client.list(order="size"), InvalidQuery),
        (client.list(status="happy"), InvalidStatus),
        (client.list(since=datetime(2026, 1, 1)), InvalidQuery),  # noqa: DTZ001 - the fault
        (client.list(metadata={"a": [1]}), InvalidQuery),
        (client.list(nonsense=1), InvalidQuery),
        (client.submit("no.such:task"), InvalidInput),
        (client.submit("shop.pay", [1]), InvalidInput),
        (client.submit("shop.pay", kwargs={"order": datetime.now(UTC)}), InvalidInput),
        (client.submit("shop.pay", kwargs={"order": float("nan")}), InvalidInput),
        (client.submit("shop.pay", kwargs={"order": "\ud800"}), InvalidInput),
        (client.list(text="\ud800"), InvalidQuery),
        (client.list(created_by=["x" * 900] * 90), InvalidQuery),
    ):
        with pytest.raises(kind) as caught:
            await call
        assert kind is type(caught.value), caught.value
    with pytest.raises(InvalidInput) as caught:
        await client.submit("shop.pay", kwargs={"odr": 1}, priority=11)
    assert 2 <= len(caught.value.faults)
    assert "nobody" == (await _raised(client.get("nobody"))).key
    async with Client(client._transport.base, token="z" * 24) as other:
        with pytest.raises(AccessRefused):
            await other.workers()


async def _raised(call: Any) -> Any:
    with pytest.raises(Exception) as caught:
        await call
    return caught.value


@SQLITE
async def test_sending(tracker: Tracker, broker: InMemoryBroker, client: Client) -> None:
    """What is sent by name runs; it can be waited for, sent again, and cancelled."""
    go = asyncio.Event()

    @broker.task("shop.pay")
    async def pay(order: int) -> int:
        await go.wait()
        return order

    sent = await client.submit("shop.pay", kwargs={"order": 7}, priority=5, description="a bill")
    assert ("a bill", 5) == (sent.metadata["description"], sent.priority)
    with pytest.raises(WaitTimeout) as caught:
        await client.wait(sent.task_id, timeout=0.05)
    assert sent.task_id == caught.value.execution.task_id
    go.set()
    done = await client.wait(sent.task_id, timeout=30)
    assert 7 == done.result
    again = await client.rerun(sent.task_id)
    assert sent.task_id == (await client.wait(again.task_id, timeout=30)).rerun_of
    assert "finished" == await client.cancel(sent.task_id, reason="too late")


@SQLITE
async def test_definitions(tracker: Tracker, broker: InMemoryBroker, client: Client) -> None:
    """They are made, found, changed, scheduled and deleted as by the tracker."""

    @broker.task("shop.pay")
    async def pay(order: int) -> int:
        return order

    fields = {"task_type": "shop.pay", "parameters": {"order": 7}}
    made = await client.definitions.create(
        name="a bill", schedule_kind="interval", schedule={"seconds": 3600}, **fields
    )
    assert made == await tracker.definitions.get(made.id) == await client.definitions.get("a bill")
    assert [made] == (await client.definitions.list(task_type="shop.pay")).items
    changed = await client.definitions.update("a bill", priority=9)
    assert (9, made.id) == (changed.priority, changed.id)
    assert "inactive" == await client.schedules.status(made.id)
    assert "active" == await client.schedules.start(made.id)
    assert await client.schedules.next_run("a bill") == await tracker.schedules.next_run(made.id)
    assert "paused" == await client.schedules.pause(made.id, reason="holidays")
    assert "active" == await client.schedules.resume(made.id)
    sent = await client.schedules.trigger(made.id)
    assert 7 == (await client.wait(sent.task_id, timeout=30)).result
    assert "inactive" == await client.schedules.stop(made.id)
    assert {made.id: "inactive"} == await client.schedules.statuses()
    assert {"shop.pay": 1} == await client.definitions.count_by_type()
    assert 1 == (await client.definitions.stats("a bill")).success
    with pytest.raises(InvalidDefinition) as caught:
        await client.definitions.create(name="a bill", **fields, priority=11)
    assert 2 <= len(caught.value.faults)
    await client.definitions.delete(made.id)
    for call in (client.definitions.get(made.id), client.schedules.start("a bill")):
        with pytest.raises(DefinitionNotFound):
            await call


@SQLITE
async def test_a_definition_whose_name_is_a_number(
    tracker: Tracker, broker: InMemoryBroker, client: Client
) -> None:
    """It is meant before the one with that id, by every verb, as the tracker means it."""

    @broker.task("shop.pay")
    async def pay() -> None:
        await asyncio.sleep(0)

    first = await tracker.definitions.create(name="first", task_type="shop.pay")
    named = await tracker.definitions.create(name=str(first.id), task_type="shop.pay")
    dots = await tracker.definitions.create(name="..", task_type="shop.pay")
    definitions = client.definitions

    assert named == await tracker.definitions.get(str(first.id))
    assert named == await definitions.get(str(first.id))
    assert named == await definitions.get_by_name(str(first.id))
    assert first == await definitions.get(first.id)
    assert dots == await definitions.get(str(dots.id))
    assert dots == await definitions.get_by_name("..") == await definitions.get("..")
    for call in (
        definitions.get_by_name(str(dots.id)),
        definitions.get("."),
        definitions.get(""),
        definitions.get("\ud800"),
        definitions.get_by_name("\ud800"),
    ):
        with pytest.raises(DefinitionNotFound):
            await call
    assert named.id == (await definitions.update(str(first.id), priority=9)).id
    await definitions.delete(str(first.id))
    await definitions.delete("..")

    assert [first] == (await definitions.list()).items


@SQLITE
async def test_many_at_once(tracker: Tracker, broker: InMemoryBroker, client: Client) -> None:
    """What a filter matches is cancelled, or sent again, each with its outcome."""

    @broker.task("shop.pay")
    async def pay(order: int) -> None:
        raise ValueError(order)

    for number in range(3):
        await tracker.register(f"p{number}", "mail.send")
    assert 2 == (await client.cancel_many(module="mail", limit=2))[CancelOutcome.REVOKED]
    assert {CancelOutcome.REVOKED: 1} == await client.cancel_many(reason="enough")
    assert "enough" == (await tracker.get("p0")).cancel_reason
    sent = await client.submit("shop.pay", kwargs={"order": 7}, priority="urgent")
    assert 10 == sent.priority
    await client.wait(sent.task_id, timeout=30)
    await tracker.register("unknown", "no.such:task", status="failed")
    done, not_done = await client.rerun_many(status="failed", module=["shop", "no"])
    assert done.execution is not None
    assert sent.task_id == done.execution.rerun_of
    assert (None, UnknownTask) == (not_done.execution, type(not_done.error))
    with pytest.raises(InvalidInput, match="limit"):
        await client.rerun_many(limit=501)


async def test_a_filter_that_fits_nothing(
    tracker: Tracker, broker: InMemoryBroker, client: Client
) -> None:
    """None of no values, and no empty text, is everything: neither listed, nor cancelled."""

    @broker.task("shop.pay")
    async def pay(order: int) -> None:
        await asyncio.sleep(0)

    await (await pay.kiq(order=7)).wait_result()
    await tracker.register("waits", "mail.send", created_by="ada")
    nothing: list[dict[str, Any]] = [
        {"worker": []},
        {"status": []},
        {"config_id": ()},
        {"module": [], "worker": "w"},
        {"task_name": iter([]), "module": "mail"},
        {"created_by": ""},
        {"worker": [""], "since": timedelta(hours=1)},
        {"schedule_id": "\ud800"},
    ]
    for filters in nothing:
        assert [] == (await client.list(**filters)).items, filters
    for filters in nothing[:4]:
        assert await tracker.count(**filters) == await client.count(**filters), filters
        assert await tracker.stats(**filters) == await client.stats(**filters), filters
    for filters in (*nothing[:4], {"created_by": ""}):
        assert not await tracker.cancel_many(**filters), filters
        assert not await client.cancel_many(**filters), filters
        assert [] == await client.rerun_many(**filters), filters
    for filters in ({"text": ""}, {"metadata": {}, "worker": None}):
        assert 2 == (await client.count(**filters)).value, filters
        for many in (client.cancel_many, client.rerun_many):
            with pytest.raises(InvalidQuery, match="leave it out if all are meant"):
                await many(**filters)

    assert 1 == (await client.cancel_many(created_by=["", "ada"], worker=None)).total()


@SQLITE
async def test_settings_audit_and_locks(tracker: Tracker, client: Client) -> None:
    """They are changed as by the tracker, in the token's name."""
    await client.settings.set("retention_days", 7, user=42)
    assert (7, "user") == (
        await client.settings.get("retention_days", user="42"),
        (await client.settings.explain("retention_days", user="42")).layer,
    )
    await client.settings.unset("retention_days", user=42)
    assert await tracker.settings.get("retention_days") == await client.settings.get(
        "retention_days"
    )
    for call in (
        client.settings.get("nonsense"),
        client.settings.set("nonsense", 1),
        client.settings.get(".."),
        client.settings.get("\ud800"),
        client.settings.unset(""),
        client.settings.set("retention_days", -7),
        client.settings.set("retention_days", "7"),  # type: ignore[arg-type]
        client.settings.set("retention_days", float("nan")),
        client.settings.set("retention_days", 7, scope="team"),
        client.settings.set("retention_days", 7, user="\ud800"),
    ):
        with pytest.raises(InvalidSetting):
            await call
    with pytest.raises(LockLost):
        async with tracker.lock("import", on_lost="flag"):
            (held,) = await client.locks.list()
            assert not await client.locks.force_release(held.name, fence=held.fence + 1)
            assert await client.locks.force_release(held.name, fence=held.fence, reason="stuck")
    hour = timedelta(hours=1)
    told = await client.audit.list(actor="me", since=hour)
    assert (await tracker.audit.list(actor="me")) == told
    assert ["lock.release", "setting.unset", "setting.set"] == [one.action for one in told.items]
    assert [] == (await client.audit.list(until=hour, action="lock.release")).items


@SQLITE
async def test_only_what_is_certain_is_kept(tracker: Tracker, client: Client) -> None:
    """A final execution is asked for once; one that runs, or is presumed, every time."""
    await tracker.register("runs", "shop.pay", status="started")
    await tracker.register("done", "shop.pay", status="done")
    for _ in range(2):
        assert not (await client.get("runs")).is_completed
        assert (await client.get("done")).is_completed
    await tracker.update("done", metadata={"later": 1})
    await tracker.update("runs", "done")

    assert {} == (await client.get("done")).metadata
    assert (await client.get("runs")).is_completed


@SQLITE
async def test_what_was_rerun_is_asked_for_again(
    tracker: Tracker, broker: InMemoryBroker, client: Client
) -> None:
    """It names its rerun: also where it was asked for by its number, and among many."""

    @broker.task("shop.add")
    async def add(a: int) -> int:
        return a

    made = [await client.submit("shop.add", kwargs={"a": 1}) for _ in range(3)]
    alone, other, kept = [await client.wait(one.task_id, 10) for one in made]
    asked = [await client.get_by_id(one.id) for one in (alone, other, kept)]
    again = await client.rerun(alone.task_id)
    told = [await client.get(alone.task_id), await client.get_by_id(alone.id)]
    still = client._cache.get(kept.task_id)
    await client.wait(again.task_id, 10)
    (many,) = await client.rerun_many(text=other.task_id)

    assert [alone, other, kept] == asked
    assert [again.task_id] * 2 == [one.metadata["rerun_as"] for one in told]
    assert kept == still
    assert many.execution is not None
    assert many.execution.task_id == (await client.get_by_id(other.id)).metadata["rerun_as"]


@SQLITE
async def test_the_cache_is_bounded(tracker: Tracker, client: Client) -> None:
    """What was asked for last stays."""
    for number in range(4):
        await tracker.register(number, "shop.pay", status="done")
    small = Client(client._transport.base, token=SECRET, cache_size=2)
    async with small:
        for number in (0, 1, 0, 2, 3):
            await small.get(number)
    assert ["2", "3"] == list(small._cache)


@SQLITE
async def test_watching(tracker: Tracker, client: Client) -> None:
    """Every change is told as it comes, to the end."""
    await tracker.register("a1", "shop.pay")
    seen = []

    async def look() -> None:
        async for execution in client.watch("a1"):
            seen.append((str(execution.status), execution.metadata.get("progress_percent")))
            told.set()

    told = asyncio.Event()
    looking = asyncio.create_task(look())
    async with asyncio.timeout(30):
        for status, percent in (("started", None), ("started", 10), ("started", 90)):
            await told.wait()
            told.clear()
            if percent is None:
                await tracker.update("a1", status)
            else:
                await tracker.progress(percent, task_id="a1")
        await told.wait()
        await tracker.update("a1", "done")
        await looking

    assert [
        ("PENDING", None),
        ("STARTED", None),
        ("STARTED", 10),
        ("STARTED", 90),
        ("SUCCESS", 90),
    ] == seen


async def test_lines_of_events() -> None:
    """Only LF, CR and both of them end one: a text that holds other ends names no event."""
    told = (b"id: 1\r", '\ndata: "a\u2028id: 8\x85id: 9"\r\n\r\n'.encode(), b"id: 2\rdata: b\r\r")

    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(_slowly(told), media_type="text/event-stream")

    app = Starlette(routes=[Route("/api/v1/events", events)])
    async with asyncio.timeout(20), running(app) as url, Client(url) as client:
        changes = follow(client._transport, "/events")
        await changes.next()
        first = changes._last_id
        await changes.next()
        await changes.close()

    assert ("1", "2") == (first, changes._last_id)


async def _slowly(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Give them as pieces of their own."""
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0.05)


@pytest.fixture
async def apart(made_sqlite_url: str, redis_url: str) -> AsyncIterator[Apart]:
    """A server in a process of its own."""
    server = await Apart(made_sqlite_url, redis_url).start()
    yield server
    await server.kill()


async def test_a_server_that_is_killed(apart: Apart, made_sqlite_url: str) -> None:
    """Who watches, waits or asks meanwhile goes on with the next one, and misses no end."""
    async with (
        Tracker(made_sqlite_url) as tracker,
        Client(apart.url, retries=60, backoff=0.2, max_backoff=0.5) as client,
    ):
        await tracker.register("a1", "shop.pay", status="started")
        seen = asyncio.Queue[str]()

        async def look() -> None:
            async for execution in client.watch("a1"):
                seen.put_nowait(str(execution.metadata.get("step", execution.status)))

        looking = asyncio.create_task(look())
        waiting = asyncio.create_task(client.wait("a1", timeout=50))
        async with asyncio.timeout(50):
            assert "STARTED" == await seen.get()
            await tracker.update("a1", metadata={"step": "before"})
            assert "before" == await seen.get()
            await apart.kill()
            asking = asyncio.create_task(client.list())
            await tracker.update("a1", metadata={"step": "while"})
            await apart.start()
            assert "while" == await seen.get()
            assert 1 == len((await asking).items)
            await tracker.update("a1", "done", result=7)
            assert 7 == (await waiting).result
            await looking
