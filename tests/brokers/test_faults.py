"""Redis goes away, comes back, or refuses: the worker goes on, and a send says what it knows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError, ResponseError
from taskiq.exceptions import SendTaskError

from aiotrack.brokers import streams
from aiotrack.brokers.listener import Listener
from aiotrack.brokers.scripts import LEAVE
from aiotrack.redis.client import FAULTS
from aiotrack.redis.wire import Wire
from aiotrack.testing.servers import ValkeyServer
from tests.brokers.conftest import Hand, MakeBroker, serving, sleeper
from tests.integration.proxy import proxied
from tests.waits import until


async def test_a_restart_of_the_server(
    make_broker: MakeBroker, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed under a worker, idle and busy: it goes on, loses nothing, and says it once."""
    broker, ran = make_broker(own_valkey.url), []
    note = sleeper(broker, ran)
    async with serving(broker, 5):
        for turn in range(2):
            await note.kiq(turn)
            await until("it ran", lambda turn=turn: turn in ran)
            await note.kiq(f"slow {turn}", 0.3)
            await until("the slow one runs", lambda turn=turn: f"slow {turn}" in ran)
            await asyncio.to_thread(own_valkey.kill)
            await asyncio.sleep(0.5)  # it ends meanwhile
            await asyncio.to_thread(own_valkey.start)
        await note.kiq("last")
        await until("the last one ran", lambda: "last" in ran)
        await until("all is acknowledged", lambda: is_drained(broker))
    told = [one for one in caplog.messages if "waits for Redis" in one and "the worker" in one]

    assert {0, 1, "last", "slow 0", "slow 1"} == set(ran)
    assert 2 == len(told)


async def is_drained(broker: Any) -> bool:
    """Whether nothing is left in the lowest level's stream."""
    async with Redis(connection_pool=broker.connection_pool) as redis:
        return await redis.xlen(broker.queue_name) == 0


async def test_a_server_that_lost_its_data(
    make_broker: MakeBroker, own_valkey: ValkeyServer
) -> None:
    """The groups are made again; what was sent since is run."""
    broker, ran = make_broker(own_valkey.url), []
    note = sleeper(broker, ran)
    async with Redis.from_url(own_valkey.url) as redis, serving(broker):
        await note.kiq(1)
        await until("it ran", lambda: ran)
        await redis.flushall()
        await redis.script_flush()
        await note.kicker().with_labels(priority=3).kiq(2)
        await until("it ran, too", lambda: len(ran) == 2)


async def test_connections_that_are_dropped(
    make_broker: MakeBroker, redis_url: str, redis: Any
) -> None:
    """Cut under load again and again: each task runs, and is acknowledged."""
    async with proxied(redis_url) as (proxy, url):
        sender, worker, ran = make_broker(), make_broker(url, lease=1), []
        note = sleeper(worker, ran)
        for number in range(400):
            await note.kicker().with_broker(sender).kiq(number, 0.02)
        async with serving(worker, 10):
            for _ in range(5):
                before = len(ran)
                proxy.cut()
                await until("it goes on", lambda before=before: len(ran) > before + 20)
            await until("each ran", lambda: len(set(ran)) == 400)
            await until("all is acknowledged", lambda: is_drained(sender))


