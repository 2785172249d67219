"""Reruns: the same task again, with exactly the arguments that it had, or not at all."""

from __future__ import annotations

import asyncio
import copy
import functools
import math
import pickle
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from taskiq import (
    BrokerMessage,
    InMemoryBroker,
    SendTaskError,
    SimpleRetryMiddleware,
    TaskiqMessage,
    TaskiqMiddleware,
)
from taskiq.abc.formatter import TaskiqFormatter

from aiotrack import (
    Cause,
    Execution,
    ExecutionNotFound,
    InvalidQuery,
    NotRepeatable,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
    UnknownTask,
    current_execution,
    tracking,
)
from aiotrack.testing.servers import PostgresServer
from tests.control.crew import QuietBroker
from tests.integration.bench import Bench, bench


def add_echo(b: Bench, **labels: Any) -> tuple[Any, list[Any]]:
    """Register a task that notes what it is given."""
    given: list[Any] = []

    @b.task("shop.echo", **labels)
    async def echo(*args: Any, **kwargs: Any) -> None:
        given.append(copy.deepcopy((args, kwargs)))

    return echo, given


async def again(b: Bench, record: Execution, **options: Any) -> Execution:
    """Rerun an execution, and wait for the end of the new one."""
    new = await b.tracker.rerun(record.task_id, **options)
    await b.settle()
    return await b.tracker.get(new.task_id)


# ── what it is ──────────────────────────────────────────────────────────────────────────────────
async def test_a_rerun_is_the_same_work_under_a_new_id(tracker: Tracker) -> None:
    """Linked both ways; the old record stays as it was."""
    async with bench(tracker) as b:
        echo, given = add_echo(b)
        old = await b.run(echo, 1, "two", three=[3.5, None, {"four": True}])
        new = await tracker.rerun(old.task_id)
        first = new.status
        await b.settle()
        ended, kept = await tracker.get(new.task_id), await tracker.get(old.task_id)
        (attempt,) = await tracker.attempts(new.task_id)

    assert given[0] == given[1] == ((1, "two"), {"three": [3.5, None, {"four": True}]})
    assert first in {TaskStatus.PENDING, TaskStatus.STARTED, TaskStatus.SUCCESS}
    assert (TaskStatus.SUCCESS, old.task_id, None) == (
        *(ended.status, ended.rerun_of, old.rerun_of),
    )
    assert old.task_id != new.task_id
    assert Cause.RERUN is attempt.cause
    assert new.task_id == kept.metadata["rerun_as"]
    assert (old.status, old.finished_at, old.attempt, old.runs) == (
        *(kept.status, kept.finished_at, kept.attempt, kept.runs),
    )


async def test_a_rerun_has_the_facts_of_the_old_one(tracker: Tracker) -> None:
    """Who asked, module, metadata as sent, queue, priority, limit; not who repeats it."""
    async with bench(tracker) as b:

        @b.task("shop.pack", timeout=30)
        async def pack(number: int) -> None:
            await tracker.progress(50, "half", parcel=number)

        with tracking(created_by="42", module="post", metadata={"order": 7}, parent="cart"):
            labels = {"queue": "gpu", "priority": 3, "aiotrack_config_id": 5, "timeout": 20}
            old = await b.run(pack.kicker().with_labels(**labels), 1)
        with tracking(created_by="admin", metadata={"why": "again"}, module="x", parent="y"):
            new = await again(b, old, by="admin")
        third = await again(b, new)

    names = (
        *("created_by", "module", "queue", "priority", "config_id", "time_limit"),
        *("parent_task_id", "args", "kwargs", "task_name"),
    )
    facts = {name: getattr(old, name) for name in names}
    assert facts == {name: getattr(new, name) for name in names}
    assert facts == {name: getattr(third, name) for name in names}
    assert ("42", "post", "gpu", 3, 5, 20.0, "cart") == tuple(facts.values())[:7]
    assert (7, 50, 1, "admin") == tuple(
        new.metadata[key] for key in ("order", "progress_percent", "parcel", "rerun_by")
    )
    assert "why" not in new.metadata
    assert {"order", "progress_percent", "progress_message", "parcel"} == set(third.metadata)
    assert new.task_id == third.rerun_of


