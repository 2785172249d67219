"""What the client asks again, after how long, and what it leaves alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from aiotrack import (
    AccessRefused,
    ClientError,
    InvalidSetting,
    ScheduleUnavailable,
    StoreError,
    StoreUnavailable,
)
from aiotrack.client import Client
from aiotrack.client import transport as transports
from tests.client.site import Scripted, running
from tests.integration.proxy import Proxy, proxied


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest that each pause might have been; none is waited for."""
    told: list[float] = []

    def uniform(_: float, most: float) -> float:
        told.append(most)
        return 0.0

    monkeypatch.setattr(transports.random, "uniform", uniform)
    return told


async def submit(client: Client) -> None:
    """Send a task, and nothing more."""
    await client._transport.ask("POST", "/tasks", body={}, again=transports.Again.UNHEARD)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_passes_is_asked_again(status: int, pauses: list[float]) -> None:
    """A read is made again until it is answered: after up to 1, 2, 4 ... s, 30 at the most."""
    server = Scripted(*[(status, {})] * 7, (200, {}))
    async with running(server.app) as url, Client(url, retries=9) as client:
        assert [] == await client.workers()

    assert [1, 2, 4, 8, 16, 30, 30] == pauses
    assert {("GET", "/api/v1/workers/", b"")} == set(server.seen)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422, 500, 501])
async def test_what_does_not_pass_is_told_at_once(status: int, pauses: list[float]) -> None:
    """Asking again would change nothing."""
    server = Scripted((status, {}))
    async with running(server.app) as url, Client(url) as client:
        with pytest.raises(ClientError) as caught:
            await client.workers()

    assert (1, []) == (len(server.seen), pauses)
    assert (status, "busy") == (caught.value.status, caught.value.code)
    assert (status in {401, 403}) == isinstance(caught.value, AccessRefused)


async def test_it_gives_up(pauses: list[float]) -> None:
    """After as many retries as it was told; with the last answer as the error."""
    server = Scripted((503, {}))
    async with running(server.app) as url, Client(url, retries=3) as client:
        with pytest.raises(ClientError, match="503 busy"):
            await client.workers()

    assert (4, 3) == (len(server.seen), len(pauses))


async def test_a_proxys_503_is_no_health(pauses: list[float]) -> None:
    """What says how the server is is an answer; what says that it is away is asked again."""
    server = Scripted((503, {}))
    async with running(server.app) as url, Client(url, retries=2) as client:
        with pytest.raises(ClientError, match="503 busy"):
            await client.health()
        assert [1, 2] == pauses

        server.told |= {"live": True, "ready": False, "dependencies": {}, "is_healthy": False}
        assert not (await client.health()).ready

    assert [1, 2] == pauses


@pytest.mark.parametrize("status", [502, 504])
async def test_a_task_is_not_sent_twice_by_a_gateway(status: int, pauses: list[float]) -> None:
    """What stands between may have lost an answer, not the request."""
    server = Scripted((status, {}), (200, {}))
    async with running(server.app) as url, Client(url) as client:
        with pytest.raises(ClientError):
            await submit(client)

    assert (1, []) == (len(server.seen), pauses)


@pytest.mark.parametrize(
    "code", ["broker-unavailable", "store-unavailable", "store-error", "busy", None]
)
async def test_a_task_is_not_sent_twice_by_what_failed_half_way(
    code: str | None, pauses: list[float]
) -> None:
    """A broker may have taken it before it went away; of whom else nobody knows."""
    server = Scripted((503, {}), (200, {}))
    server.told["code"] = code
    if code is None:
        del server.told["code"]
    async with running(server.app) as url, Client(url) as client:
        with pytest.raises((ClientError, StoreError)):
            await submit(client)

    assert (1, []) == (len(server.seen), pauses)


@pytest.mark.parametrize(
    ("status", "code"), [(429, "busy"), (503, "queue-full"), (503, "schedule-unavailable")]
)
async def test_a_task_that_was_refused_is_sent_again(
    status: int, code: str, pauses: list[float]
) -> None:
    """The server said that it was not sent."""
    server = Scripted((status, {}), (status, {}), (200, {}))
    server.told["code"] = code
    async with running(server.app) as url, Client(url) as client:
        await submit(client)

    assert (3, [1, 2]) == (len(server.seen), pauses)