async def test_a_send_while_redis_is_away(
    make_broker: MakeBroker, own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises within seconds; one that falls into a restart waits for its end."""
    broker = make_broker(own_valkey.url)
    note = sleeper(broker, [])
    await note.kiq(1)
    await asyncio.to_thread(own_valkey.kill)
    monkeypatch.setattr("aiotrack.brokers.broker.TRYING", 0.5)
    begun = time.monotonic()
    with pytest.raises(SendTaskError) as raised:
        await note.kiq(2)
    took = time.monotonic() - begun
    monkeypatch.setattr("aiotrack.brokers.broker.TRYING", 20.0)
    sending = asyncio.create_task(note.kiq(3))
    await asyncio.to_thread(own_valkey.start)
    await sending
    async with Redis.from_url(own_valkey.url) as redis:
        kept = await redis.xlen(broker.queue_name)

    assert isinstance(raised.value.__cause__, FAULTS)
    assert took < 10
    assert 2 == kept


async def test_an_answer_that_is_lost_is_an_error(
    make_broker: MakeBroker, redis_url: str, redis: Any, queue_name: str
) -> None:
    """The message may be there: it is never sent twice, and never said to be sent."""
    async with proxied(redis_url) as (proxy, url):
        broker = make_broker(url)
        note = sleeper(broker, [])
        await note.kiq(1)
        proxy.lose_reply()
        with pytest.raises(SendTaskError):
            await note.kiq(2)

    assert 2 == await redis.xlen(queue_name)


async def test_messages_whose_answer_was_lost(
    make_broker: MakeBroker, redis_url: str, redis: Any
) -> None:
    """With nobody: the worker hands them back, and takes them long before their lease ends."""
    async with proxied(redis_url) as (proxy, url):
        sender, worker, ran = make_broker(), make_broker(url, lease=600), []
        note = sleeper(worker, ran)
        async with serving(worker, 5):
            await note.kicker().with_broker(sender).kiq(0)
            await until("it ran", lambda: ran)
            for number in range(1, 6):
                proxy.lose_reply()
                await note.kicker().with_broker(sender).kiq(number)
                await until("it ran, too", lambda number=number: number in ran)
            await until("all is acknowledged", lambda: is_drained(sender))

    assert proxy.lost > 0


async def test_messages_that_cannot_be_handed_back(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two levels answer one read of a worker that has room for one message, and Redis goes away."""
    broker, ran = make_broker(lease=2.0), []
    note = sleeper(broker, ran)
    run, take = Wire.run, Listener._take
    faults = iter([TimeoutError("no answer")])

    async def take_between(listener: Listener) -> Any:
        found = await take(listener)
        if not found and not ran:
            monkeypatch.setattr(Listener, "_take", take)
            monkeypatch.setattr(Wire, "run", fail_once)
            await note.kiq(1)
            await note.kicker().with_labels(priority=9).kiq(9)
        return found

    async def fail_once(wire: Wire, script: Any, *values: Any) -> Any:
        if script is LEAVE:
            for fault in faults:
                raise fault
        return await run(wire, script, *values)

    monkeypatch.setattr(Listener, "_take", take_between)
    await broker.startup()
    async with serving(broker):
        await until("both ran", lambda: sorted(ran) == [1, 9])

    assert [] == list(faults)


async def test_a_key_that_is_no_stream(
    make_broker: MakeBroker, redis: Any, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The list of a stock broker: a send fails, and worker and log say what to do."""
    await redis.lpush(queue_name, "a message of a ListQueueBroker")
    broker, ran = make_broker(), []
    note = sleeper(broker, ran)
    await broker.startup()
    with pytest.raises(SendTaskError) as raised:
        await note.kiq(1)
    await note.kicker().with_labels(priority=2).kiq(2)  # its stream is one
    async with serving(broker):
        await until("the other level is served", lambda: ran)

    assert isinstance(raised.value.__cause__, ResponseError)
    assert "use another queue name" in caplog.text


async def test_a_full_server(make_broker: MakeBroker, own_valkey: ValkeyServer) -> None:
    """Sends fail; what is there is run and acknowledged, which makes room."""
    broker, ran = make_broker(own_valkey.url), []
    note = sleeper(broker, ran)
    for number in range(20):
        await note.kiq(number)
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.config_set("maxmemory", "1")
        with pytest.raises(SendTaskError):
            await note.kiq("too much")
        async with serving(broker):
            await until("all ran", lambda: len(ran) == 20)
            await until("all is acknowledged", lambda: is_drained(broker))
        await redis.config_set("maxmemory", "0")


async def test_a_server_that_becomes_a_replica(
    make_broker: MakeBroker, own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a fail-over: a send raises, the worker waits, and goes on when it is promoted."""
    monkeypatch.setattr("aiotrack.brokers.broker.TRYING", 0.5)
    broker, ran = make_broker(own_valkey.url), []
    note = sleeper(broker, ran)
    async with Redis.from_url(own_valkey.url) as redis, serving(broker):
        await note.kiq(1)
        await until("it ran", lambda: ran)
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(SendTaskError) as raised:
            await note.kiq(2)
        await redis.execute_command("REPLICAOF", "NO", "ONE")
        await note.kiq(3)
        await until("the next one ran", lambda: len(ran) == 2)

    assert isinstance(raised.value.__cause__, ReadOnlyError)
    assert [1, 3] == ran


async def test_a_server_that_may_throw_queues_away(
    make_broker: MakeBroker, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker says so at its start."""
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.config_set("maxmemory", "100mb")
        await redis.config_set("maxmemory-policy", "allkeys-lru")
    broker, ran = make_broker(own_valkey.url), []
    note = sleeper(broker, ran)
    await note.kiq(1)
    async with serving(broker):
        await until("it ran", lambda: ran)

    assert "throws queues away" in caplog.text
    assert "volatile" not in caplog.text, "held locks would go instead"


async def test_a_start_without_redis(
    make_broker: MakeBroker, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker starts, the worker waits, and runs what comes when it is there."""
    await asyncio.to_thread(own_valkey.kill)
    broker, ran = make_broker(own_valkey.url), []
    note = sleeper(broker, ran)
    await broker.startup()
    async with serving(broker):
        await until("it waits", lambda: "the worker waits for Redis" in caplog.text)
        await asyncio.to_thread(own_valkey.start)
        await note.kiq(1)
        await until("it ran", lambda: ran)
    levels = {one.levelno for one in caplog.records if one.name.startswith("aiotrack")}

    assert {logging.WARNING} == levels


async def test_an_acknowledgement_that_cannot_be_given(
    make_broker: MakeBroker, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried for a lease, then said to be delivered again; it never raises."""
    broker = make_broker(own_valkey.url, lease=1)
    await sleeper(broker, []).kiq(1)
    hand = Hand(broker)
    message = await hand.take()
    await asyncio.to_thread(own_valkey.kill)
    begun = time.monotonic()
    await message.ack()
    took = time.monotonic() - begun
    await hand.close()

    assert 1 <= took < 15
    assert "could not be acknowledged" in caplog.text


async def test_a_stop_while_redis_is_away(
    make_broker: MakeBroker, own_valkey: ValkeyServer
) -> None:
    """It takes seconds, not for ever."""
    broker = make_broker(own_valkey.url)
    sleeper(broker, [])
    async with serving(broker) as receiver:
        await until("it listens", lambda: has_listener(broker))
        await asyncio.to_thread(own_valkey.kill)
        begun = time.monotonic()
    await broker.shutdown()

    assert receiver is not None
    assert time.monotonic() - begun < 15


def has_listener(broker: Any) -> bool:
    """Whether a listener has said hello."""
    sessions = broker._sessions.values()
    return any(one._is_known for session in sessions for one in session.listeners)


@pytest.mark.parametrize(
    "seconds", [2.0, pytest.param(120.0, marks=[pytest.mark.chaos, pytest.mark.timeout(240)])]
)
async def test_a_bad_network(
    make_broker: MakeBroker, redis_url: str, redis: Any, seconds: float
) -> None:
    """Connections are cut and answers lost, everywhere: what was sent is run once."""
    ran: Counter[str] = Counter()
    chance, sent = random.Random(seconds), set()
    async with contextlib.AsyncExitStack() as stack:
        nets = [await stack.enter_async_context(proxied(redis_url)) for _ in range(3)]
        sender, *workers = [make_broker(url, lease=5) for _, url in nets]
        for broker in (sender, *workers):

            @broker.task("count")
            async def count(text: str) -> None:
                ran[text] += 1
                await asyncio.sleep(chance.uniform(0, 0.05))

        task = sender.find_task("count")
        assert task is not None

        async def send(name: int, end: float) -> None:
            for number in itertools.count():
                if time.monotonic() > end:
                    return
                text = f"{name} {number}"
                with contextlib.suppress(SendTaskError):  # it may run all the same
                    await task.kicker().with_labels(priority=chance.randint(1, 10)).kiq(text)
                    sent.add(text)
                await asyncio.sleep(0.01)

        async def harm() -> None:
            while True:
                await asyncio.sleep(chance.uniform(0, 0.3))
                proxy, _ = chance.choice(nets)
                if chance.random() < 0.5:
                    proxy.cut()
                else:
                    proxy.lose_reply(chance.randint(1, 6))

        for broker in workers:
            await stack.enter_async_context(serving(broker, 10))
        harming = asyncio.create_task(harm())
        await asyncio.gather(*(send(name, time.monotonic() + seconds) for name in range(4)))
        harming.cancel()
        await until("all is acknowledged", lambda: is_empty(sender), 60)

    assert set() == sent - set(ran)
    assert {1} == set(ran.values())
    assert len(sent) > 50


async def is_empty(broker: Any) -> bool:
    """Whether nothing waits, and nothing is with a worker."""
    async with Redis(connection_pool=broker.connection_pool) as redis:
        names = streams.streams(broker.queues)
        try:
            return not sum([await redis.xlen(name) for name in names])
        except FAULTS:  # an answer that was to be lost still is
            return False
