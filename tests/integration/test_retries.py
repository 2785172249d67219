"""Retries: every attempt with its true error, wherever the tracker stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from taskiq import (
    NoResultError,
    SimpleRetryMiddleware,
    SmartRetryMiddleware,
    TaskiqMiddleware,
)
from taskiq.abc.schedule_source import ScheduleSource
from taskiq.scheduler.scheduled_task import ScheduledTask

from aiotrack import TaskStatus, Tracker, current_execution
from tests.integration.bench import Bench, bench, in_order

INPLACE = pytest.mark.parametrize("inplace", [False, True], ids=["plain", "inplace"])


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


class Waiting(ScheduleSource):
    """A schedule source that keeps what is added, for a test to send."""

    def __init__(self) -> None:
        self.added: list[ScheduledTask] = []

    async def get_schedules(self) -> list[ScheduledTask]:
        return self.added

    async def add_schedule(self, schedule: ScheduledTask) -> None:
        self.added.append(schedule)


class Refusing(Waiting):
    """A schedule source whose server is away."""

    async def add_schedule(self, schedule: ScheduledTask) -> None:
        raise ConnectionError(f"no place for {schedule.task_name}")


def simple(**options: Any) -> SimpleRetryMiddleware:
    """Make TaskIQ's simple retry middleware."""
    return SimpleRetryMiddleware(default_retry_count=3, **options)


def smart(**options: Any) -> SmartRetryMiddleware:
    """Make TaskIQ's smart one, without a delay."""
    return SmartRetryMiddleware(default_retry_count=3, default_delay=0, **options)


def add_tasks(b: Bench) -> tuple[Any, Any]:
    """Register a task that gives up and one whose third attempt succeeds."""

    @b.task("shop.gives_up", retry_on_error=True)
    async def gives_up() -> None:
        raise ValueError(f"attempt {number_of_attempt()}")

    @b.task("shop.recovers", retry_on_error=True)
    async def recovers() -> int:
        if (number := number_of_attempt()) < 3:
            raise ConnectionError(f"attempt {number}")
        return number

    return gives_up, recovers


def number_of_attempt() -> int:
    """Give the number of the attempt that runs here."""
    run = current_execution()
    assert run is not None
    return run.attempt


@pytest.mark.parametrize("keeps_result", [False, True], ids=["no result", "result on retry"])
@pytest.mark.parametrize("place", ["tracker first", "tracker last"])
@pytest.mark.parametrize("retry", [simple, smart])
@INPLACE
async def test_every_attempt_keeps_its_own_error(
    small: Tracker, retry: Any, place: str, inplace: bool, keeps_result: bool
) -> None:
    """Both retry middlewares, before and behind the tracker: each attempt with its true error."""
    others = {"after" if place == "tracker first" else "before": [
        retry(no_result_on_retry=not keeps_result)
    ]}  # fmt: skip
    async with bench(small, inplace=inplace, **others) as b:
        gives_up, recovers = add_tasks(b)
        bad, good = await b.run(gives_up), await b.run(recovers)
        told_bad, told_good = await b.told(bad), await b.told(good)

    assert [
        (1, "first", "RETRY", "attempt 1"),
        (2, "retry", "RETRY", "attempt 2"),
        (3, "retry", "FAILURE", "attempt 3"),
    ] == told_bad
    assert [
        (1, "first", "RETRY", "attempt 1"),
        (2, "retry", "RETRY", "attempt 2"),
        (3, "retry", "SUCCESS", None),
    ] == told_good
    assert (TaskStatus.FAILURE, 3, "attempt 3", 3, 0) == (
        *(bad.status, bad.attempt, bad.error, bad.runs, bad.duplicates),
    )
    assert (TaskStatus.SUCCESS, 3, 3, None, None) == (
        *(good.status, good.attempt, good.result, good.error, good.traceback),
    )
    assert in_order(good)


KEEPING = pytest.mark.parametrize("keeps", [False, True], ids=["no result", "result on retry"])


@KEEPING
@pytest.mark.parametrize("place", ["before", "after"])
async def test_a_delayed_retry_waits_in_retry(small: Tracker, place: str, keeps: bool) -> None:
    """With a schedule source the record waits in RETRY for the next attempt, and tells why."""
    source = Waiting()
    retry = smart(schedule_source=source, no_result_on_retry=not keeps)
    async with bench(small, **{place: [retry]}) as b:
        gives_up, _ = add_tasks(b)
        await b.run(gives_up)
        waiting = await small.sync((await small.list()).items[0].task_id)
        for _ in range(2):
            await send_scheduled(b, source.added[-1])
        record = await small.get(waiting.task_id)
        told = await b.told(record)

    assert (TaskStatus.RETRY, 2, "attempt 1", None) == (
        *(waiting.status, waiting.attempt, waiting.error, waiting.finished_at),
    )
    assert (TaskStatus.FAILURE, 3, "attempt 3") == (record.status, record.attempt, record.error)
    assert [
        (1, "first", "RETRY", "attempt 1"),
        (2, "retry", "RETRY", "attempt 2"),
        (3, "retry", "FAILURE", "attempt 3"),
    ] == told
    assert 2 == len(source.added)
    assert waiting.created_at == record.created_at
    assert record.schedule_id is None, "a retry's own one-off schedule is no schedule of the task"


