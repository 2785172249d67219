"""Messages are run to their end: leases, orphans, dead letters, farewells."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from taskiq import Context, TaskiqDepends
from taskiq_redis import RedisStreamBroker

from aiotrack.brokers.held import Held, Key
from tests.brokers.conftest import Hand, MakeBroker, pending, serving, sleeper
from tests.waits import until


async def test_a_body_that_blocks_its_loop_keeps_its_message(
    make_broker: MakeBroker, redis: Any, queue_name: str
) -> None:
    """Three leases long, while another worker looks for orphans: it runs once."""
    first, other = make_broker(lease=1), make_broker(lease=1)
    ran: list[str] = []

    def add(broker: Any, name: str) -> Any:
        @broker.task("block")
        async def block() -> None:
            ran.append(name)
            if name == "first":
                time.sleep(3)  # noqa: ASYNC251 - that is what it is for

        return block

    block = add(first, "first")
    add(other, "other")
    await block.kiq()

    def look() -> None:
        asyncio.run(run_for(other, 2.8))

    async with serving(first):
        await until("it runs", lambda: ran)
        await asyncio.to_thread(look)
        await until("it is acknowledged", lambda: is_empty(redis, queue_name))

    assert ["first"] == ran


async def run_for(broker: Any, seconds: float) -> None:
    """Serve a broker in a loop of its own."""
    async with serving(broker):
        await asyncio.sleep(seconds)
    await broker.shutdown()


async def is_empty(redis: Any, stream: str) -> bool:
    """Whether nothing is left of what was sent."""
    return await redis.xlen(stream) == 0


async def test_an_orphan_on_an_idle_queue(
    make_broker: MakeBroker, redis: Any, queue_name: str
) -> None:
    """Nothing else comes, and it is taken up within a lease and a half."""
    dead, living, ran = make_broker(lease=2), make_broker(lease=2), []
    note = sleeper(living, ran)
    await note.kiq("orphan")
    assert await orphaned(redis, queue_name)
    begun = time.monotonic()
    async with serving(living):
        await until("it ran", lambda: ran)
        took = time.monotonic() - begun
        await until("it is acknowledged", lambda: is_empty(redis, queue_name))

    assert dead is not living
    assert 1.9 < took < 3 + 5  # five for a slow machine; the stock broker never does


async def orphaned(redis: Any, queue: str, count: int = 1, consumer: str = "killed") -> bool:
    """Take messages as a worker that was killed right then."""
    if not await redis.exists(queue):
        return False
    groups = await redis.xinfo_groups(queue)
    if not groups:
        await redis.xgroup_create(queue, "taskiq", id="0")
    found = await redis.xreadgroup("taskiq", consumer, {queue: ">"}, count=count)
    return bool(found)


async def test_what_taskiq_let_go_of_is_given_again(
    make_broker: MakeBroker, redis: Any, queue_name: str
) -> None:
    """A callback that dies leaves no acknowledgement: its lease is not renewed for ever."""
    broker, ran = make_broker(lease=0.4), []

    @broker.task("leaves", ack_type="manual")
    async def leaves(context: Context = TaskiqDepends()) -> None:
        ran.append(1)
        if len(ran) == 3:
            await context.ack()

    await leaves.kiq()
    async with serving(broker):
        await until("it ran three times", lambda: len(ran) == 3)
        await until("it is acknowledged", lambda: is_empty(redis, queue_name))


async def test_dead_letters(make_broker: MakeBroker, redis: Any, queue_name: str) -> None:
    """After so many deliveries it is kept aside, and can be sent again."""
    broker, ran = make_broker(lease=0.3, max_deliveries=2), []
    note = sleeper(broker, ran)

    @broker.task("never", ack_type="manual")
    async def never() -> None:
        ran.append("never")

    sent = await never.kicker().with_labels(priority=4).kiq()
    await note.kiq("neighbour")
    async with serving(broker):

        async def is_dead() -> bool:
            return (await broker.queue_states())[0].dead_letters == 1

        await until("it is set aside", is_dead)
        (letter,) = await broker.dead_letters()

        assert 2 == ran.count("never")
        assert (sent.task_id, "never", queue_name) == (
            letter.task_id,
            letter.task_name,
            letter.queue,
        )
        assert 2 == letter.deliveries
        assert "delivered 2 times" in letter.reason
        assert 0 == await redis.xlen(f"{queue_name}:4")
        assert 1 == await broker.revive(ids=[letter.id])
        await until("it ran again", lambda: ran.count("never") >= 3)
        await until("it is set aside again", is_dead)
        assert 1 == await broker.revive()
        await until("it ran again", lambda: ran.count("never") >= 5)

    assert 1 == ran.count("neighbour")


async def test_a_farewell_hands_back(make_broker: MakeBroker, redis: Any, queue_name: str) -> None:
    """What was taken and not begun is another's at once; the consumer is gone."""
    leaving, staying, ran = make_broker(lease=60), make_broker(lease=60), []
    note = sleeper(staying, ran)
    for number in range(5):
        await note.kiq(number)
    hand = Hand(leaving)
    for _ in range(3):  # three are held, so that it takes three at once next time
        await hand.take()
    for message in hand.taken:
        await message.ack()
    await hand.take()  # both that are left are taken
    taken = await pending(redis, queue_name)
    await hand.close()
    left = await pending(redis, queue_name)
    await hand.taken[-1].ack()
    await leaving.shutdown()
    consumers = await redis.xinfo_consumers(queue_name, "taskiq")
    async with serving(staying):
        await until("the other ran", lambda: ran)

    assert (2, 1) == (taken, left)
    assert [] == consumers
    assert 1 == len(ran)


