"""Hooks with faults on every side: TaskIQ never hears of them, tasks run as without a tracker."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from taskiq import (
    AckableMessage,
    BrokerMessage,
    InMemoryBroker,
    SimpleRetryMiddleware,
    TaskiqMessage,
    TaskiqMiddleware,
    TaskiqResult,
)
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from aiotrack import TaskStatus, Tracker, TrackerMiddleware, acks
from aiotrack.clock import Clock
from aiotrack.encode import Encoded, Encoder
from aiotrack.errors import StoreUnavailable
from aiotrack.journal import Journal
from aiotrack.keeper import Keeper
from aiotrack.recorder import Recorder
from aiotrack.report import Report
from aiotrack.repository import Repository
from aiotrack.repository.read import Reader
from tests.integration.bench import bench


class Faults:
    """One of three calls fails, in one way or another."""

    def __init__(self, seed: int) -> None:
        self._calls = itertools.count()
        self._chance = random.Random(seed)
        self.count = 0
        self.is_over = False

    def kind(self) -> str | None:
        """Give what happens to this call: ``hangs``, ``fails``, ``breaks``, ``late`` or None."""
        if self.is_over or next(self._calls) % 3:
            return None
        self.count += 1
        return self._chance.choice(["hangs", "fails", "breaks", "late"])

    async def strike(self) -> str | None:
        """Hang or raise before the work; give ``late`` when it has to raise after it."""
        kind = self.kind()
        if kind == "hangs":
            await asyncio.sleep(0.1)
        if kind in {"hangs", "fails"}:
            raise StoreUnavailable(kind)
        if kind == "breaks":
            raise KeyError("a fault of ours")
        return kind


class FaultyRepository(Repository):
    """Every third connect, write and release goes wrong; a late one has been done."""

    faults: Faults

    async def connect(self) -> None:
        late = await self.faults.strike()
        await super().connect()
        if late:
            self._ready = False
            raise StoreUnavailable("late")

    async def write(self, reports: Sequence[Report]) -> None:
        late = await self.faults.strike()
        await super().write(reports)
        if late:
            raise StoreUnavailable("late")

    async def release(self) -> None:
        await super().release()
        if await self.faults.strike():
            raise StoreUnavailable("late")


class FaultyJournal(Journal):
    """A disk that is full every third time."""

    faults: Faults

    def append(self, reports: Iterable[Report]) -> int:
        if self.faults.kind():
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().append(reports)


class FaultyClock(Clock):
    """Does not know the time every third time."""

    faults: Faults

    def now(self) -> int:
        if self.faults.kind():
            raise ZeroDivisionError("no time")
        return super().now()


class FaultyEncoder(Encoder):
    """Breaks its promise never to raise."""

    faults = Faults(7)

    def encode(self, value: object, seconds: float = 0.001) -> Encoded:
        if self.faults.kind():
            raise RecursionError("encode")
        return super().encode(value, seconds)

    def encode_args(self, args: Sequence[object], names: Sequence[str] = ()) -> Encoded:
        if self.faults.kind():
            raise RecursionError("encode_args")
        return super().encode_args(args, names)


class Acking(InMemoryBroker):
    """Runs tasks in this process from messages that are acknowledged, in their order."""

    def __init__(self) -> None:
        super().__init__(max_stored_results=100_000)
        self.acked: list[str] = []

    async def kick(self, message: BrokerMessage) -> None:
        async def ack() -> None:
            self.acked.append(message.task_id)

        sent = AckableMessage(data=message.message, ack=ack)
        task = asyncio.create_task(self.receiver.callback(message=sent))
        self._running_tasks.add(task)
        task.add_done_callback(self._running_tasks.discard)


async def nothing() -> None:
    """Do nothing."""


async def outcomes(
    count: int,
    *middlewares: TaskiqMiddleware,
    at_end: Callable[[], Awaitable[None]] = nothing,
) -> list[tuple[Any, ...]]:
    """Run so many tasks of five kinds; give what each left: result, error, bodies, acks."""
    broker = Acking()
    broker.add_middlewares(*middlewares, SimpleRetryMiddleware(default_retry_count=2))
    bodies = [0] * count

    async def work(number: int) -> Any:
        bodies[number] += 1
        if number % 5 == 1:
            raise ValueError(f"no {number}")
        if number % 5 == 2:
            await asyncio.sleep(0)
        return {"number": number, "token": "t"}

    def sync(number: int) -> int:
        bodies[number] += 1
        return number

    async def again(number: int) -> int:
        bodies[number] += 1
        if bodies[number] == 1:
            raise KeyError(number)
        return number

    names = {0: "shop.work", 1: "shop.work", 2: "shop.work", 3: "shop.sync", 4: "shop.again"}
    broker.register_task(work, "shop.work")
    broker.register_task(sync, "shop.sync")
    broker.register_task(again, "shop.again", retry_on_error=True)
    await broker.startup()
    left = []
    for first in range(0, count, 100):
        numbers = range(first, min(first + 100, count))
        sent = []
        for number in numbers:
            task = broker.find_task(names[number % 5])
            assert task is not None
            sent.append(await task.kicker().with_task_id(f"t{number}").kiq(number))
        while broker._running_tasks:
            await asyncio.gather(*broker._running_tasks)
        for number, one in zip(numbers, sent, strict=True):
            result = await one.get_result()
            error = None if result.error is None else (type(result.error), str(result.error))
            told = (one.task_id, result.is_err, result.return_value, error)
            left.append((*told, bodies[number], broker.acked.count(one.task_id)))
        broker.acked.clear()
    await at_end()
    await broker.shutdown()
    return left


def make_faulty(tracker: Tracker, folder: Path) -> list[Faults]:
    """Put faults into every seam of a tracker's core in this loop."""
    core = tracker.core()
    faults = [Faults(seed) for seed in range(2)]
    store = FaultyRepository(tracker.database, clock=tracker.clock)
    store.faults = faults[0]
    core.repository, core.reader = store, Reader(store)
    journal = FaultyJournal(folder)
    journal.faults = faults[1]
    keeper = Keeper(journal, store.write)
    core.recorder = Recorder(store.write, budget=0.05, keeper=keeper)
    return faults


