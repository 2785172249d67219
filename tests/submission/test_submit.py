"""What `submit` refuses, what it puts into a message, and what is told of queues and tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from taskiq import AckableMessage, AsyncBroker, BrokerMessage, InMemoryBroker, SendTaskError
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from aiotrack import (
    InvalidInput,
    InvalidSetting,
    InvalidValue,
    Queue,
    QueueFull,
    StoreUnavailable,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
    UnknownTask,
)
from aiotrack.brokers import PriorityStreamBroker
from aiotrack.brokers.streams import streams
from aiotrack.submission import Submission, depth
from tests.control.crew import QuietBroker, enlist
from tests.submission.shop import Shop

Open = Callable[..., Any]


@pytest.fixture
async def small(made_sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(made_sqlite_url) as tracker:
        yield tracker


@pytest.fixture
def open_broker(made_sqlite_url: str, redis_url: str, queue_name: str) -> Open:
    """A context manager: a real broker on a queue of its own, started, and its tracker."""

    @contextlib.asynccontextmanager
    async def open_broker(kind: str, **settings: Any) -> AsyncIterator[tuple[Tracker, Any]]:
        broker: Any = {
            "list": lambda: ListQueueBroker(redis_url, queue_name=queue_name),
            "stream": lambda: RedisStreamBroker(redis_url, queue_name=queue_name, consumer_id="0"),
            "priority": lambda: PriorityStreamBroker(redis_url, queue_name=queue_name),
        }[kind]()
        tracker = Tracker(made_sqlite_url, settings=settings)
        broker.add_middlewares(TrackerMiddleware(tracker))
        broker.register_task(lambda name: name, task_name="shop.note")
        await broker.startup()
        try:
            yield tracker, broker
        finally:
            async with Redis.from_url(redis_url) as redis:
                await redis.delete(*streams([queue_name, f"{queue_name}-other"]))
            await broker.shutdown()

    return open_broker


# ── what is refused ─────────────────────────────────────────────────────────────────────────────
async def test_every_fault_is_told_and_nothing_is_sent(small: Tracker) -> None:
    """Of the arguments, and of all else, at once."""
    shop = Shop(small)
    with pytest.raises(InvalidInput) as caught:
        await small.submit(
            shop.note, kwargs={"nme": 1}, priority=11, timeout=-1, depends_on=[None, object()]
        )

    told = caught.value.faults

    assert isinstance(caught.value, InvalidValue)
    assert "shop.note" == caught.value.task_name
    assert 6 == len(told)
    assert "has no parameter 'nme'; known are: name" == told[0]
    assert "name is missing" == told[1]
    assert told[2].startswith("priority is a whole number from 1 to 10")
    assert told[3].startswith("timeout is a number of seconds above 0")
    assert all(part in str(caught.value) for part in told)
    assert [] == shop.begun
    assert 0 == (await small.stats()).total


@pytest.mark.parametrize("priority", [0, 11, -1, True, 2.0, "hi", "7", b"low", float("nan")])
async def test_a_priority_is_a_number_or_a_word(small: Tracker, priority: Any) -> None:
    """From 1 to 10."""
    with pytest.raises(InvalidInput, match="low, medium, high, urgent"):
        await small.submit(Shop(small).note, ["a"], priority=priority)


@pytest.mark.parametrize("timeout", [0, -1, True, "5", float("nan"), float("inf")])
async def test_a_time_limit_is_above_zero(small: Tracker, timeout: Any) -> None:
    """In seconds."""
    with pytest.raises(InvalidInput, match="above 0"):
        await small.submit(Shop(small).note, ["a"], timeout=timeout)


@pytest.mark.parametrize(
    ("args", "kwargs", "fault"),
    [
        ("abc", None, "args is a list or tuple, not str"),
        ([], ["name"], "kwargs is a mapping"),
        ([], {1: "a"}, "kwargs is a mapping"),
        ([[]], None, "name"),
        (["a", "b"], None, "takes 1 positional arguments, not 2"),
    ],
)
async def test_arguments_that_do_not_fit(
    small: Tracker, args: Any, kwargs: Any, fault: str
) -> None:
    """They are told before anything is sent."""
    with pytest.raises(InvalidInput, match=fault):
        await small.submit(Shop(small).note, args, kwargs)


async def test_too_many_needs(small: Tracker) -> None:
    """There is an end to it."""
    with pytest.raises(InvalidInput, match="at most 1000 executions, not 1001"):
        await Shop(small).hold("a", *map(str, range(1001)))
    with pytest.raises(InvalidInput, match="depends_on lists"):
        await small.submit("shop.note", ["a"], depends_on=None)


async def test_a_task_that_nobody_knows(small: Tracker) -> None:
    """By name, of another broker, or no task at all; only of brokers that are tracked."""
    Shop(small)
    foreign = InMemoryBroker()
    task = foreign.register_task(lambda: None, task_name="foreign.task")
    for unknown in ("shop.none", task, 7):
        with pytest.raises(UnknownTask):
            await small.submit(unknown)


async def test_a_kicker_is_refused(small: Tracker) -> None:
    """Its labels would be lost."""
    shop = Shop(small)
    kicker: Any = shop.note.kicker().with_labels(queue="gpu", priority=9).with_task_id("own")
    with pytest.raises(InvalidInput, match=r"shop\.note.*its own kiq\(\)"):
        await small.submit(kicker, ["a"])

    assert [] == shop.begun
    assert [] == (await small.list()).items


async def test_the_task_of_a_broker_goes_to_that_broker(small: Tracker) -> None:
    """Where several know a task of its name; by name it is the first."""
    brokers = [QuietBroker("one"), QuietBroker("two")]
    tasks = []
    for broker in brokers:
        broker.add_middlewares(TrackerMiddleware(small))
        tasks.append(broker.register_task(lambda: None, task_name="shop.twin"))
    await small.submit(tasks[1])
    await small.submit("shop.twin")

    assert [1, 1] == [len(broker.sent) for broker in brokers]


async def test_a_broker_that_is_away_is_told_as_taskiq_does(small: Tracker) -> None:
    """And leaves no record."""
    broker = QuietBroker()
    broker.add_middlewares(TrackerMiddleware(small))
    broker.register_task(lambda: None, task_name="shop.pay")

    async def away(_: Any) -> None:
        raise ConnectionError("away")

    broker.kick = away
    with pytest.raises(SendTaskError):
        await small.submit("shop.pay")

    assert 0 == (await small.stats()).total


async def test_only_what_waits_takes_a_database() -> None:
    """Without one nothing can be held; all else is sent."""
    tracker = Tracker("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    broker = QuietBroker()
    broker.add_middlewares(TrackerMiddleware(tracker))
    broker.register_task(lambda: None, task_name="shop.pay")
    sent = await tracker.submit("shop.pay")
    with pytest.raises(StoreUnavailable):
        await tracker.submit("shop.pay", depends_on=sent)
    await tracker.shutdown()

    assert 1 == len(broker.sent)


# ── what is sent ────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("given", "number"),
    [(None, 1), (1, 1), (10, 10), ("low", 2), ("Medium", 5), ("high", 8), ("urgent", 10)],
)
async def test_priorities_are_recorded(small: Tracker, given: Any, number: int) -> None:
    """Words are numbers."""
    shop = Shop(small)
    done = await shop.done(await small.submit(shop.note, ["a"], priority=given))

    assert number == done.priority


async def test_what_the_task_says_comes_before_the_defaults(small: Tracker) -> None:
    """And what the caller says before that."""
    shop = Shop(small)
    shop.note.labels.update(priority=7, timeout=60)
    plain = await shop.done(await small.submit(shop.note, kwargs={"name": "a"}))
    said = await shop.done(await small.submit("shop.note", ["b"], priority=3, timeout=9))

    assert (7, 60.0) == (plain.priority, plain.time_limit)
    assert (3, 9.0) == (said.priority, said.time_limit)
    assert {"priority": 7, "timeout": 60} == shop.note.labels

    shop.note.labels["priority"] = "urgent"
    word = await shop.done(await small.submit(shop.note, ["c"]))

    assert 10 == word.priority


async def test_the_time_limit_of_what_has_none(made_sqlite_url: str) -> None:
    """The setting's; 0 is none. A plain `kiq` gets none."""
    limits = []
    for seconds in (300, 0):
        async with Tracker(made_sqlite_url, settings={"task_timeout_seconds": seconds}) as tracker:
            shop = Shop(tracker)
            sent = [await tracker.submit(shop.note, ["a"]), await shop.note.kiq("b")]
            limits.append([(await shop.done(one)).time_limit for one in sent])

    assert [[300.0, None], [None, None]] == limits


