"""The connection of a loop's locks: every answer belongs to its question, whatever breaks."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from redis.asyncio import BlockingConnectionPool, Redis, Sentinel

from aiotrack import LockNotAcquired, LockUnavailable, Tracker, is_task_locked
from aiotrack.errors import InvalidSetting
from aiotrack.locks.verbs import Locks
from aiotrack.redis.client import FAULTS, make_client
from aiotrack.redis.wire import Wire
from aiotrack.testing.binaries import valkey_binary
from aiotrack.testing.servers import ValkeyServer
from tests.integration.proxy import Proxy, proxied


@pytest.fixture
async def line(redis_url: str) -> AsyncIterator[tuple[Wire, Proxy]]:
    """A connection over a proxy."""
    async with proxied(redis_url) as (proxy, url):
        wire = Wire(make_client(url))
        yield wire, proxy
        await wire.close()


async def ask(wire: Wire, number: int, size: int = 1) -> bool:
    """Ask for an echo; False when the line broke."""
    word = f"{number}:" + "x" * size
    try:
        answer = await wire.ask("ECHO", word)
    except FAULTS:
        return False
    assert word.encode() == answer
    return True


@pytest.mark.parametrize("password", ["hunter2/x", "hunter2#x", "hunter2?x", "[hunter2]"])
def test_a_password_never_stands_in_an_error(password: str) -> None:
    """One that is not percent-encoded: the error says how to write it, and quotes no part of it."""
    with pytest.raises(InvalidSetting, match="%2F") as caught:
        make_client(f"redis://user:{password}@localhost:6379/0")

    assert "hunter2" not in str(caught.value)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────
async def test_answers_belong_to_their_questions(line: tuple[Wire, Proxy]) -> None:
    """Cut, refused and cancelled at random: who gets an answer gets his own."""
    wire, proxy = line
    answered = 0
    for turn in range(60):
        asking = [asyncio.create_task(ask(wire, turn * 100 + number)) for number in range(20)]
        for _ in range(random.randrange(6)):
            await asyncio.sleep(0)
        for one in random.sample(asking, 5):
            one.cancel()
        if turn % 3 == 0:
            proxy.lose_reply(random.randint(1, 3))
        if turn % 7 == 0:
            proxy.cut()
        found = await asyncio.gather(*asking, return_exceptions=True)
        answered += found.count(True)
        assert not [one for one in found if isinstance(one, AssertionError)]

    assert answered > 400
    assert await ask(wire, 0)


async def test_who_goes_while_the_server_takes_nothing(own_valkey: ValkeyServer) -> None:
    """His neighbours get their answers, over the same line."""
    wire = Wire(make_client(own_valkey.url))
    assert await ask(wire, 0)
    await asyncio.to_thread(own_valkey.pause)
    big = [asyncio.create_task(ask(wire, number, 8_000_000)) for number in range(3)]
    await asyncio.sleep(0.3)
    big[0].cancel()
    small = [asyncio.create_task(ask(wire, number)) for number in range(3, 20)]
    await asyncio.sleep(0.05)
    await asyncio.to_thread(own_valkey.resume)
    found = await asyncio.gather(*big[1:], *small, return_exceptions=True)

    assert [True] * 19 == found
    await wire.close()


async def test_after_its_end_it_opens_for_one_answer(redis_url: str) -> None:
    """What is freed later does not leave a connection behind."""
    wire = Wire(make_client(redis_url))
    assert await ask(wire, 0)
    await wire.close()
    assert await ask(wire, 1)
    link = wire._link
    assert link is not None
    await asyncio.wait({link.ended}, timeout=1)

    assert link.ended.done()
    assert not link.is_open


async def test_whoever_waits_when_it_is_closed_gets_a_fault(line: tuple[Wire, Proxy]) -> None:
    """Not a cancellation that nobody asked for."""
    wire, proxy = line
    proxy.is_black_hole = True
    asking = asyncio.create_task(wire._ask(("PING",)))
    await asyncio.sleep(0.05)
    await wire.close()

    with pytest.raises(FAULTS):
        await asking


# ── a wake-up that is too late ──────────────────────────────────────────────────────────────────
async def test_an_old_message_gives_no_lock(
    sqlite_url: str, redis_url: str, queue_name: str
) -> None:
    """It told of a hand-over that ended while its process slept: others have the lock by now."""
    async with Tracker(sqlite_url, redis=redis_url, settings={"namespace": queue_name}) as tracker:
        space = tracker.feature(Locks).holders().space

        async def wait() -> None:
            async with tracker.lock("x", wait=1.5):
                pass

        async with tracker.lock("x") as lock:
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0.3)
            (token,) = space._waiters
            space._wake(f"{token} {lock.fence - 1}".encode())
            with pytest.raises(LockNotAcquired):
                await waiting


# ── where the server is ─────────────────────────────────────────────────────────────────────────
async def use(redis: Any, namespace: str) -> None:
    """Take a lock, wait for it, hold it over a renewal."""
    tracker = Tracker("sqlite+aiosqlite://", redis=redis, settings={"namespace": namespace})
    order = []

    async def wait() -> None:
        async with tracker.lock("x", wait=5, key="ü"):
            order.append("second")

    async with tracker.lock("x", ttl=1.5, key="ü"):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(2)
        assert await is_task_locked("x", key="ü", tracker=tracker)
        (held,) = await tracker.locks.list()
        assert 1 == held.waiting
        order.append("first")
    await waiting
    assert ["first", "second"] == order
    await tracker.shutdown()


@pytest.mark.parametrize("kind", ["decoding", "resp3", "blocking pool", "retrying"])
async def test_clients_that_were_given(redis_url: str, queue_name: str, kind: str) -> None:
    """They say where the server is; how they read answers is their own."""
    makes = {
        "decoding": lambda: Redis.from_url(redis_url, decode_responses=True),
        "resp3": lambda: Redis.from_url(redis_url, protocol=3),
        "blocking pool": lambda: Redis(
            connection_pool=BlockingConnectionPool.from_url(redis_url, decode_responses=True)
        ),
        "retrying": lambda: Redis.from_url(redis_url, socket_timeout=30, health_check_interval=1),
    }
    async with makes[kind]() as client:
        await use(client, queue_name)


async def test_a_unix_socket(queue_name: str) -> None:
    """As a URL."""
    with (
        tempfile.TemporaryDirectory(prefix="aiotrack-") as folder,
        ValkeyServer(settings={"unixsocket": f"{folder}/valkey"}),
    ):
        await use(f"unix://{folder}/valkey", queue_name)


async def test_over_tls(redis_url: str, queue_name: str, tmp_path: Path) -> None:
    """As a URL: the commands, the channel and the thread that renews."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    place = urlsplit(redis_url)
    assert place.hostname is not None
    assert place.port is not None
    proxy = Proxy(place.hostname, place.port, tls=context)
    await proxy.start()
    try:
        url = redis_url.replace("redis://", "rediss://").replace(str(place.port), str(proxy.port))
        await use(f"{url}?ssl_ca_certs={tmp_path}/ca.pem", queue_name)
        with pytest.raises(LockUnavailable, match=r"(?i)certificate|ssl"):
            await use(url, queue_name)
    finally:
        await proxy.stop()


