"""Server-sent events over real sockets: what is told, to whom, and what it may cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from aiotrack import Tracker, live
from aiotrack.api import hub, streams
from aiotrack.api.hub import PLACES, hub_of
from aiotrack.repository.read import Reader
from aiotrack.testing.servers import PostgresServer
from tests.api.conftest import PREFIX, application
from tests.api.listening import PATIENCE, Stream, served, stream

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def url(tracker: Tracker) -> AsyncIterator[str]:
    """Where the API of the tracker is; in the end nothing of any stream is left."""
    async with served(application(tracker)) as url:
        yield f"{url}{PREFIX}/executions"
        await left(tracker)
    names = [str(task.get_coro()) for task in asyncio.all_tasks()]
    assert not [name for name in names if "Channel._run" in name or "_until_gone" in name]


async def left(tracker: Tracker, clients: int = 0) -> None:
    """Wait until only so many clients have a place, and no channel is without one."""
    async with asyncio.timeout(PATIENCE):
        channels = hub_of(tracker.core()).channels
        while PLACES.taken != clients or bool(channels) != bool(clients):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# ── one execution ───────────────────────────────────────────────────────────────────────────────
async def test_an_execution_is_followed_to_its_end(url: str, tracker: Tracker) -> None:
    """As it is, each change that lasts, the final state; then the stream ends."""
    await tracker.register("a/b", "shop.rows", created_by=42)
    async with stream(f"{url}/by-task-id/a%2Fb/events") as told:
        first = await told.next()
        await tracker.update("a/b", "started")
        await told.until(status="STARTED")
        await tracker.progress(40, "page 4", "fetch", task_id="a/b", rows=7)
        moved = await told.until(progress={"percent": 40, "message": "page 4", "step": "fetch"})
        await tracker.update("a/b", "failed", error="no")
        rest = await told.rest()

    assert first is not None
    assert ("execution", "PENDING", "42") == (
        first.event,
        first.data["status"],
        first.data["created_by_id"],
    )
    assert 7 == moved.data["metadata"]["rows"]
    assert ("FAILURE", True, "no") == tuple(
        rest[-1].data[name] for name in ("status", "is_completed", "error")
    )
    assert (200, "no-store", "text/event-stream; charset=utf-8", "no") == (
        told.status,
        *(told.headers[name] for name in ("cache-control", "content-type", "x-accel-buffering")),
    )
    assert [2000] == told.retries


async def test_an_execution_that_is_resumed(url: str, tracker: Tracker) -> None:
    """Nothing is told twice, nothing is missed, and after the end there is nothing to ask for."""
    execution = await tracker.register("x", "shop.rows", status="started")
    path = f"{url}/{execution.id}/events/"
    async with stream(path) as told:
        await told.next()
    async with stream(path, {"last-event-id": told.last_id}) as again:
        await tracker.progress(10, task_id="x")
        changed = await again.next()
    await tracker.progress(20, task_id="x")
    async with stream(path, {"Last-Event-ID": again.last_id}) as later:
        missed = await later.next()
    await tracker.update("x", "success")
    async with stream(path, {"last-event-id": later.last_id}) as last:
        ended = await last.rest()
    async with stream(path, {"last-event-id": last.last_id}) as over:
        pass

    assert changed is not None
    assert missed is not None
    assert [10, 20] == [one.data["progress"]["percent"] for one in (changed, missed)]
    assert ["SUCCESS"] == [one.data["status"] for one in ended]
    assert 204 == over.status


async def test_many_clients_cost_one_read_a_change(
    url: str, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many follow an execution, one follower reads it."""
    await tracker.register("x", "shop.rows", status="started")
    reads = 0
    get = Reader.get

    async def counted(self: Reader, task_id: str | int) -> Any:
        nonlocal reads
        reads += 1
        return await get(self, task_id)

    async with contextlib.AsyncExitStack() as stack:
        path = f"{url}/by-task-id/x/events/"
        clients = [await stack.enter_async_context(stream(path)) for _ in range(40)]
        for client in clients:
            await client.next()
        monkeypatch.setattr(Reader, "get", counted)
        for percent in range(1, 11):
            await tracker.core().repository.modify("x", lambda _: [])  # nothing changed
            await tracker.update("x", metadata={"progress_percent": percent})
            await asyncio.gather(
                *(
                    client.until(progress={"percent": percent, "message": None, "step": None})
                    for client in clients
                )
            )

    assert reads < 10 * 10, "ten changes, each read by update() and by the follower"


async def test_what_is_not_there_is_a_problem(url: str, tracker: Tracker) -> None:
    """Before any event: an unknown execution, a filter that cannot be served."""
    for path, status in (
        ("/987654321/events/", 404),
        ("/events/?modul=x", 422),
        (f"/events/?metadata.n={10**30}", 422),
        ("/events/?page_size=7", 422),
    ):
        async with stream(url + path) as told:
            assert status == told.status
            assert "application/problem+json" == told.headers["content-type"]
            assert status == json.loads(told.body)["status"]