async def test_a_time_limit_ends_the_run(small: Tracker) -> None:
    """As TaskIQ's own does."""
    shop = Shop(small)
    done = await shop.done(await small.submit(shop.wait, ["a"], timeout=0.05))

    assert (TaskStatus.FAILURE, "timeout") == (done.status, done.error_class)


# ── queues ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", ["list", "stream", "priority"])
async def test_a_full_queue_refuses(open_broker: Open, queue_name: str, kind: str) -> None:
    """Exactly at the limit; also what would wait for others; not `kiq`, not a rerun."""
    async with open_broker(kind, max_queue=3) as (tracker, broker):
        for number in range(3):
            sent = await tracker.submit("shop.note", [str(number)])
        with pytest.raises(QueueFull) as caught:
            await tracker.submit("shop.note", ["3"])
        with pytest.raises(QueueFull):
            await tracker.submit("shop.note", ["3"], depends_on=sent)
        await broker.find_task("shop.note").kiq("4")
        await tracker.rerun(sent.task_id)
        full = await tracker.queues()

    assert (queue_name, 3, 3) == (caught.value.queue, caught.value.depth, caught.value.limit)
    assert [(queue_name, 5, 0, 0)] == [
        (one.name, one.depth, one.consumers, one.dead_letters) for one in full
    ]


