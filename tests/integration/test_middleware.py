"""What TaskIQ's hooks leave in the records: every place, every way of running and of retrying."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from taskiq import (
    BrokerMessage,
    Context,
    InMemoryBroker,
    TaskiqDepends,
    TaskiqMessage,
    TaskiqMiddleware,
    TaskiqResult,
)
from taskiq.result_backends.dummy import DummyResultBackend

from aiotrack import Execution, TaskStatus, Tracker, TrackerMiddleware, current_execution
from tests.integration.bench import Bench, bench, in_order

INPLACE = pytest.mark.parametrize("inplace", [False, True], ids=["plain", "inplace"])


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


class Copies(TaskiqMiddleware):
    """Returns a copy of every message, as a tracing middleware may."""

    async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        return message.model_copy(deep=True)

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        return message.model_copy(deep=True)


class Relabels(TaskiqMiddleware):
    """Changes labels on the way out and in."""

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        message.labels["team"] = "blue"
        return message

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        message.labels = {**message.labels, "seen": "yes"}
        return message


class Breaks(TaskiqMiddleware):
    """Raises when a run ends, as a broken neighbour does."""

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        raise RuntimeError("a neighbour's hook broke")


PLACES = {
    "alone": ([], []),
    "first": ([], [Copies, Relabels]),
    "middle": ([Relabels], [Copies]),
    "last": ([Copies, Relabels], []),
}


# ── one run ─────────────────────────────────────────────────────────────────────────────────────
@INPLACE
async def test_every_field_of_a_success_is_recorded(tracker: Tracker, inplace: bool) -> None:
    """One task that succeeds leaves a record that tells who, what, when, where and with what."""
    async with bench(tracker, inplace=inplace) as b:

        @b.task("shop.orders:add", priority=7, queue="fast", created_by="ada")
        async def add(left: int, right: int = 1) -> dict[str, int]:
            return {"sum": left + right}

        record = await b.run(add, 1, right=2)
        attempts = await b.attempts(record)

    fields = {
        name: getattr(record, name)
        for name in (
            *("task_name", "module", "status", "attempt", "queue", "priority", "worker", "args"),
            *("kwargs", "result", "error", "error_type", "error_class", "traceback", "created_by"),
            *("metadata", "schedule_id", "config_id", "parent_task_id", "presumed", "runs"),
            *("duplicates", "is_completed", "is_running", "is_success"),
        )
    }
    assert fields == {
        **dict.fromkeys(("error", "error_type", "error_class", "traceback", "schedule_id")),
        **dict.fromkeys(("config_id", "parent_task_id")),
        "task_name": "shop.orders:add",
        "module": "shop",
        "status": TaskStatus.SUCCESS,
        "attempt": 1,
        "queue": "fast",
        "priority": 7,
        "worker": tracker.worker_id,
        "args": [1],
        "kwargs": {"right": 2},
        "result": {"sum": 3},
        "created_by": "ada",
        "metadata": {},
        "presumed": False,
        "runs": 1,
        "duplicates": 0,
        "is_completed": True,
        "is_running": False,
        "is_success": True,
    }
    assert in_order(record)
    assert [(1, "first", "SUCCESS", None)] == [
        (one.attempt, one.cause, one.status, one.error) for one in attempts
    ]


@INPLACE
async def test_a_failure_keeps_type_message_and_traceback(tracker: Tracker, inplace: bool) -> None:
    """One task that raises leaves its error as Python tells it."""
    async with bench(tracker, inplace=inplace) as b:

        @b.task("shop.fail")
        async def fail() -> None:
            raise ValueError("no such order")

        record = await b.run(fail)

    assert (TaskStatus.FAILURE, None) == (record.status, record.result)
    assert ("ValueError", "no such order") == (record.error_type, record.error)
    assert (record.traceback or "").startswith("Traceback (most recent call last):")
    assert (record.traceback or "").endswith("ValueError: no such order\n")
    assert in_order(record)


@INPLACE
async def test_the_record_is_pending_then_started_then_final(small: Tracker, inplace: bool) -> None:
    """Inside the body the record says STARTED; before it and after it, PENDING and SUCCESS."""
    seen: list[TaskStatus] = []
    async with bench(small, inplace=inplace) as b:

        @b.task("shop.look")
        async def look(context: Context = TaskiqDepends()) -> None:
            seen.append((await small.get(context.message.task_id)).status)

        record = await b.run(look)

    assert [TaskStatus.STARTED] == seen
    assert TaskStatus.SUCCESS is record.status


@INPLACE
async def test_a_sync_task_runs_in_a_thread_and_tells_progress(
    small: Tracker, inplace: bool
) -> None:
    """The run is known in the thread, and its last progress is in the record."""
    seen: list[tuple[bool, str]] = []
    async with bench(small, inplace=inplace) as b:

        @b.task("shop.sync")
        def work(count: int) -> int:
            run = current_execution()
            assert run is not None
            seen.append((threading.current_thread() is threading.main_thread(), run.task_id))
            for number in range(1, count + 1):
                small.progress_sync(current=number, total=count, message=f"row {number}")
            return count

        record = await b.run(work, 3000)

    assert [(False, record.task_id)] == seen
    assert 3000 == record.result
    assert {"progress_percent": 100, "progress_message": "row 3000"} == record.metadata


@pytest.mark.parametrize("place", PLACES)
@INPLACE
async def test_any_place_among_the_middlewares_will_do(
    small: Tracker, place: str, inplace: bool
) -> None:
    """Before and behind middlewares that copy messages or change labels, records are the same."""
    before, after = PLACES[place]
    others = {"before": [one() for one in before], "after": [one() for one in after]}
    async with bench(small, inplace=inplace, **others) as b:

        @b.task("shop.ok", created_by="ada")
        async def ok(value: int) -> int:
            await small.progress(50)
            return value

        @b.task("shop.fail")
        async def fail(value: int) -> None:
            raise KeyError(value)

        good, bad = await b.run(ok, 1), await b.run(fail, 2)

    assert (TaskStatus.SUCCESS, 1, [1], "ada", 1) == (
        *(good.status, good.result, good.args, good.created_by, good.runs),
    )
    assert {"progress_percent": 50} == good.metadata
    assert (TaskStatus.FAILURE, "KeyError", "2", 1) == (
        *(bad.status, bad.error_type, bad.error, bad.runs),
    )


@INPLACE
async def test_a_neighbour_that_breaks_leaves_a_failure_that_names_it(
    small: Tracker, inplace: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """When another middleware's hook kills the callback, the record does not stay STARTED."""
    caplog.set_level(logging.CRITICAL, "aiotrack")

    over = asyncio.Event()

    async def sender() -> Execution:
        async with bench(small, inplace=inplace, after=[Breaks()]) as b:

            @b.task("shop.ok")
            async def ok() -> int:
                return 1

            record = await b.run(ok)
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: over.set())
        return record

    sent = asyncio.create_task(sender())  # in place a run that died ends with its sender's task
    await over.wait()
    record = await small.get((await sent).task_id)

    assert TaskStatus.FAILURE is record.status
    assert "hook" in (record.error or "")


