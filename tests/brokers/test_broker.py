"""What users make, and what they can read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from taskiq import InMemoryBroker
from taskiq_redis import RedisStreamBroker

from aiotrack import acks, labels
from aiotrack.brokers import PriorityStreamBroker
from aiotrack.encode import Encoder
from aiotrack.errors import InvalidValue
from aiotrack.workers.facts import queues_of
from tests.brokers.conftest import Hand, MakeBroker, serving, sleeper
from tests.waits import until

URL = "redis://localhost:1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lease": 0}, "lease must be at least"),
        ({"lease": float("nan")}, "lease must be at least"),
        ({"lease": "60"}, "lease is seconds"),
        ({"max_deliveries": 0}, "max_deliveries must be"),
        ({"max_deliveries": True}, "max_deliveries must be"),
        ({"maxlen": -1}, "maxlen must be"),
        ({"queue_name": ""}, "a queue's name"),
        ({"queue_name": "mail:dead"}, "stream of 'mail'"),
        ({"queues": "taskiq"}, "a list of names"),
        ({"queues": []}, "listen to nothing"),
        ({"queues": ["a", "a:2"]}, "stream of 'a'"),
        ({"queues": [7]}, "a queue's name"),
        ({"additional_streams": {"a": ">"}}, "list the queues"),
    ],
)
def test_what_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    """It is said at once, with the argument's name."""
    with pytest.raises(InvalidValue, match=words):
        PriorityStreamBroker(URL, **options)


def test_a_url_that_is_none_is_told_without_its_password() -> None:
    """A password with a bare / is taken for a port, which redis-py quotes."""
    with pytest.raises(InvalidValue, match=r"url: '\.\.\.@host:6379/0' is not a URL") as caught:
        PriorityStreamBroker("redis://shop:half/other@host:6379/0")

    assert "half" not in str(caught.value)
    assert caught.value.__suppress_context__  # nor is it in the traceback


def test_what_the_stock_broker_takes(caplog: pytest.LogCaptureFixture) -> None:
    """Its arguments are no error: what they were for is done, and said."""
    broker = PriorityStreamBroker(URL, consumer_id="0", xread_count=1, lease=timedelta(minutes=2))

    assert isinstance(broker, RedisStreamBroker)
    assert 120 == broker.lease
    assert "needs no consumer_id" in caplog.text
    assert "needs no xread_count" in caplog.text


def test_what_a_worker_listens_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument before the environment before the broker's own queue; workers tell it."""
    own = PriorityStreamBroker(URL, "mail")
    monkeypatch.setenv("AIOTRACK_QUEUES", " taskiq, gpu,,gpu ")
    told, given = PriorityStreamBroker(URL, "mail"), PriorityStreamBroker(URL, queues=["a", "b"])
    encoder = Encoder()

    assert ("mail",) == own.queues
    assert ("taskiq", "gpu") == told.queues
    assert ("a", "b") == given.queues
    assert ["a", "b"] == queues_of([given], encoder)
    assert ["taskiq"] == queues_of([RedisStreamBroker(URL)], encoder)


def test_who_else_asks_for_it() -> None:
    """It redelivers; the record has the number that a word for a priority means."""
    assert acks.redelivers(PriorityStreamBroker(URL))
    assert 1 == len(acks.receivers(InMemoryBroker()))
    assert [8, 3, None] == [labels.priority(one) for one in ("high", "3", "asap")]


def test_the_package_costs_nothing_unused() -> None:
    """`import aiotrack` loads neither it nor redis."""
    code = "import sys, aiotrack; sys.exit('aiotrack.brokers' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


async def test_states_of_queues(make_broker: MakeBroker, redis: Any, queue_name: str) -> None:
    """Depth is without what workers hold; queues without a worker are told, too."""
    gpu = f"{queue_name}-gpu"
    broker = make_broker()
    note = sleeper(broker, [])

    @broker.task("render", queue=gpu)
    async def render() -> None: ...

    before = await broker.queue_states()
    await render.kiq()
    for level in (1, 1, 5, 10):
        await note.kicker().with_labels(priority=level).kiq(0)
    hand, other = Hand(broker), Hand(broker)
    await hand.take()
    await other.take()
    (ours, theirs) = await broker.queue_states()
    await hand.close()
    await other.close()

    assert [(queue_name, 0, None), (gpu, 0, None)] == [
        (one.name, one.depth, one.oldest_age) for one in before
    ]
    assert (queue_name, 2, 2, 0) == (ours.name, ours.depth, ours.consumers, ours.dead_letters)
    assert ours.oldest_age is not None
    assert 0 <= ours.oldest_age < 60
    assert (gpu, 1, 0) == (theirs.name, theirs.depth, theirs.consumers)


async def test_letters_that_nobody_can_read(
    make_broker: MakeBroker, redis: Any, queue_name: str
) -> None:
    """They are told all the same, the newest first; an id that is gone counts nothing."""
    broker = make_broker()
    for text in ("no json", "[1]", '{"task_id": 7}'):
        await redis.xadd(f"{queue_name}:dead", {"data": text})
    found = await broker.dead_letters(limit=2)

    assert [b'{"task_id": 7}', b"[1]"] == [one.message for one in found]
    assert {(None, None)} == {(one.task_id, one.task_name) for one in found}
    assert abs(datetime.now(UTC) - found[0].at) < timedelta(minutes=1)
    assert 1 == await broker.revive(ids=[found[0].id])
    assert 0 == await broker.revive(ids=[found[0].id])
    assert 2 == await broker.revive()
    assert 0 == await broker.revive()
    assert 3 == await redis.xlen(queue_name)
    with pytest.raises(InvalidValue):
        await broker.dead_letters(limit=0)


def test_one_loop_after_the_other(redis_url: str, queue_name: str) -> None:
    """A broker that a module made serves a loop, then another, as command lines do."""
    broker, ran = PriorityStreamBroker(redis_url, queue_name=queue_name), []
    note = sleeper(broker, ran)

    async def send(value: int) -> None:
        await note.kiq(value)
        await broker.shutdown()

    async def work() -> None:
        async with serving(broker):
            await until("both ran", lambda: len(ran) == 2)
        await broker.shutdown()

    asyncio.run(send(1))
    asyncio.run(send(2))
    asyncio.run(work())

    assert [1, 2] == ran


async def test_a_bounded_stream(make_broker: MakeBroker, redis: Any, queue_name: str) -> None:
    """`maxlen` drops the oldest, by whole nodes of the stream."""
    broker = make_broker(maxlen=100)
    note = sleeper(broker, [])
    for number in range(400):
        await note.kiq(number)

    assert 100 <= await redis.xlen(queue_name) < 300


async def test_it_stops_at_once(make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle worker does not sit out its wait at the server, and leaves no thread."""
    monkeypatch.setattr("aiotrack.brokers.listener.BLOCK", 60.0)
    broker, ran = make_broker(lease=600), []
    note = sleeper(broker, ran)
    await note.kiq(1)
    async with serving(broker):
        await until("it ran", lambda: ran)
        await asyncio.sleep(0.1)  # it waits at the server again
        begun = time.monotonic()
    took = time.monotonic() - begun
    await broker.shutdown()
    await until(
        "the thread is gone",
        lambda: not [one for one in threading.enumerate() if one.name == "aiotrack-leases"],
    )

    assert took < 10
