"""Which message is taken next."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from taskiq import BrokerMessage
from taskiq.receiver import Receiver

from aiotrack.brokers import PriorityStreamBroker, streams
from aiotrack.brokers.held import Held, Key
from aiotrack.brokers.listener import AGED
from aiotrack.brokers.room import MOST, Room
from aiotrack.errors import InvalidValue
from tests.brokers.conftest import Hand, MakeBroker, serving, sleeper
from tests.waits import until


async def send(broker: PriorityStreamBroker, text: str, **labels: Any) -> None:
    """Send a message that is no task."""
    message = BrokerMessage(task_id=text, task_name="t", message=text.encode(), labels=labels)
    await broker.kick(message)


async def taken(hand: Hand, count: int) -> list[str]:
    """Take and acknowledge so many messages, one at a time."""
    found = []
    for _ in range(count):
        message = await hand.take()
        await message.ack()  # type: ignore[misc]
        found.append(message.data.decode())
    return found


def promised(waiting: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Give the order in which (level, number) are taken: the promise in its plainest form."""
    order = []
    while waiting:
        is_aged = len(order) % AGED == AGED - 1
        rank = (lambda one: one[1]) if is_aged else (lambda one: (-one[0], one[1]))
        waiting.remove(chosen := min(waiting, key=rank))
        order.append(chosen)
    return order


async def test_the_most_urgent_first_and_one_in_ten_by_its_age(
    make_broker: MakeBroker, redis: Any, queue_name: str
) -> None:
    """Exactly the promised order, for a worker that runs one at a time."""
    broker, chance = make_broker(), random.Random(1)
    sent = [(chance.randint(1, 10), number) for number in range(1, 201)]
    for level, number in sent:  # a millisecond apart: age is not told more exactly
        name = streams.stream(queue_name, level)
        await redis.xadd(name, {"data": f"{level} {number}"}, id=f"{number}-0")
    hand = Hand(broker)
    found = await taken(hand, 200)
    await hand.close()

    assert [f"{level} {number}" for level, number in promised(list(sent))] == found


async def test_many_at_once_in_the_order_of_sending(make_broker: MakeBroker) -> None:
    """A worker with room for all takes them in batches, each level in its order."""
    broker, ran = make_broker(), []
    note = sleeper(broker, ran)
    for number in range(300):
        await note.kicker().with_labels(priority=1 + number % 3).kiq(number)
    async with serving(broker, 100):
        await until("all ran", lambda: len(ran) == 300)

    for level in range(3):
        of_level = [number for number in ran if number % 3 == level]
        assert all(one < other for one, other in pairwise(of_level))


async def test_the_lowest_is_never_starved(make_broker: MakeBroker) -> None:
    """Under a stream of urgent messages that never ends, the oldest low one is the tenth taken."""
    broker = make_broker()
    for number in range(3):
        await send(broker, f"low {number}")
    hand, found = Hand(broker), []
    for number in range(40):
        await send(broker, f"urgent {number}", priority=10)
        await send(broker, f"urgent {number} too", priority=10)
        found += await taken(hand, 1)
    await hand.close()
    at = [place for place, one in enumerate(found, 1) if one.startswith("low")]

    assert [10, 20, 30] == at


async def test_queues_are_equals(make_broker: MakeBroker, queue_name: str) -> None:
    """A level of one goes before the next level of another, and none waits for the other."""
    names = [f"{queue_name}-{letter}" for letter in "abc"]
    broker = make_broker(queue_name=names[0], queues=names)
    for _ in range(8):
        for name in names:
            await send(broker, f"{name} 3", queue=name, priority=3)
            await send(broker, f"{name} 9", queue=name, priority=9)
    hand = Hand(broker)
    found = await taken(hand, 48)
    await hand.close()
    nines = [one for one in found[:26] if one.endswith(" 9")]

    assert 24 == len(nines)  # and two by their age
    assert 3 == len(set(nines[:3]))