@pytest.mark.parametrize("queue", ["own", "gpu", "other"])
async def test_a_rerun_goes_to_the_queue_of_the_old_one(tracker: Tracker, queue: str) -> None:
    """Also to the broker's own, which one message of another queue's task went to."""
    broker = QuietBroker("own")
    broker.add_middlewares(TrackerMiddleware(tracker))
    task = broker.register_task(lambda: None, task_name="shop.draw", queue="gpu")
    old = await task.kicker().with_labels(queue=queue).kiq()
    new = await tracker.rerun(old.task_id)
    third = await tracker.rerun(new.task_id)

    assert queue == (await tracker.get(old.task_id)).queue
    assert (queue, queue) == (new.queue, third.queue)


async def test_a_rerun_is_retried_as_its_definition_says(tracker: Tracker) -> None:
    """As it is now; and as the task says when it is gone."""
    async with bench(tracker, after=[SimpleRetryMiddleware()]) as b:

        @b.task("shop.fails")
        async def fails() -> None:
            raise ValueError

        async def attempts() -> int:
            new = await again(b, old)
            return len(await tracker.attempts(new.task_id))

        known = await tracker.definitions.create(name="f", task_type="shop.fails", max_retries=2)
        old = await tracker.schedules.trigger("f")
        await b.settle()
        first = await attempts()
        await tracker.definitions.update("f", max_retries=1)
        second = await attempts()
        await tracker.definitions.delete("f")
        third = await attempts()

    assert known.id == old.config_id
    assert [3, 2, 1] == [first, second, third]


async def test_the_metadata_of_progress_does_not_begin_a_rerun(tracker: Tracker) -> None:
    """It is the old run's: the new record begins with what was sent."""
    async with bench(tracker) as b:

        @b.task("shop.pack")
        async def pack() -> None:
            run = current_execution()
            assert run is not None
            if run.origin.rerun_of is None:
                await tracker.progress(50, "half")

        old = await b.run(pack.kicker().with_labels(aiotrack_metadata='{"order":7}'))
        new = await again(b, old)

    assert {"order": 7} == new.metadata


async def test_a_rerun_goes_on_from_the_last_checkpoint(tracker: Tracker) -> None:
    """As a retry does."""
    async with bench(tracker) as b:

        @b.task("shop.import")
        async def load() -> int:
            row: int = await tracker.last_checkpoint() or 0
            await tracker.checkpoint(row + 10)
            if row == 0:
                raise ConnectionError("away")
            return row

        old = await b.run(load)
        new = await again(b, old)

    assert (TaskStatus.FAILURE, TaskStatus.SUCCESS, 10) == (old.status, new.status, new.result)


async def test_a_retried_execution_begins_at_its_first_attempt(tracker: Tracker) -> None:
    """A rerun has all its retries before it."""
    from taskiq import SimpleRetryMiddleware

    async with bench(tracker, after=[SimpleRetryMiddleware()]) as b:

        @b.task("shop.fails", retry_on_error=True, max_retries=2)
        async def fails(number: int) -> None:
            raise ValueError(number)

        old = await b.run(fails, 1)
        new = await again(b, old)
        told = await b.told(new)

    assert (2, 2) == (old.attempt, new.attempt)
    assert [(1, "rerun"), (2, "retry")] == [(number, cause) for number, cause, _, _ in told]


# ── arguments ───────────────────────────────────────────────────────────────────────────────────
def same(one: Any, two: Any) -> bool:
    """Tell whether two values are equal in every type, nan too; dicts have no order."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


class Pickled(TaskiqFormatter):
    """Sends messages as they are: TaskIQ's own formatter makes JSON of all arguments."""

    def dumps(self, message: TaskiqMessage) -> BrokerMessage:
        return BrokerMessage(
            task_id=message.task_id,
            task_name=message.task_name,
            message=pickle.dumps(message),
            labels=message.labels,
        )

    def loads(self, message: bytes) -> TaskiqMessage:
        made: TaskiqMessage = pickle.loads(message)
        return made


KEYS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["$int", "$float", "$bytes", "base64", "$truncated", "password", "a"]),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 10**400]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["[redacted]", "a\0b", "\ud800", "token=abc", "$5", "x" * 20_000]),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
ODD = st.recursive(
    LEAVES | st.binary(max_size=40) | st.binary(min_size=1020, max_size=1030) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(KEYS, inner),
    max_leaves=6,
)
NAMES = st.sampled_from(["name", "value", "password", "data"])