async def test_one_that_still_runs_is_not_handed_back(
    make_broker: MakeBroker, redis: Any, queue_name: str
) -> None:
    """It may end yet; its consumer stays until then, and goes when it is dead for long."""
    leaving, staying = make_broker(lease=0.2), make_broker(lease=0.2)
    await sleeper(staying, []).kiq("runs on")
    hand = Hand(leaving)
    message = await hand.take()
    await hand.close()
    await leaving.shutdown()
    held = await pending(redis, queue_name)
    await message.ack()
    async with serving(staying):
        await until("only one consumer is left", lambda: has_consumers(redis, queue_name, 1))

    assert 1 == held
    assert 0 == await redis.xlen(queue_name)


async def has_consumers(redis: Any, stream: str, count: int) -> bool:
    """Whether a stream has so many consumers."""
    return len(await redis.xinfo_consumers(stream, "taskiq")) == count


async def test_a_switch_from_the_stock_broker(
    make_broker: MakeBroker, redis_url: str, redis: Any, queue_name: str
) -> None:
    """What it sent is served, what it took is taken over, and what it sends now is run."""
    stock = RedisStreamBroker(redis_url, queue_name=queue_name, consumer_id="0")
    ours, ran = make_broker(lease=0.5), []
    task = sleeper(stock, ran)
    sleeper(ours, ran)
    await stock.startup()
    for number in range(3):
        await task.kiq(number)
    assert await orphaned(redis, queue_name, 2, stock.consumer_name)
    async with serving(ours):
        await until("all ran", lambda: len(ran) == 3)
        await task.kiq("new")
        await until("the new one ran", lambda: len(ran) == 4)
        await until("all are gone", lambda: is_empty(redis, queue_name))
    await stock.shutdown()

    assert {0, 1, 2, "new"} == set(ran)


async def test_a_message_that_is_not_ours(
    make_broker: MakeBroker, redis: Any, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """TaskIQ refuses it, and it is gone; the worker goes on."""
    broker, ran = make_broker(), []
    note = sleeper(broker, ran)
    await redis.xadd(queue_name, {"strange": "thing"})
    await note.kiq(1)
    async with serving(broker):
        await until("the next one ran", lambda: ran)
        await until("both are gone", lambda: is_empty(redis, queue_name))
        await until("it is told", lambda: "Cannot parse message" in caplog.text)


async def test_a_lease_that_was_lost_is_told(
    make_broker: MakeBroker, redis: Any, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody took the message away: it is not renewed any more, and the log says so."""
    broker = make_broker(lease=0.3)
    await sleeper(broker, []).kiq(1)
    hand = Hand(broker)
    await hand.take()
    ((name, _),) = await redis.xrange(queue_name)
    await redis.xclaim(queue_name, "taskiq", "thief", 0, [name])
    await until("it is told", lambda: "not this worker's any more" in caplog.text)
    (consumer,) = [
        one for one in await redis.xinfo_consumers(queue_name, "taskiq") if one["name"] == b"thief"
    ]
    await hand.close()

    assert 1 == consumer["pending"]


def test_what_is_held() -> None:
    """What TaskIQ dropped is known as delivered for two leases, and not renewed."""
    held = Held(lease=0.0)
    one, two = Key("s", b"1-0"), Key("s", b"2-0")
    held.add([one, two])
    held.drop(one)
    held.drop(Key("s", b"9-0"))  # acknowledged before

    assert [two] == held.keys()
    assert [] == held.left()  # its leases are over
    assert 2 == held.most
    held.remove([one, two])
    assert 0 == len(held)