async def compare(url: str, folder: Path, count: int) -> tuple[list[Any], list[Faults], int]:
    """Run tasks with and without a tracker; give differences, faults and final records."""
    plain = await outcomes(count)
    tracker = Tracker(url)
    faults = make_faulty(tracker, folder)
    final = []

    async def heal() -> None:
        for fault in faults:
            fault.is_over = True
        await tracker.flush(60)
        stats = await tracker.stats()
        final.append(stats.success + stats.failure)

    tracked = await outcomes(count, TrackerMiddleware(tracker), at_end=heal)
    differences = [pair for pair in zip(plain, tracked, strict=True) if pair[0] != pair[1]]
    return differences, faults, final[0]


async def test_tasks_run_as_without_a_tracker_whatever_part_of_the_store_fails(
    database_url: str, tmp_path: Path
) -> None:
    """R14: connect, write, release and journal fail, hang or lie: no difference for any task."""
    differences, faults, final = await compare(database_url, tmp_path / "journals", 300)

    assert [] == differences[:3]
    assert 300 == final, "what failed was written later"
    assert 0 < faults[0].count


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_ten_thousand_tasks_run_as_without_a_tracker(
    database_url: str, tmp_path: Path
) -> None:
    """R14, the long form: 10,000 tasks, 0 differences."""
    differences, faults, final = await compare(database_url, tmp_path / "journals", 10_000)
    print(f"{[fault.count for fault in faults]} faults of store and disk, {final} final records")

    assert [] == differences[:3]
    assert 10_000 == final
    assert 10 < faults[0].count
    assert 10 < faults[1].count


