"""Every way in which a run can end, and what its record says then."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from taskiq import Context, NoResultError, SimpleRetryMiddleware, TaskiqDepends

from aiotrack import Execution, TaskStatus, Tracker
from tests.integration.bench import Bench, bench

INPLACE = pytest.mark.parametrize("inplace", [False, True], ids=["plain", "inplace"])

TaskOf = Callable[[Bench], Any]


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


class Picky(BaseModel):
    """A parameter whose validator raises what pydantic does not catch."""

    value: int

    @field_validator("value")
    @classmethod
    def look_up(cls, value: int) -> int:
        raise KeyError(value)


def broken() -> int:
    """Fail as a dependency."""
    raise LookupError("no connection")


def broken_afterwards() -> Iterator[int]:
    """Fail as a dependency that is cleaned up."""
    yield 1
    raise OSError("cannot close")


async def good_dependency() -> AsyncIterator[int]:
    """Succeed as a dependency."""
    yield 41


async def ended(tracker: Tracker, make: TaskOf, *args: Any, inplace: bool) -> Execution:
    """Run a task to its end, in a task of its own, and give its record."""
    over = asyncio.Event()

    async def sender() -> str:
        async with bench(tracker, inplace=inplace) as b:
            record = await b.run(make(b), *args)
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: over.set())
        return record.task_id

    sent = asyncio.create_task(sender())
    await over.wait()
    return await tracker.get(await sent)


def _cancelled(b: Bench) -> Any:
    @b.task("shop.cancelled")
    async def work() -> None:
        raise asyncio.CancelledError

    return work


def _exits(b: Bench) -> Any:
    @b.task("shop.exits")
    async def work() -> None:
        raise SystemExit(3)

    return work


def _exits_in_a_thread(b: Bench) -> Any:
    @b.task("shop.exits")
    def work() -> None:
        raise SystemExit("over")

    return work


def _rejects(b: Bench) -> Any:
    @b.task("shop.rejects")
    async def work(context: Context = TaskiqDepends()) -> None:
        context.reject()

    return work


def _too_slow(b: Bench) -> Any:
    @b.task("shop.slow", timeout=0.02)
    async def work() -> None:
        await asyncio.Event().wait()

    return work


def _too_slow_in_a_thread(b: Bench) -> Any:
    @b.task("shop.slow", timeout=0.02)
    def work() -> None:
        threading.Event().wait(1)

    return work


def _own_timeout(b: Bench) -> Any:
    @b.task("shop.slow", timeout=60)
    async def work() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    return work


def _raises_timeout_late(b: Bench) -> Any:
    @b.task("shop.slow", timeout=60)
    async def work() -> None:
        raise TimeoutError("the bank is away")

    return work


def _no_limit(b: Bench) -> Any:
    @b.task("shop.slow")
    async def work() -> None:
        raise TimeoutError

    return work


def _needs(dependency: Callable[..., Any]) -> TaskOf:
    def make(b: Bench) -> Any:
        @b.task("shop.needs")
        async def work(value: int = TaskiqDepends(dependency)) -> int:
            return value + 1

        return work

    return make


def _wrong_arity(b: Bench) -> Any:
    @b.task("shop.arity")
    async def work(value: int, other: int) -> int:
        return value

    return work


def _groups(b: Bench) -> Any:
    @b.task("shop.groups")
    async def work() -> None:
        raise ExceptionGroup("both", [ValueError("one"), KeyError("two")])

    return work


CANCELLED = "asyncio.exceptions.CancelledError"
REJECTED = "taskiq.exceptions.TaskRejectedError"
ENDS: dict[str, tuple[TaskOf, tuple[Any, ...], str, str | None, str | None]] = {
    "CancelledError": (_cancelled, (), CANCELLED, None, "cancelled"),
    "SystemExit": (_exits, (), "SystemExit", "3", None),
    "SystemExit in a thread": (_exits_in_a_thread, (), "SystemExit", "over", None),
    "reject": (_rejects, (), REJECTED, None, None),
    "timeout label": (_too_slow, (), "TimeoutError", None, "timeout"),
    "timeout label, thread": (_too_slow_in_a_thread, (), "TimeoutError", None, "timeout"),
    "a timeout of its own": (_own_timeout, (), "TimeoutError", None, "transient"),
    "somebody's timeout": (
        *(_raises_timeout_late, (), "TimeoutError", "the bank is away", "transient"),
    ),
    "timeout without a label": (_no_limit, (), "TimeoutError", None, "transient"),
    "dependency": (_needs(broken), (), "LookupError", "no connection", None),
    "wrong arity": (_wrong_arity, (1,), "TypeError", None, "invalid_input"),
    "group": (_groups, (), "ExceptionGroup", "both (2 sub-exceptions)", None),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
@INPLACE
async def test_a_run_that_breaks_is_a_failure_with_its_true_error(
    small: Tracker, end: str, inplace: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever ends a run, the record says FAILURE, the error, and its class where it is known."""
    caplog.set_level(logging.CRITICAL)
    make, args, kind, error, error_class = ENDS[end]

    record = await ended(small, make, *args, inplace=inplace)

    assert (TaskStatus.FAILURE, kind) == (record.status, record.error_type)
    assert error_class == record.error_class
    assert error in {None, record.error}
    assert kind.rpartition(".")[2] in (record.traceback or "")
    assert record.finished_at is not None
    assert record.result is None