# ── senders and workers that are not alike ──────────────────────────────────────────────────────
async def test_a_second_middleware_of_a_tracker_counts_nothing_twice(
    tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """It stands back, and says so; one of another tracker does not."""
    async with bench(tracker, after=[TrackerMiddleware(tracker)]) as b:

        @b.task("shop.rows")
        async def rows() -> int:
            await tracker.progress(50)
            return 1

        record = await b.run(rows)

    assert (TaskStatus.SUCCESS, 1, 0) == (record.status, record.runs, record.duplicates)
    assert {"progress_percent": 50} == record.metadata
    assert 1 == sum("two of TrackerMiddleware" in one.message for one in caplog.records)


async def test_a_client_that_was_never_started_is_recorded(tracker: Tracker) -> None:
    """Nobody called `broker.startup()`: the first send opens what it needs."""
    broker = InMemoryBroker()
    broker.add_middlewares(TrackerMiddleware(tracker))
    b = Bench(tracker, broker)

    @broker.task("shop.ok")
    async def ok() -> int:
        return 5

    record = await b.run(ok)

    assert (TaskStatus.SUCCESS, 5) == (record.status, record.result)


class Sender(InMemoryBroker):
    """A client of another broker's queue."""

    def __init__(self, queue: InMemoryBroker) -> None:
        super().__init__()
        self.queue = queue

    async def kick(self, message: BrokerMessage) -> None:
        await self.queue.kick(message)


async def test_a_message_from_a_client_without_the_tracker_is_recorded(tracker: Tracker) -> None:
    """The worker alone makes the record: created when it started, with all arguments."""
    async with bench(tracker) as b:
        sender = Sender(b.broker)

        @b.task("shop.ok")
        async def ok(value: int, *, note: str) -> int:
            return value

        kicked = await sender.register_task(ok.original_func, "shop.ok").kiq(3, note="x")
        await b.settle()
        record = await tracker.get(kicked.task_id)

    assert (TaskStatus.SUCCESS, [3], {"note": "x"}, 3) == (
        *(record.status, record.args, record.kwargs, record.result),
    )
    assert record.created_at == record.started_at
    assert in_order(record)


async def test_a_message_that_comes_twice_counts_as_a_duplicate_run(small: Tracker) -> None:
    """A broker that delivers one message twice makes one record with two runs."""
    async with bench(small) as b:

        @b.task("shop.ok")
        async def ok() -> int:
            return 1

        record = await b.run(ok)
        message = TaskiqMessage(
            task_id=record.task_id,
            task_name="shop.ok",
            labels={"aiotrack_created_at": micros(record)},
            args=[],
            kwargs={},
        )
        await b.broker.kick(b.broker.formatter.dumps(message))
        await b.settle()
        again = await small.get(record.task_id)
        told, stats = await b.told(again), await small.stats()

    assert 1 == stats.total
    assert (TaskStatus.SUCCESS, 2, 1) == (again.status, again.runs, again.duplicates)
    assert ["first", "redelivery"] == [cause for _, cause, _, _ in told]


def micros(record: Execution) -> str:
    """Give the moment of a record's message as its label tells it."""
    return str(int(record.created_at.timestamp() * 1_000_000))


class Tells(TaskiqMiddleware):
    """Takes its time to tell somebody of an error, as an alert or a retry does."""

    async def on_error(
        self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException
    ) -> None:
        await asyncio.sleep(float(message.labels["tells"]))


async def test_an_error_that_two_tasks_share_harms_neither(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """Both wait for one call, which fails: the first to end leaves the other alone."""
    caplog.set_level(logging.CRITICAL)
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(small), Tells())
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @broker.task("shop.waits")
    async def waits() -> None:
        await shared

    await broker.startup()
    tasks = [await waits.kicker().with_labels(tells=pause).kiq() for pause in ("0.01", "0.2")]
    await asyncio.sleep(0.05)
    shared.set_exception(ValueError("the call failed"))
    results = [await task.wait_result(timeout=30) for task in tasks]
    records = [await small.get(task.task_id) for task in tasks]
    await broker.shutdown()

    assert [True, True] == [result.is_err for result in results]
    assert [TaskStatus.FAILURE] * 2 == [record.status for record in records]


class Held:
    """Stands for a table of a gigabyte in a task's variable."""


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError])
async def test_what_a_failed_task_held_is_freed_at_once(
    small: Tracker, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    """Without a collection: TaskIQ's frames and the error hold each other otherwise."""
    caplog.set_level(logging.CRITICAL)  # a log record would hold the error
    alive: weakref.WeakSet[Held] = weakref.WeakSet()
    broker = InMemoryBroker().with_result_backend(DummyResultBackend())
    broker.add_middlewares(TrackerMiddleware(small))

    @broker.task("shop.fails")
    async def fails() -> None:
        held = Held()
        alive.add(held)
        raise kind

    await broker.startup()
    gc.disable()
    try:
        await fails.kiq()
        await broker.wait_all()
        await asyncio.sleep(0)  # callbacks of the task's end
        left = len(alive)
    finally:
        gc.enable()
    await broker.shutdown()

    assert 0 == left
