"""Retries: every attempt with its true error, wherever the tracker stands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from taskiq import SimpleRetryMiddleware, SmartRetryMiddleware
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