async def test_a_schedule_whose_state_is_not_told() -> None:
    """The server's Redis went away meanwhile: no state is made up."""
    server = Scripted((200, {}))
    server.told["schedule_status"] = None
    async with running(server.app) as url, Client(url) as client:
        for verb in (client.schedules.start, client.schedules.stop, client.schedules.pause):
            with pytest.raises(ScheduleUnavailable, match="could not ask"):
                await verb(7)


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_the_server_says_when(form: str) -> None:
    """Retry-After comes before our own pause, as seconds or as a date."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    told = {"retry-after": "1" if form == "seconds" else soon}
    server = Scripted((503, told), (200, {}))
    began = time.monotonic()
    async with running(server.app) as url, Client(url, backoff=0.0) as client:
        await client.workers()

    assert 1 <= time.monotonic() - began < 30


@pytest.mark.parametrize("told", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT", "9" * 400])
async def test_a_pause_has_an_end(told: str) -> None:
    """Nobody makes the client wait for longer than it was told to."""
    server = Scripted((503, {"retry-after": told}), (200, {}))
    async with (
        asyncio.timeout(20),
        running(server.app) as url,
        Client(url, backoff=0.0, max_backoff=0.2) as client,
    ):
        await client.workers()

    assert server.at[1] - server.at[0] >= 0.2


@pytest.mark.parametrize(
    "told", ["soon", "-5", "", "1e3", "٣", "Fri, 01 Jan 2027 00:00:00 +99999999999999"]
)
async def test_a_pause_that_is_nonsense(told: str, pauses: list[float]) -> None:
    """It counts for nothing."""
    assert transports.retry_after(httpx.Headers([(b"retry-after", told.encode())])) is None


@pytest.fixture
async def behind() -> AsyncIterator[tuple[Scripted, Proxy, str]]:
    """A server behind a network that can be made bad."""
    server = Scripted((200, {}))
    async with running(server.app) as url, proxied(url) as (proxy, through):
        yield server, proxy, through


async def test_a_lost_answer(behind: Any, pauses: list[float]) -> None:
    """A read is made again; what may not be done twice is not, and its caller is told."""
    server, proxy, url = behind
    async with Client(url) as client:
        proxy.lose_reply()
        assert [] == await client.workers()
        assert (2, 1) == (len(server.seen), proxy.lost)

        proxy.lose_reply()
        with pytest.raises(StoreUnavailable, match="did not answer"):
            await submit(client)
        assert (3, 2) == (len(server.seen), proxy.lost)


@pytest.mark.parametrize("verb", ["cancel_many", "rerun_many"])
async def test_a_lost_answer_of_many_at_once(verb: str, behind: Any, pauses: list[float]) -> None:
    """Asked again it would take the next ones, beyond its limit."""
    server, proxy, url = behind
    async with Client(url) as client:
        proxy.lose_reply()
        with pytest.raises(StoreUnavailable, match="did not answer"):
            await getattr(client, verb)(limit=5, module="mail")

    assert (1, []) == (len(server.seen), pauses)


async def test_a_connection_that_was_cut_while_it_rested(behind: Any, pauses: list[float]) -> None:
    """A task is sent once all the same: the client notices, or tells its caller."""
    server, proxy, url = behind
    async with Client(url) as client:
        await client.workers()
        proxy.cut()
        await asyncio.sleep(0.1)
        await submit(client)

    assert ["GET", "POST"] == [method for method, _, _ in server.seen]


async def test_a_server_that_is_not_there_yet(pauses: list[float]) -> None:
    """A refused connection carried nothing: also a task is sent as soon as there is a server."""
    server = Scripted((200, {}))
    proxy = Proxy("127.0.0.1", 1)
    await proxy.start()
    port = proxy.port
    await proxy.stop()

    async with Client(f"http://127.0.0.1:{port}", retries=200) as client:
        waiting = asyncio.create_task(submit(client))
        while len(pauses) < 3:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.01)
        async with running(server.app, port):
            await waiting

    assert 1 == len(server.seen)


async def test_a_server_that_never_comes(pauses: list[float]) -> None:
    """Its caller is told, by an error that knows the address, and no token."""
    proxy = Proxy("127.0.0.1", 1)
    await proxy.start()
    await proxy.stop()
    url = f"http://me:hunter2@127.0.0.1:{proxy.port}"
    async with Client(url, token="y" * 20, retries=2) as client:
        with pytest.raises(StoreUnavailable, match=str(proxy.port)) as caught:
            await client.workers()

    assert [1, 2] == pauses
    assert "y" * 20 not in str(caught.value) + repr(client)
    assert "hunter2" not in str(caught.value) + repr(client)


async def test_slow_is_not_lost(behind: Any) -> None:
    """An answer that takes its time is waited for."""
    server, proxy, url = behind
    proxy.delay = 0.5
    async with Client(url) as client:
        await submit(client)

    assert 1 == len(server.seen)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://there"},
        {"url": "there"},
        {"retries": -1},
        {"backoff": -1},
        {"backoff": 60.0},
        {"cache_size": -1},
        {"token": "tökén"},
        {"token": ""},
    ],
)
def test_what_cannot_be_meant(options: dict[str, Any]) -> None:
    """It is refused when the client is made."""
    with pytest.raises(InvalidSetting):
        Client(**{"url": "http://there", **options})