# ── a filter ────────────────────────────────────────────────────────────────────────────────────
async def test_a_filter_is_followed(url: str, tracker: Tracker) -> None:
    """What is new or changed after `ready`, and matches."""
    await tracker.register("old", "shop.rows", status="started")
    async with stream(f"{url}/events/?module=shop") as told:
        ready = await told.next()
        assert ready is not None
        await tracker.register("new", "shop.rows")
        await tracker.register("other", "mail.send")
        new = await told.next()
        await tracker.update("old", "success")
        old = await told.next()

    assert ("ready", {}) == (ready.event, ready.data)
    assert int(ready.id) > 10**15
    assert [("new", "PENDING"), ("old", "SUCCESS")] == [
        (one.data["task_id"], one.data["status"]) for one in (new, old) if one is not None
    ]
    assert [ready.id, *sorted([new.id, old.id])] == [ready.id, new.id, old.id]


async def test_a_filter_that_is_resumed(url: str, tracker: Tracker) -> None:
    """What is not over, and what ended since, comes first; too much of it is a `reset`."""
    await tracker.register("over", "shop.rows", status="success", finished_at=LONG_AGO)
    await tracker.register("runs", "shop.rows", status="started")
    async with stream(f"{url}/events/?module=shop") as told:
        ready = await told.next()
        assert ready is not None
    await tracker.register("ended", "shop.rows", status="success")
    await tracker.register("sent", "shop.rows")
    await tracker.register("other", "mail.send")
    async with stream(f"{url}/events/?module=shop", {"last-event-id": ready.id}) as again:
        missed = [await again.next() for _ in range(4)]
        await tracker.update("runs", "failed")
        last = await again.next()
    async with stream(
        f"{url}/events/?module=shop&status=success", {"last-event-id": ready.id}
    ) as narrow:
        some = [await narrow.next() for _ in range(2)]
    for strange in ("1", "nonsense", "9" * 200, "²", str(10**18), "-5"):
        headers = {"last-event-id": strange.encode().decode("latin-1")}
        async with stream(f"{url}/events/?module=shop", headers) as anew:
            first = await anew.next()
        assert first is not None
        assert "reset" == first.event, strange

    assert ["runs", "ended", "sent"] == [one.data["task_id"] for one in missed[:3] if one]
    assert missed[3] is not None
    assert "ready" == missed[3].event
    assert last is not None
    assert ("runs", "FAILURE") == (last.data["task_id"], last.data["status"])
    assert ["ended", None] == [one.data.get("task_id") for one in some if one]


async def test_states_never_go_back(url: str, tracker: Tracker) -> None:
    """For who comes back in the middle of changes, either."""
    await tracker.register("x", "shop.rows", status="started", metadata={"n": -1})
    is_over = False

    async def change() -> None:
        number = 0
        while not is_over:
            await tracker.update("x", metadata={"n": number})
            number += 1

    async def follow(path: str) -> None:
        seen, last_id = -1, ""
        for _ in range(6):
            headers = {"last-event-id": last_id} if last_id else {}
            async with stream(f"{url}/{path}", headers) as told:
                for _ in range(5):
                    event = await told.next()
                    if event is not None and event.event == "execution":
                        assert event.data["metadata"]["n"] >= seen, path
                        seen = event.data["metadata"]["n"]
            last_id = told.last_id

    changing = asyncio.create_task(change())
    try:
        await asyncio.gather(
            *(follow(path) for path in ("by-task-id/x/events", "events/?module=shop") * 4)
        )
    finally:
        is_over = True
        await changing