async def test_a_tracker_that_breaks_inside_is_never_heard_of(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R14: clock and encoder raise, each kind of fault is logged once, tasks do not notice."""
    plain = await outcomes(100)
    tracker = Tracker(sqlite_url)
    clock = FaultyClock()
    clock.faults = Faults(5)
    tracker.clock = clock
    middleware = TrackerMiddleware(tracker)
    middleware._encoder = FaultyEncoder()
    tracked = await outcomes(100, middleware)
    told = [record.message for record in caplog.records if "the task goes on" in record.message]

    assert plain == tracked
    assert 0 < clock.faults.count
    assert 0 < FaultyEncoder.faults.count
    assert len(told) <= 10, "once for each hook and kind of fault"


LONG = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=10_000))


async def test_a_task_with_a_name_of_10_kb_is_recorded(tracker: Tracker) -> None:
    """R14: a B-tree takes no such value: the name is cut, the record whole."""
    async with bench(tracker) as b:
        task = b.broker.register_task(double, LONG)
        record = await b.run(task, 21)

    assert (TaskStatus.SUCCESS, 42) == (record.status, record.result)
    assert LONG[:900] == record.task_name[:900]
    assert 1024 >= len(record.task_name)
    assert "record_error" not in record.metadata


async def double(value: int) -> int:
    """Do what a task does."""
    return value * 2


ODD_LABELS: list[dict[str, Any]] = [
    {"priority": "high", "queue": 7, "created_by": None, "aiotrack_metadata": "[1]"},
    {"_retries": "many", "aiotrack_created_at": "never", "X-Taskiq-requeue": "x" * 5000},
    {"aiotrack_metadata": "{" * 5000, "aiotrack_parent": b"\xff", "module": ["a"]},
    {"aiotrack_created_at": "9" * 400, "_retries": "-1", "priority": 10**40},
    {"track": "perhaps", "record_args": object, "timeout": None, "schedule_id": float("nan")},
    {"created_by": LONG, "module": LONG, "queue": LONG, "aiotrack_schedule_id": "\0\ud800"},
    {"x" * 10_000: "y", "": "", "aiotrack_config_id": "7.5", "aiotrack_rerun_of": ""},
]


@pytest.mark.parametrize("number", range(len(ODD_LABELS)))
async def test_odd_labels_cost_at_most_what_they_tell(tracker: Tracker, number: int) -> None:
    """R14: a message by another sender, or another version: it runs, and is recorded."""
    async with bench(tracker) as b:
        b.broker.register_task(double, "shop.double")
        message = TaskiqMessage.model_construct(
            task_id="odd",
            task_name="shop.double",
            labels=dict(ODD_LABELS[number]),
            labels_types=None,
            args=[21],
            kwargs={},
        )
        ours = next(m for m in b.broker.middlewares if isinstance(m, TrackerMiddleware))
        message = await ours.pre_send(message)
        await ours.post_send(message)
        message = await ours.pre_execute(message)
        result = TaskiqResult(is_err=False, return_value=42, execution_time=0.1)
        await ours.post_execute(message, result)
        await tracker.flush(5)
        record = await tracker.get("odd")

    assert (TaskStatus.SUCCESS, 42, [21]) == (record.status, record.result, record.args)
    assert "record_error" not in record.metadata


async def test_a_message_of_an_unknown_task_is_recorded_as_sent(tracker: Tracker) -> None:
    """R14: the sender need not have the task; what becomes known later is redacted by its names."""
    async with bench(tracker) as b:
        ours = next(m for m in b.broker.middlewares if isinstance(m, TrackerMiddleware))
        fields: dict[str, Any] = {"labels": {}, "args": ["u", "hunter2"], "kwargs": {}}
        await ours.post_send(TaskiqMessage(task_id="before", task_name="shop.login", **fields))

        async def login(user: str, password: str) -> None: ...

        b.broker.register_task(login, "shop.login")
        silent: Any = b.broker.register_task(double, "shop.silent").original_func
        silent.__signature__ = "not one"
        await ours.post_send(TaskiqMessage(task_id="after", task_name="shop.login", **fields))
        await ours.post_send(TaskiqMessage(task_id="silent", task_name="shop.silent", **fields))
        del silent.__signature__
        told = [(await tracker.get(one)).args for one in ("before", "after", "silent")]

    assert ["u", "hunter2"] == told[0], "nobody knows its names yet"
    assert ["u", "[redacted]"] == told[1]
    assert ["u", "hunter2"] == told[2]


async def test_a_broker_with_nothing_but_the_hooks_is_enough(tracker: Tracker) -> None:
    """R14: no queue name, a queue name that is no text, a module function that raises."""

    def fails(_name: str) -> str:
        raise LookupError

    broker = InMemoryBroker()
    vars(broker)["queue_name"] = 7
    broker.add_middlewares(TrackerMiddleware(tracker, module=fails))
    task = broker.register_task(double, "shop.double")
    await broker.startup()
    sent = await task.kiq(4)
    await asyncio.gather(*broker._running_tasks)
    record = await tracker.get(sent.task_id)
    await broker.shutdown()

    assert ("shop", None, 8) == (record.module, record.queue, record.result)


# ── what an acknowledgement promises ────────────────────────────────────────────────────────────
@contextlib.asynccontextmanager
async def told(
    caplog: pytest.LogCaptureFixture, broker: Any, tracker: Tracker, **options: Any
) -> AsyncIterator[list[str]]:
    """Start the tracker's hook as a worker does; give what it says."""
    receiver = Receiver(broker, max_async_tasks=1, **options)
    broker.is_worker_process = True
    middleware = TrackerMiddleware(tracker)
    middleware.set_broker(broker)
    with caplog.at_level(logging.WARNING):
        await middleware.startup()
    yield [record.message for record in caplog.records if record.name == acks.log.name]
    del receiver
    await middleware.shutdown()


@pytest.mark.parametrize(
    ("make", "kind", "expected"),
    [
        (RedisStreamBroker, None, []),
        (RedisStreamBroker, AcknowledgeType.WHEN_SAVED, []),
        (RedisStreamBroker, AcknowledgeType.WHEN_RECEIVED, ["RedisStreamBroker", "when_received"]),
        (RedisStreamBroker, AcknowledgeType.WHEN_EXECUTED, ["RedisStreamBroker", "when_executed"]),
        (
            ListQueueBroker,
            None,
            ["ListQueueBroker", "does not acknowledge", "PriorityStreamBroker"],
        ),
    ],
)
async def test_a_worker_says_what_its_acknowledgements_do_not_promise(
    sqlite_url: str,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[str], Any],
    kind: AcknowledgeType | None,
    expected: list[str],
) -> None:
    """One WARNING at the start names the broker or ack type, and the way out."""
    broker = make("redis://localhost")
    async with told(caplog, broker, Tracker(sqlite_url), ack_type=kind) as said:
        pass

    assert bool(expected) == len(said)
    assert [] == [word for word in expected if word not in said[0]]


async def test_a_label_that_acknowledges_early_is_told(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A task may say so on its own."""
    broker = RedisStreamBroker("redis://localhost")
    broker.register_task(double, "shop.double", ack_type="when_executed")
    async with told(caplog, broker, Tracker(sqlite_url)) as said:
        pass

    assert 1 == len(said)
    assert "ack_type=when_executed of shop.double" in said[0]