async def test_a_dependency_that_cannot_be_closed_is_a_failure(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that dies after its body leaves the error that killed it."""
    caplog.set_level(logging.CRITICAL)

    record = await ended(small, _needs(broken_afterwards), inplace=False)

    assert (TaskStatus.FAILURE, "OSError", "cannot close") == (
        *(record.status, record.error_type, record.error),
    )


async def test_a_validator_that_raises_is_a_failure(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that dies before its body leaves its error, not a record in STARTED."""
    caplog.set_level(logging.CRITICAL)

    def make(b: Bench) -> Any:
        @b.task("shop.picky")
        async def work(value: Picky) -> None: ...

        return work

    record = await ended(small, make, {"value": 3}, inplace=False)

    assert (TaskStatus.FAILURE, "KeyError", "3") == (
        *(record.status, record.error_type, record.error),
    )


@INPLACE
async def test_a_good_dependency_changes_nothing(small: Tracker, inplace: bool) -> None:
    """A task with dependencies that work succeeds, and its arguments are those that were sent."""
    record = await ended(small, _needs(good_dependency), inplace=inplace)

    assert (TaskStatus.SUCCESS, 42, [], {}) == (
        *(record.status, record.result, record.args, record.kwargs),
    )


@INPLACE
async def test_a_task_that_wants_no_result_is_a_success(small: Tracker, inplace: bool) -> None:
    """A NoResultError of the user's own is no failure: nothing was to be kept."""

    def make(b: Bench) -> Any:
        @b.task("shop.silent")
        async def work() -> None:
            raise NoResultError

        return work

    record = await ended(small, make, inplace=inplace)

    assert (TaskStatus.SUCCESS, None, None) == (record.status, record.result, record.error)


@INPLACE
async def test_a_requeued_task_runs_again_under_its_id(small: Tracker, inplace: bool) -> None:
    """Requeue hands the message back: two runs of attempt 1, none a duplicate."""
    async with bench(small, inplace=inplace) as b:

        @b.task("shop.requeued")
        async def work(context: Context = TaskiqDepends()) -> int:
            times = int(context.message.labels.get("X-Taskiq-requeue", 0))
            if times < 2:
                await context.requeue()
            return times

        record = await b.run(work)
        told = await b.told(record)

    assert (TaskStatus.SUCCESS, 2, 1, 3, 0) == (
        *(record.status, record.result, record.attempt, record.runs, record.duplicates),
    )
    assert ["first", "requeue", "requeue"] == [cause for _, cause, _, _ in told]
    assert ["PENDING", "PENDING", "SUCCESS"] == [status for _, _, status, _ in told]


async def test_a_timeout_that_is_retried_keeps_its_class(small: Tracker) -> None:
    """Each attempt tells its own end: two time-outs, then a success."""
    async with bench(small, after=[SimpleRetryMiddleware(default_retry_count=3)]) as b:

        @b.task("shop.slow", timeout=0.02, retry_on_error=True)
        async def work(context: Context = TaskiqDepends()) -> int:
            if int(context.message.labels.get("_retries", 0)) < 2:
                await asyncio.Event().wait()
            return 1

        record = await b.run(work)
        attempts = await b.attempts(record)

    assert ["timeout", "timeout", None] == [one.error_class for one in attempts]
    assert (TaskStatus.SUCCESS, None) == (record.status, record.error_class)


class Errors(Exception):
    """A collection of errors, which is false while it is empty."""

    def __len__(self) -> int:
        return 0


@INPLACE
@pytest.mark.parametrize("retries", [False, True])
async def test_an_exception_that_is_false_is_a_failure(
    small: Tracker, inplace: bool, retries: bool
) -> None:
    """TaskIQ's result keeps no error of it: its validator looks at the truth."""
    middlewares = [SimpleRetryMiddleware(default_retry_count=2)]
    async with bench(small, after=middlewares, inplace=inplace) as b:

        @b.task("shop.empty", retry_on_error=retries)
        async def work() -> None:
            raise Errors("boom")

        record = await b.run(work)
        attempts = await b.attempts(record)

    failed = (TaskStatus.FAILURE, "boom")
    assert failed == (record.status, record.error)
    expected = [(TaskStatus.RETRY, "boom"), failed] if retries else [failed]
    assert expected == [(one.status, one.error) for one in attempts]


@INPLACE
async def test_arguments_are_recorded_as_they_were_sent(small: Tracker, inplace: bool) -> None:
    """A body that empties its arguments changes nothing of the record."""

    def make(b: Bench) -> Any:
        @b.task("shop.greedy")
        async def work(items: list[int], more: dict[str, int]) -> int:
            total = sum(items) + more.pop("a")
            items.clear()
            return total

        return work

    record = await ended(small, make, [1, 2], {"a": 3}, inplace=inplace)

    assert ([[1, 2], {"a": 3}], 6) == (record.args, record.result)


@INPLACE
async def test_a_task_that_is_cancelled_from_outside_is_a_failure(
    small: Tracker, inplace: bool
) -> None:
    """Cancelling the asyncio task of a body is FAILURE, class cancelled, and harms nobody."""
    running: list[asyncio.Task[Any]] = []
    async with bench(small, inplace=inplace) as b:

        @b.task("shop.endless")
        async def endless() -> None:
            task = asyncio.current_task()
            assert task is not None
            running.append(task)
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.Event().wait()

        @b.task("shop.ok")
        async def ok() -> int:
            return 1

        record = await b.run(endless)
        after = await b.run(ok)

    assert 1 == len(running)
    assert (TaskStatus.FAILURE, "cancelled") == (record.status, record.error_class)
    assert TaskStatus.SUCCESS is after.status


async def test_many_runs_at_once_keep_to_themselves(tracker: Tracker) -> None:
    """Two hundred runs that overlap: each record has its own values."""
    gate = asyncio.Event()
    async with bench(tracker) as b:

        @b.task("shop.overlap")
        async def work(number: int) -> int:
            await tracker.progress(number % 101, order=number)
            await gate.wait()
            if number % 5 == 0:
                raise ValueError(f"no {number}")
            return number

        sent = await asyncio.gather(*(work.kiq(number) for number in range(200)))
        gate.set()
        await b.settle()
        assert await tracker.flush(20)  # a busy machine needs longer than a hook waits
        records = [await tracker.get(one.task_id) for one in sent]

    wrong = [
        (number, record)
        for number, record in enumerate(records)
        if record.args != [number]
        or record.metadata != {"progress_percent": number % 101, "order": number}
        or record.error != (f"no {number}" if number % 5 == 0 else None)
        or record.result != (None if number % 5 == 0 else number)
    ]
    assert [] == wrong