@pytest.mark.parametrize(("kind", "values"), [("json", JSON), ("pickle", ODD)], ids=["json", "odd"])
async def test_a_body_gets_exactly_what_it_had_or_nothing(
    tracker: Tracker, kind: str, values: st.SearchStrategy[Any]
) -> None:
    """For any arguments that a broker carries: the same values of the same types."""
    outcomes: list[bool] = []
    async with bench(tracker) as b:
        if kind == "pickle":
            b.broker.with_formatter(Pickled())
        echo, given = add_echo(b)
        loop = asyncio.get_running_loop()

        async def once(args: list[Any], kwargs: dict[str, Any]) -> None:
            given.clear()
            old = await b.run(echo, *args, **kwargs)
            try:
                new = await again(b, old)
            except NotRepeatable as error:
                outcomes.append(bool(not error.fields))
                given.append(given[0])
            else:
                outcomes.append(new.is_success)
            first, second = given
            assert same(first, second), given

        @settings(
            max_examples=60,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given_(st.lists(values, max_size=3), st.dictionaries(NAMES, values, max_size=3))
        def holds(args: list[Any], kwargs: dict[str, Any]) -> None:
            asyncio.run_coroutine_threadsafe(once(args, kwargs), loop).result()

        await asyncio.to_thread(holds)

    assert {True, False} == set(outcomes)


given_ = given


@pytest.mark.parametrize(
    ("args", "kwargs", "fields"),
    [
        (["x"], {"password": "hunter2"}, {"kwargs.password": "redacted"}),
        ([{"user": {"token": "abc"}}], {}, {"args[0].user.token": "redacted"}),
        (["x" * 20_000, 1], {}, {"args[0]": "cut"}),
        ([list(range(2000))], {}, {"args[0][1000]": "cut"}),
        ([["x" * 16_000 for _ in range(10)]], {}, {"args[0]": "cut"}),
        (["a\0b"], {}, {"arguments": "something that JSON has no word for, or a mask"}),
    ],
    ids=["name", "deep", "long text", "long list", "large", "NUL"],
)
async def test_what_is_missing_is_named(
    tracker: Tracker, args: list[Any], kwargs: dict[str, Any], fields: dict[str, str]
) -> None:
    """The fields, and why; nothing is sent."""
    async with bench(tracker) as b:
        echo, given = add_echo(b)
        old = await b.run(echo, *args, **kwargs)
        with pytest.raises(NotRepeatable) as refused:
            await tracker.rerun(old.task_id)
        await b.settle()

    assert fields == refused.value.fields
    assert old.task_id in str(refused.value)
    assert all(name in str(refused.value) for name in fields)
    assert 1 == len(given)
    assert "rerun_as" not in (await tracker.get(old.task_id)).metadata


async def test_a_name_that_taskiq_keeps_for_itself_cannot_be_repeated(tracker: Tracker) -> None:
    """A message of another sender may hold `self`; `kiq()` takes none."""
    async with bench(tracker) as b:
        add_echo(b)
        await tracker.register("a1", "shop.echo", kwargs={"self": 1}, status="failed")
        with pytest.raises(NotRepeatable, match="'self' cannot be sent"):
            await tracker.rerun("a1")

    assert "rerun_as" not in (await tracker.get("a1")).metadata


async def test_a_sweep_is_left_to_its_schedule(tracker: Tracker) -> None:
    """It deletes: who may only repeat work must not send it."""
    async with bench(tracker) as b:
        echo, given = add_echo(b)
        cleanup = b.broker.find_task("aiotrack:cleanup")
        assert cleanup is not None
        await cleanup.kiq(retention_days=30)
        await b.settle()
        (sweep,) = (await tracker.list(module="aiotrack")).items
        record = await b.run(echo, 1)
        with pytest.raises(NotRepeatable, match="its schedule sends it") as refused:
            await tracker.rerun(sweep.task_id)
        told = await tracker.rerun_many(since=timedelta(hours=1))
        asked = await tracker.rerun_many(module="aiotrack")
        await b.settle()
        kept = await tracker.get(sweep.task_id)

    assert "arguments" not in str(refused.value)
    assert [record.task_id] == [one.task_id for one in told]
    assert [] == asked
    assert 2 == len(given)
    assert "rerun_as" not in kept.metadata


async def test_arguments_that_were_not_recorded_cannot_be_repeated(tracker: Tracker) -> None:
    """Unless there were none."""
    async with bench(tracker, record_args=False) as b:
        echo, _ = add_echo(b)
        old, empty = await b.run(echo, 1), await b.run(echo)
        with pytest.raises(NotRepeatable, match="arguments \\(not stored\\)"):
            await tracker.rerun(old.task_id)
        new = await again(b, empty)

    assert TaskStatus.SUCCESS is new.status


# ── what cannot be rerun ────────────────────────────────────────────────────────────────────────
async def test_a_task_that_no_broker_knows_is_told(tracker: Tracker) -> None:
    """A block of plain code, or a module that is not imported here."""
    async with tracker.track("shop.block", task_id="block"):
        pass
    with pytest.raises(UnknownTask, match=r"'shop.block'.*no broker here"):
        await tracker.rerun("block")
    async with bench(tracker):
        with pytest.raises(UnknownTask, match=r"'shop.block'.*import the module"):
            await tracker.rerun("block")
    with pytest.raises(ExecutionNotFound):
        await tracker.rerun("nobody")


async def test_the_broker_that_knows_the_task_sends_it(tracker: Tracker) -> None:
    """A process may have several."""
    async with bench(tracker) as one, bench(tracker) as two:
        echo, given = add_echo(two)
        old = await two.run(echo, 1)
        new = await tracker.rerun(old.task_id)
        await two.settle()

    assert [((1,), {}), ((1,), {})] == given
    assert one.broker.find_task("shop.echo") is None
    assert TaskStatus.SUCCESS is (await tracker.get(new.task_id)).status


class Away(TaskiqMiddleware):
    """Lets a broker refuse messages, as one does whose server is away."""

    refuses = False

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        if self.refuses:
            message.args = [object()]  # nothing can write it
        return message


async def test_a_broker_that_refuses_leaves_no_link(tracker: Tracker) -> None:
    """The error is TaskIQ's; the old record names no rerun that does not exist."""
    away = Away()
    async with bench(tracker, before=[away]) as b:
        echo, _ = add_echo(b)
        old = await b.run(echo, 1)
        away.refuses = True
        with pytest.raises(SendTaskError):
            await tracker.rerun(old.task_id)
        bulk = await tracker.rerun_many(task_name="shop.echo")
        away.refuses = False
        after = await tracker.rerun_many(task_name="shop.echo")

    assert [SendTaskError] == [type(one.error) for one in bulk]
    assert [None] == [one.error for one in after]


async def test_a_rerun_that_is_not_sent_leaves_the_link_to_the_one_before(
    tracker: Tracker,
) -> None:
    """What was rerun already is not sent once more by the next bulk."""
    away = Away()
    async with bench(tracker, before=[away]) as b:
        echo, given = add_echo(b)
        old = await b.run(echo, 1)
        first = await again(b, old)
        away.refuses = True
        with pytest.raises(SendTaskError):
            await tracker.rerun(old.task_id)
        kept = await tracker.get(old.task_id)
        away.refuses = False
        bulk = await tracker.rerun_many(task_name="shop.echo")
        await b.settle()

    assert first.task_id == kept.metadata["rerun_as"]
    assert [first.task_id] == [one.task_id for one in bulk]  # nobody had rerun that one
    assert 3 == len(given)


class Meanwhile(TaskiqMiddleware):
    """Lets somebody else do a thing before a message is sent, once."""

    other: Callable[[], Awaitable[object]] | None = None

    async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        other, self.other = self.other, None
        if other is not None:
            await other()
            message.args = [object()]  # nothing can write it
        return message


async def test_a_rerun_that_is_not_sent_leaves_the_link_of_somebody_else(tracker: Tracker) -> None:
    """Who asked meanwhile, and was heard, is still named."""
    meanwhile = Meanwhile()
    async with bench(tracker, before=[meanwhile]) as b:
        echo, given = add_echo(b)
        old = await b.run(echo, 1)
        meanwhile.other = functools.partial(tracker.rerun, old.task_id)
        with pytest.raises(SendTaskError):
            await tracker.rerun(old.task_id)
        await b.settle()
        kept = await tracker.get(old.task_id)
        (sent,) = (await tracker.list(limit=1)).items

    assert 2 == len(given)
    assert (sent.task_id, old.task_id) == (kept.metadata["rerun_as"], sent.rerun_of)


class Outage(Away):
    """Lets the database die before a broker refuses."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__()
        self.server = server

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        if self.refuses:
            self.server.kill()
        return super().pre_send(message)


async def test_a_broker_and_a_database_that_are_away(
    own_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is the broker's; that the link could not be taken back is logged."""
    away = Outage(own_postgres)
    async with Tracker(own_postgres.url) as tracker, bench(tracker, before=[away]) as b:
        echo, _ = add_echo(b)
        old = await b.run(echo, 1)
        away.refuses = True
        with pytest.raises(SendTaskError):
            await tracker.rerun(old.task_id)
        own_postgres.start()

    assert 1 == caplog.text.count("which was not sent")


# ── in bulk ─────────────────────────────────────────────────────────────────────────────────────
async def test_a_bulk_tells_each_and_goes_on_where_it_stopped(tracker: Tracker) -> None:
    """The oldest first; what is not repeatable is told; nothing is sent twice."""
    async with bench(tracker) as b:
        is_mended = False

        @b.task("shop.pay")
        async def pay(number: int, password: str | None = None) -> int:
            if not is_mended:
                raise ConnectionError("away")
            return number

        records = [await b.run(pay, number) for number in range(4)]
        secret = await b.run(pay, 4, password="hunter2")
        await tracker.register("gone", "shop.gone", status="failed")
        is_mended = True
        first = await tracker.rerun_many(status="failed", limit=2)
        second = await tracker.rerun_many(status="failed", by=7)
        third = await tracker.rerun_many(status="failed")
        await b.settle()
        made = [one.execution for one in [*first, *second] if one.execution is not None]
        ended = [await tracker.get(one.task_id) for one in made]

    assert [one.task_id for one in records[:2]] == [one.task_id for one in first]
    assert [*(one.task_id for one in records[2:]), secret.task_id, "gone"] == [
        one.task_id for one in second
    ]
    assert [type(None), type(None), NotRepeatable, UnknownTask] == [
        type(one.error) for one in second
    ]
    assert [secret.task_id, "gone"] == [one.task_id for one in third]
    assert [0, 1, 2, 3] == [one.result for one in ended]
    assert ["7", "7"] == [one.metadata["rerun_by"] for one in ended[2:]]


async def test_a_bulk_takes_only_what_is_over(tracker: Tracker) -> None:
    """What waits or runs would be done twice; and never its own reruns."""
    async with bench(tracker) as b:
        echo, given = add_echo(b)
        await b.run(echo, 1)
        await tracker.register("waits", "shop.echo")
        await tracker.register("runs", "shop.echo", status="started")
        told = await tracker.rerun_many(task_name="shop.echo")
        await b.settle()

    assert 1 == len(told)
    assert 2 == len(given)


async def test_two_bulks_at_once_send_nothing_twice(tracker: Tracker) -> None:
    """Each execution is claimed under its lock before it is sent."""
    async with bench(tracker) as b:
        echo, given = add_echo(b)
        for number in range(12):
            await b.run(echo, number)
        until = (await tracker.list(limit=1)).items[0].created_at
        given.clear()
        told = await asyncio.gather(
            *(tracker.rerun_many(task_name="shop.echo", until=until) for _ in range(3))
        )
        await b.settle()

    done = [one.task_id for part in told for one in part if one.execution is not None]
    assert len(done) == len(set(done))
    assert len(done) == len(given)
    assert {args[0] for args, _ in given} >= set(range(11))


@pytest.mark.parametrize("limit", [0, 501, True, "5"])
async def test_a_bulk_is_bounded(tracker: Tracker, limit: Any) -> None:
    """1 to 500 at a time."""
    with pytest.raises(InvalidQuery, match="from 1 to 500"):
        await tracker.rerun_many(limit=limit)


async def test_an_untracked_task_that_was_recorded_once_is_recorded_again(
    tracker: Tracker,
) -> None:
    """Somebody asked for its record, by a label."""
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
    await broker.startup()
    b = Bench(tracker, broker)
    echo, given = add_echo(b, track=False)
    old = await b.run(echo.kicker().with_labels(track=True), 1)
    new = await again(b, old)
    await broker.shutdown()

    assert 2 == len(given)
    assert TaskStatus.SUCCESS is new.status