# ── places ──────────────────────────────────────────────────────────────────────────────────────
async def test_places_are_counted_and_freed(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of one caller, so many of a process; who goes away leaves a place at once."""
    monkeypatch.setattr(hub, "CLIENTS", 15)
    await tracker.register("x", "shop.rows", status="started", created_by="0")
    app = application(tracker, user=lambda request: request.headers["x-user"])
    async with served(app) as base, contextlib.AsyncExitStack() as stack:
        path = f"{base}{PREFIX}/executions/by-task-id/x/events/"

        async def enter(user: str) -> Stream:
            return await stack.enter_async_context(stream(path, {"x-user": user}))

        first = [await enter("1") for _ in range(10)]
        eleventh = await enter("1")
        others = [await enter("2") for _ in range(5)]
        full = await enter("3")

        assert {200} == {one.status for one in first + others}
        assert (429, "5") == (eleventh.status, eleventh.headers["retry-after"])
        assert (503, "5") == (full.status, full.headers["retry-after"])
        assert "no-place" == json.loads(full.body)["code"]

        for one in first[:3]:
            one.close()
        await left(tracker, 12)

        assert [200] * 3 + [503] == [(await enter(user)).status for user in ("3", "1", "4", "4")]
    await left(tracker)


async def test_a_token_has_places_of_its_own(tracker: Tracker) -> None:
    """Whoever holds it; another one has its own."""
    await tracker.register("x", "shop.rows", status="started")
    secrets = {name: name * 16 for name in "ab"}
    tokens = [f"{name}:read:{secret}" for name, secret in secrets.items()]
    async with (
        served(application(tracker, tokens=tokens)) as base,
        contextlib.AsyncExitStack() as stack,
    ):
        path = f"{base}{PREFIX}/executions/by-task-id/x/events/"
        found = []
        for name in ("a",) * 11 + ("b", "c"):
            headers = {"authorization": f"Bearer {secrets.get(name, 'nobody')}"}
            found.append((await stack.enter_async_context(stream(path, headers))).status)

    assert [200] * 10 + [429, 200, 401] == found
    await left(tracker)


async def test_a_client_that_stalls_is_closed(
    url: str, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loses its place; those beside it miss nothing."""
    monkeypatch.setattr(streams, "PATIENCE", 1.0)
    await tracker.register("x", "shop.rows", status="started")
    path = f"{url}/by-task-id/x/events/"
    async with stream(path) as good, stream(path, buffer=4096):
        assert 2 == PLACES.taken
        number = 0
        while PLACES.taken == 2:
            number += 1
            assert number < 2000, "it never stalled"
            await tracker.update("x", metadata={"n": number, "fill": f"{number:06}" * 9_000})
            await asyncio.wait_for(seen(good, number), PATIENCE)
        await tracker.update("x", "success")
        rest = await good.rest()

    assert rest[-1].data["is_completed"]


async def seen(told: Stream, number: int) -> None:
    """Read until a number comes."""
    while (event := await told.next()) is None or event.data["metadata"].get("n") != number:
        pass


async def test_a_client_that_is_too_late_is_told_to_come_again(
    url: str, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More changed than is kept for him: he begins anew, and the list is told by `ready` again."""
    monkeypatch.setattr(hub, "WAITING", 8)
    monkeypatch.setattr(hub, "AT_ONCE", 10_000)
    monkeypatch.setattr(hub, "GAP", 0.3)
    async with stream(f"{url}/events/?module=shop") as told:
        await told.next()
        sends = (tracker.register(f"x{number}", "shop.rows") for number in range(100))
        await asyncio.gather(*sends)
        await told.rest()
        assert "too slow" in told.comments
        assert 1000 <= told.retries[-1] <= 4000
    async with stream(f"{url}/events/?module=shop", {"last-event-id": told.last_id}) as again:
        found = [await again.next() for _ in range(101)]

    assert {f"x{number}" for number in range(100)} == {
        one.data["task_id"] for one in found[:100] if one is not None
    }


async def test_more_changes_than_can_be_followed(
    url: str, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody is told to come again, and is told what was missed then."""
    monkeypatch.setattr(live, "MAX_WAITING", 20)
    monkeypatch.setattr(hub, "GAP", 1.0)
    async with stream(f"{url}/events/?module=shop") as told:
        await told.next()
        await tracker.register("first", "shop.rows")  # the pause begins
        await told.next()
        sends = (tracker.register(f"x{number}", "shop.rows") for number in range(30))
        await asyncio.gather(*sends)
        await told.rest()
    async with stream(f"{url}/events/?module=shop", {"last-event-id": told.last_id}) as again:
        found = [await again.next() for _ in range(32)]

    assert "too slow" not in told.comments
    assert 2 == len(told.retries)
    assert ["first", *(f"x{number}" for number in range(30))] == sorted(
        (one.data["task_id"] for one in found[:31] if one is not None),
        key=lambda name: (name != "first", len(name), name),
    )


async def test_silence_is_filled(
    url: str, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment now and then, so that nobody between closes what is silent."""
    monkeypatch.setattr(streams, "PING", 0.05)
    await tracker.register("x", "shop.rows", status="started")
    async with stream(f"{url}/by-task-id/x/events/") as told:
        await told.next()
        with pytest.raises(TimeoutError):
            await told.next(0.5)

    assert {"ping"} == set(told.comments)
    assert 2 <= len(told.comments)


async def test_streams_outlive_the_database(
    own_postgres: PostgresServer, redis_url: str, queue_name: str
) -> None:
    """They say so, and go on."""
    settings = {"namespace": queue_name}
    async with (
        Tracker(own_postgres.url, redis=redis_url, settings=settings) as tracker,
        served(application(tracker)) as base,
    ):
        url = f"{base}{PREFIX}/executions"
        await tracker.register("x", "shop.rows", status="started")
        async with (
            stream(f"{url}/by-task-id/x/events/") as one,
            stream(f"{url}/events/?module=shop") as many,
        ):
            await one.next()
            await many.next()
            await asyncio.to_thread(own_postgres.kill)
            for told in (one, many):
                async with asyncio.timeout(30):
                    while "the database is away" not in told.comments:
                        with contextlib.suppress(TimeoutError):
                            await told.next(0.1)
            for path in ("by-task-id/x/events/", "events/?module=other"):
                async with stream(f"{url}/{path}") as refused:
                    assert (503, "2") == (refused.status, refused.headers["retry-after"])
            await asyncio.to_thread(own_postgres.start)
            async with asyncio.timeout(30):
                while True:
                    try:
                        await tracker.update("x", "success")
                        break
                    except Exception:
                        await asyncio.sleep(0.1)
            assert "SUCCESS" == (await one.rest())[-1].data["status"]
            await many.until(task_id="x", status="SUCCESS")
        await left(tracker)