@pytest.mark.parametrize(
    ("kind", "label"), [("list", "queue_name"), ("stream", "queue_name"), ("priority", "queue")]
)
async def test_another_queue_has_a_limit_of_its_own(
    open_broker: Open, queue_name: str, kind: str, label: str
) -> None:
    """The label names it."""
    async with open_broker(kind, max_queue=1) as (tracker, broker):
        labels = {label: f"{queue_name}-other"}
        other = broker.register_task(lambda: None, task_name="shop.other", **labels)
        await tracker.submit("shop.note", ["a"])
        await tracker.submit(other)
        for task, args in (("shop.note", ["b"]), ("shop.other", [])):
            with pytest.raises(QueueFull):
                await tracker.submit(task, args)


async def test_a_stream_counts_what_nobody_has(open_broker: Open, queue_name: str) -> None:
    """Taken or acknowledged messages stay in a stream: its length says nothing."""
    async with open_broker("stream") as (tracker, broker):
        empty = await tracker.queues()
        for number in range(4):
            await tracker.submit("shop.note", [str(number)])
        before = await tracker.queues()
        broker.count = 1
        stream = broker.listen()
        first: AckableMessage = await anext(stream)
        one_taken = await tracker.queues()
        await first.ack()
        for _ in range(3):
            await (await anext(stream)).ack()
        await stream.aclose()
        after = await tracker.queues()

    assert [(queue_name, 0, None)] == [(one.name, one.depth, one.oldest_age) for one in empty]
    assert [4, 3, 0] == [one[0].depth for one in (before, one_taken, after)]
    assert before[0].oldest_age is not None
    assert 0 <= before[0].oldest_age < 60
    assert after[0].oldest_age is None