@KEEPING
@pytest.mark.parametrize("place", ["before", "after"])
async def test_a_retry_that_no_source_took_is_a_failure(
    small: Tracker, place: str, keeps: bool
) -> None:
    """Nothing is waited for when the schedule source refused it, whatever the labels say."""
    retry = smart(schedule_source=Refusing(), no_result_on_retry=not keeps)
    async with bench(small, **{place: [retry]}) as b:
        gives_up, _ = add_tasks(b)
        record = await b.run(gives_up)

    assert (TaskStatus.FAILURE, 1, True) == (record.status, record.attempt, record.is_completed)


@KEEPING
async def test_each_retry_middleware_of_a_broker_ends_its_own(small: Tracker, keeps: bool) -> None:
    """Where one retries some errors at once and one others later, the last attempt is the last."""
    source = Waiting()
    later = smart(
        schedule_source=source, no_result_on_retry=not keeps, types_of_exceptions=[ConnectionError]
    )
    at_once = simple(no_result_on_retry=not keeps, types_of_exceptions=[ValueError])
    async with bench(small, after=[later, at_once]) as b:
        gives_up, recovers = add_tasks(b)
        bad, waiting = await b.run(gives_up), await b.run(recovers)

    assert (TaskStatus.FAILURE, 3, "attempt 3") == (bad.status, bad.attempt, bad.error)
    assert (TaskStatus.RETRY, 2, "attempt 1") == (waiting.status, waiting.attempt, waiting.error)
    assert ["shop.recovers"] == [one.task_name for one in source.added]


@pytest.mark.parametrize("fault", ["refused", "hangs"])
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("retry", [simple, smart])
async def test_an_attempt_whose_retry_cannot_be_sent_keeps_its_own_error(
    small: Tracker, retry: Any, place: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other hook of ours is called then; the record is a failure, for no retry comes."""

    async def kick(message: Any) -> None:
        if fault == "hangs":
            for running in b.broker._running_tasks:  # as a worker that is stopped does
                running.cancel()
            await asyncio.sleep(60)
        raise ConnectionError("the queue is away")

    async with bench(small, **{place: [retry()]}) as b:

        @b.task("shop.bad", retry_on_error=True)
        async def bad(seconds: float) -> None:
            monkeypatch.setattr(b.broker, "kick", kick)
            await asyncio.sleep(seconds)
            raise ValueError("its own")

        failed = await b.run(bad, 0)
        monkeypatch.undo()
        slow = await b.run(bad.kicker().with_labels(timeout=0.01), 60)
        attempts = [*await b.attempts(failed), *await b.attempts(slow)]

    assert (TaskStatus.FAILURE, 1, "its own") == (failed.status, failed.attempt, failed.error)
    assert (TaskStatus.FAILURE, 1, "timeout") == (slow.status, slow.attempt, slow.error_class)
    assert [(TaskStatus.FAILURE, "ValueError"), (TaskStatus.FAILURE, "TimeoutError")] == [
        (one.status, one.error_type) for one in attempts
    ]
    assert "in bad\n" in str(attempts[0].traceback)


@pytest.mark.parametrize("wants", ["error", "no result"])
async def test_a_hook_that_fails_hides_no_error(small: Tracker, wants: str) -> None:
    """A failed run shows its own; one that wanted no result died of the hook's."""

    class Failing(TaskiqMiddleware):
        async def on_error(self, message: Any, result: Any, exception: BaseException) -> None:
            raise RuntimeError("the hook's")

    async with bench(small, after=[Failing()]) as b:

        @b.task("shop.bad")
        async def bad() -> None:
            raise ValueError("its own") if wants == "error" else NoResultError

        record = await b.run(bad)

    expected = "its own" if wants == "error" else "the hook's"
    assert (TaskStatus.FAILURE, expected) == (record.status, record.error)


async def send_scheduled(b: Bench, schedule: ScheduledTask) -> None:
    """Do what TaskIQ's scheduler does when a schedule is due."""
    task = b.broker.find_task(schedule.task_name)
    assert task is not None
    kicker = task.kicker().with_labels(**{**schedule.labels, "schedule_id": schedule.schedule_id})
    await kicker.with_task_id(str(schedule.task_id)).kiq(*schedule.args, **schedule.kwargs)
    await b.settle()


async def test_a_schedule_makes_no_record_before_it_fires(small: Tracker) -> None:
    """`schedule_by_cron` records nothing; the run that it sends is linked to it."""
    source = Waiting()
    async with bench(small) as b:

        @b.task("shop.nightly")
        async def nightly() -> None: ...

        created = await nightly.schedule_by_cron(source, "0 3 * * *")
        before = await small.stats()
        await nightly.kicker().with_labels(schedule_id=created.schedule_id).kiq()
        await b.settle()
        records = (await small.list()).items

    assert 0 == before.total
    assert [created.schedule_id] == [record.schedule_id for record in records]