@pytest.mark.parametrize(
    ("label", "level"),
    [
        *[(1, 1), (10, 10), ("7", 7), (11, 10), (0, 1), (-3, 1), (3.5, 1), (True, 1), (None, 1)],
        *[("low", 2), ("medium", 5), ("High", 8), (" urgent ", 10), ("asap", 1), ("None", 1)],
    ],
)
def test_what_a_priority_means(label: Any, level: int) -> None:
    """Numbers are clamped, words have their number, anything else counts as none."""
    assert ("q", level) == streams.place({"priority": label}, "q")


def test_where_a_message_goes() -> None:
    """The label `queue` before the stock one's `queue_name` before the broker's own."""
    assert ("a", 1) == streams.place({"queue": "a", "queue_name": "b"}, "c")
    assert ("b", 1) == streams.place({"queue": None, "queue_name": "b"}, "c")
    assert ("c", 1) == streams.place({}, "c")
    with pytest.raises(InvalidValue, match="stream of 'mail'"):
        streams.place({"queue": "mail:10"}, "c")


async def test_a_worker_takes_what_it_can_run(
    make_broker: MakeBroker, redis: Any, queue_name: str
) -> None:
    """Three slots: three are with it, the rest waits for others."""
    broker, ran = make_broker(), []
    note = sleeper(broker, ran)
    for number in range(20):
        await note.kiq(number, 0.3)
    async with serving(broker, 3):
        await until("three run", lambda: len(ran) == 3)
        (state,) = await broker.queue_states()
        await until("the next three run", lambda: len(ran) == 6)
        held = int((await redis.xpending(queue_name, "taskiq"))["pending"])

    assert 17 == state.depth
    assert 3 == held


async def test_a_label_of_the_task_routes_it(make_broker: MakeBroker, queue_name: str) -> None:
    """Only who listens to the queue runs it; a worker may listen to no queue of its own."""
    gpu = f"{queue_name}-gpu"
    plain, special, ran, ran_there = make_broker(), make_broker(queues=[gpu]), [], []
    sleeper(special, ran_there)
    task = sleeper(plain, ran)
    await task.kiq("here")
    await task.kicker().with_labels(queue=gpu, priority="high").kiq("there")
    async with serving(plain), serving(special):
        await until("both ran", lambda: ran and ran_there)

    assert (["here"], ["there"]) == (ran, ran_there)


async def test_several_levels_at_once(make_broker: MakeBroker, redis: Any, queue_name: str) -> None:
    """A transaction wakes a worker with more than it can run: the rest is handed back."""
    broker, other, ran = make_broker(), make_broker(), []
    note = sleeper(broker, ran)
    for level in (1, 4, 9):
        await note.kicker().with_broker(other).with_labels(priority=level).kiq(level, 0.2)
    texts = {}
    for level in (1, 4, 9):
        name = streams.stream(queue_name, level)
        ((_, fields),) = await redis.xrange(name)
        texts[name] = fields
        await redis.delete(name)
    async with serving(broker):
        await until("it waits", lambda: is_waiting(redis, queue_name))
        pipe = redis.pipeline(transaction=True)
        for name, fields in texts.items():
            pipe.xadd(name, fields)
        await pipe.execute()
        await until("one runs", lambda: ran)
        held = [int((await redis.xpending(name, "taskiq"))["pending"]) for name in texts]
        await until("all ran", lambda: len(ran) == 3)

    assert 1 == sum(held)
    assert {1, 4, 9} == set(ran)


async def is_waiting(redis: Any, queue: str) -> bool:
    """Whether a consumer is blocked at the server."""
    return any(one["cmd"] == "xreadgroup" for one in await redis.client_list()) and bool(
        await redis.exists(queue)
    )


async def test_room(make_broker: MakeBroker) -> None:
    """What a receiver has free; else what was seen to be held at once."""
    broker = make_broker()
    held = Held(60)
    alone = Room(broker, held)
    held.add([Key("s", b"1"), Key("s", b"2"), Key("s", b"3")])
    held.remove([Key("s", b"1"), Key("s", b"2")])
    receiver = Receiver(broker, max_async_tasks=7)
    await receiver.sem_prefetch.acquire()
    known = Room(broker, held)
    del receiver
    unlimited = Receiver(make_broker())

    assert 2 == alone.size()
    assert 7 == known.size()
    assert MOST == Room(unlimited.broker, held).size()