async def test_a_stream_without_a_group(open_broker: Open, redis_url: str, queue_name: str) -> None:
    """No worker was ever there: all of it waits."""
    async with open_broker("stream") as (tracker, broker), Redis.from_url(redis_url) as redis:
        await tracker.submit("shop.note", ["a"])
        await redis.xgroup_destroy(queue_name, broker.consumer_group_name)
        alone = await tracker.queues()

        await redis.delete(queue_name)
        empty = await tracker.queues()

    assert [1, 0] == [one.depth for one in (*alone, *empty)]


async def test_a_stream_whose_length_nobody_knows(
    open_broker: Open, redis_url: str, queue_name: str
) -> None:
    """Somebody deleted what waits in it: it is left out, and has no limit."""
    async with (
        open_broker("stream", max_queue=1) as (tracker, broker),
        Redis.from_url(redis_url) as redis,
    ):
        for number in range(4):
            await broker.find_task("shop.note").kiq(str(number))
        entries = await redis.xrange(queue_name)
        await redis.xdel(queue_name, entries[1][0])
        (group,) = await redis.xinfo_groups(queue_name)
        unknown = await tracker.queues()
        await tracker.submit("shop.note", ["4"])

    assert group["lag"] is None
    assert [] == unknown


async def test_the_limit_may_be_none(open_broker: Open) -> None:
    """0 asks nobody; and a negative one is refused."""
    async with open_broker("list", max_queue=0) as (tracker, _):
        for number in range(5):
            await tracker.submit("shop.note", [str(number)])
        (queue,) = await tracker.queues()

    assert 5 == queue.depth
    with pytest.raises(InvalidSetting, match="max_queue"):
        Tracker("sqlite+aiosqlite:///x.db", settings={"max_queue": -1})


class Telling(QuietBroker):
    """A broker that tells of its queues by itself, and counts how often it is asked."""

    def __init__(self, tracker: Tracker, depth: int = 0) -> None:
        super().__init__("own")
        self.add_middlewares(TrackerMiddleware(tracker))
        self.register_task(lambda: None, task_name="shop.pay")
        self.depth = depth
        self.asked = 0
        self.fault: Exception | None = None

    async def queue_states(self) -> list[Queue]:
        """Tell."""
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return [
            Queue(name="own", depth=self.depth, oldest_age=1.5, consumers=2, dead_letters=3),
            Queue(name="gpu", depth=self.depth + 1, consumers=None),
        ]


async def test_a_broker_may_tell_by_itself(small: Tracker) -> None:
    """Consumers that it does not know are the workers that beat."""
    Telling(small, 7)
    Telling(small, 9)
    await enlist(small, "a", queues=("own", "gpu"))
    await enlist(small, "b", queues=("gpu",))
    await enlist(small, "lost", queues=("gpu",), ago=600)

    assert [
        Queue(name="gpu", depth=8, consumers=2),
        Queue(name="own", depth=7, oldest_age=1.5, consumers=2, dead_letters=3),
    ] == await small.queues()