async def test_what_the_server_does_not_allow(own_valkey: ValkeyServer, queue_name: str) -> None:
    """A wrong password, no right to run scripts: unavailable, with the server's words; soon."""
    async with Redis.from_url(own_valkey.url) as client:
        rights = ("reset", "on", ">secret", "~*", "&*", "+@all", "-@scripting")
        await client.execute_command("ACL", "SETUSER", "guest", *rights)
    place = own_valkey.url.split("@")[-1].removeprefix("redis://")
    for account, words in (("guest:wrong", "WRONGPASS|invalid"), ("guest:secret", "permission")):
        begun = time.monotonic()
        with pytest.raises(LockUnavailable, match=words):
            await use(f"redis://{account}@{place}", queue_name)
        assert time.monotonic() - begun < 5


async def test_without_the_right_to_hear_messages(
    own_valkey: ValkeyServer, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits asks each second, which is said once."""
    async with Redis.from_url(own_valkey.url) as client:
        rights = ("reset", "on", ">secret", "~*", "+@all")  # no channel
        await client.execute_command("ACL", "SETUSER", "deaf", *rights)
    place = own_valkey.url.split("@")[-1].removeprefix("redis://")
    tracker = Tracker(
        "sqlite+aiosqlite://",
        redis=f"redis://deaf:secret@{place}",
        settings={"namespace": queue_name},
    )

    async def wait(seconds: float) -> None:
        async with tracker.lock("x", wait=seconds):
            pass

    async with tracker.lock("x"):
        begun = time.monotonic()
        with pytest.raises(LockNotAcquired):
            await asyncio.create_task(wait(0.3))
        assert time.monotonic() - begun < 5
        waiting = asyncio.create_task(wait(10))
        await asyncio.sleep(2.5)
    await asyncio.wait_for(waiting, 3)
    await tracker.shutdown()

    assert 1 == sum("is not woken for now" in line for line in caplog.messages)


async def test_the_rights_that_the_page_names(own_valkey: ValkeyServer, queue_name: str) -> None:
    """No more are needed."""
    rights = (
        *("reset", "on", ">secret", f"~{{{queue_name}:locks}}*", f"&{queue_name}:woken:*"),
        *("+@read", "+@write", "+@scripting", "+publish", "+subscribe", "+time", "+info", "+ping"),
    )
    async with Redis.from_url(own_valkey.url) as client:
        await client.execute_command("ACL", "SETUSER", "locker", *rights)
    place = own_valkey.url.split("@")[-1].removeprefix("redis://")
    await use(f"redis://locker:secret@{place}", queue_name)


async def test_a_client_by_sentinels(
    own_valkey: ValkeyServer, queue_name: str, tmp_path: Path
) -> None:
    """It asks them where the server is, and so do we; also the thread that renews."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nsentinel monitor shop 127.0.0.1 {own_valkey.port} 1\n")
    process = await asyncio.create_subprocess_exec(
        str(valkey_binary()), str(config), "--sentinel", stdout=asyncio.subprocess.DEVNULL
    )
    sentinel: Any = Sentinel([("127.0.0.1", port)])
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    await sentinel.discover_master("shop")
                    break
                except FAULTS:
                    await asyncio.sleep(0.05)
        async with sentinel.master_for("shop", decode_responses=True) as client:
            await use(client, queue_name)
    finally:
        process.terminate()
        await process.wait()
        for one in sentinel.sentinels:
            await one.aclose()