async def test_who_cannot_tell_is_left_out(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """One that has no queue, and one that does not answer; sends go on."""
    Shop(small)
    broker = Telling(small)
    broker.fault = ConnectionError("away")
    await small.submit("shop.pay")
    found = await small.queues()

    assert [] == found
    assert 1 == len(broker.sent)
    assert "the queues of Telling are not known" in caplog.text


async def test_queues_without_a_database(small: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who listens is not known then."""
    Telling(small)

    async def away(_: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr("aiotrack.repository.control.workers.Registry.list", away)

    assert [None, 2] == [one.consumers for one in await small.queues()]


async def test_a_depth_far_from_the_limit_is_believed_for_a_moment(
    made_sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a tenth of the room that it left, and for a second."""
    async with Tracker(made_sqlite_url, settings={"max_queue": 1000}) as tracker:
        broker = Telling(tracker)
        for _ in range(250):
            await tracker.submit("shop.pay")
        far = broker.asked
        broker.depth = 990
        monkeypatch.setattr(depth, "BELIEVED", -1.0)
        tracker.core().feature(Submission).gate._seen.clear()
        for _ in range(3):
            await tracker.submit("shop.pay")

    assert 3 == far
    assert 6 == broker.asked


async def test_those_who_submit_at_once_do_not_pass_the_limit(
    open_broker: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share one look, and each counts."""
    looks = 0
    ask = depth._depth

    async def counted(broker: AsyncBroker, name: str) -> int | None:
        nonlocal looks
        looks += 1
        return await ask(broker, name)

    monkeypatch.setattr(depth, "_depth", counted)
    async with open_broker("priority", max_queue=5) as (tracker, _):
        told = await asyncio.gather(
            *(tracker.submit("shop.note", [str(number)]) for number in range(30)),
            return_exceptions=True,
        )
        (queue,) = await tracker.queues()
        at_once = looks
        with pytest.raises(QueueFull):
            await tracker.submit("shop.note", ["late"])

    refused = [one for one in told if isinstance(one, QueueFull)]
    assert (25, 5) == (len(refused), queue.depth)
    assert {(5, 5)} == {(one.depth, one.limit) for one in refused}
    assert 1 == at_once


class Slow(Telling):
    """A broker that tells the truth of what it has taken, and takes its time."""

    fails = False

    async def kick(self, message: BrokerMessage) -> None:
        """Take it later."""
        await asyncio.sleep(0.05)
        if self.fails:
            raise ConnectionError("away")
        self.depth += 1

    async def queue_states(self) -> list[Queue]:
        """Tell, late, what was true before."""
        told = await super().queue_states()
        await asyncio.sleep(0.02)
        return told


async def test_what_is_on_its_way_counts_until_it_failed(made_sqlite_url: str) -> None:
    """A look does not see it; what the broker did not take leaves its place."""
    async with Tracker(made_sqlite_url, settings={"max_queue": 8}) as tracker:
        broker = Slow(tracker)
        broker.fails = True
        for _ in range(3):
            lost = await asyncio.gather(
                *(tracker.submit("shop.pay") for _ in range(8)), return_exceptions=True
            )
            assert {SendTaskError} == {type(one) for one in lost}
        broker.fails = False

        async def later(number: int) -> None:
            await asyncio.sleep(0.005 * number)
            await tracker.submit("shop.pay")

        told = await asyncio.gather(*map(later, range(30)), return_exceptions=True)
        sent = broker.depth
        with contextlib.suppress(QueueFull):
            for _ in range(8):  # what a look may have seen twice has its place now
                await tracker.submit("shop.pay")
        feature = tracker.core().feature(Submission)
        (seen,) = feature.gate._seen.values()

    assert 8 == broker.depth
    assert told.count(None) == sent
    assert 0 == seen.sending


async def test_who_gives_up_a_look_leaves_it_to_the_next(made_sqlite_url: str) -> None:
    """It was not answered."""
    async with Tracker(made_sqlite_url, settings={"max_queue": 1}) as tracker:
        broker = Slow(tracker)
        first = asyncio.create_task(tracker.submit("shop.pay"))
        second = asyncio.create_task(tracker.submit("shop.pay"))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait({first})
        await second

    assert (2, 1) == (broker.asked, broker.depth)


# ── tasks ───────────────────────────────────────────────────────────────────────────────────────
async def test_tasks_are_listed_with_their_parameters(small: Tracker) -> None:
    """Of all brokers, by name, without the tracker's own."""
    Shop(small)
    Telling(small)
    found = {one.name: one for one in small.tasks()}

    assert ["shop.fail", "shop.flaky", "shop.note", "shop.pay", "shop.wait"] == list(found)
    assert {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    } == found["shop.note"].parameters
    assert "own" == found["shop.pay"].queue
    assert {"retry_on_error": True, "max_retries": 3} == found["shop.flaky"].labels


async def test_a_sweep_can_be_submitted_by_name(small: Tracker) -> None:
    """It is a task like any other."""
    broker: AsyncBroker = Shop(small).broker
    sent = await small.submit("aiotrack:cleanup", kwargs={"retention_days": 30})
    result = await sent.wait_result(timeout=30)

    assert not result.is_err
    await asyncio.wait_for(broker.wait_all(), 10)
