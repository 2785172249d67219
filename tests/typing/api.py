"""The public surface as users type it: mypy checks this file, nobody runs it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, assert_type

from taskiq import AsyncBroker, AsyncTaskiqTask, TaskiqScheduler

from aiotrack import (
    Attempt,
    AuditEntry,
    CancelOutcome,
    Count,
    Counts,
    DefinitionScheduleSource,
    Dependency,
    DurationBucket,
    Execution,
    ExecutionNotFound,
    InvalidInput,
    LogLine,
    NotRepeatable,
    Page,
    Queue,
    QueueFull,
    Rerun,
    Settings,
    Stats,
    TaskDefinition,
    TaskInfo,
    TaskLogCollector,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
    get_task_retry_labels,
    raise_if_cancelled,
    tracking,
)

by_default = Tracker()
by_url = Tracker("postgresql+asyncpg://localhost/app", redis="redis://localhost")
by_settings = Tracker(settings=Settings(durability="async"))


def attach(broker: AsyncBroker) -> AsyncBroker:
    return broker.with_middlewares(TrackerMiddleware(by_url, module="billing", redact=("iban",)))


async def reads(tracker: Tracker) -> None:
    execution = await tracker.get("id")
    assert_type(execution, Execution)
    assert_type(execution.status, TaskStatus)
    assert_type(execution.status.is_final, bool)
    assert_type(execution.created_at, datetime)
    assert_type(execution.finished_at, datetime | None)
    assert_type(execution.duration, float | None)
    assert_type(execution.wait, float | None)
    assert_type(execution.result, Any)
    assert_type(execution.metadata, dict[str, Any])
    assert_type(await tracker.get_by_id(1), Execution)
    assert_type(await tracker.attempts("id"), list[Attempt])

    page = await tracker.list(
        module="billing", status=["failed", TaskStatus.RETRY], since=timedelta(days=1), limit=10
    )
    assert_type(page, Page[Execution])
    assert_type(page.items[0], Execution)
    assert_type(page.next, str | None)
    assert_type([one.task_id for one in page], list[str])
    assert_type(len(page), int)
    await tracker.list(after=page.next, order="-duration", metadata={"order_id": 7})

    counted = await tracker.count(status="failed", limit=100)
    assert_type(counted, Count)
    assert_type((counted.value, counted.is_exact, str(counted)), tuple[int, bool, str])

    stats = await tracker.stats(created_by="42")
    assert_type(stats, Stats)
    assert_type(stats.total, int)
    assert_type(stats.lost, int)
    assert_type(stats.durations, list[DurationBucket])
    assert_type(stats.durations[0].up_to, float | None)
    assert_type(stats.by_module["billing"], Counts)

    try:
        await tracker.get("unknown")
    except ExecutionNotFound as error:
        assert_type(error.key, str | int)


async def writes(tracker: Tracker) -> None:
    assert_type(await tracker.register(7, "app:job", created_by=42, metadata={"a": 1}), Execution)
    assert_type(await tracker.update("7", "completed", result=None), Execution)
    with tracking(created_by="42", module="billing", metadata={"order_id": 7}):
        await tracker.progress(50, "half", step="second", rows=7)
        await tracker.progress(current=1, total=2)
    assert_type(await tracker.sync(7), Execution)
    assert_type(await tracker.cancel(7, reason="wrong", by=42), CancelOutcome)
    assert_type(
        await tracker.cancel_many(module="billing", by="ada", limit=10), Counter[CancelOutcome]
    )
    assert_type(raise_if_cancelled(), None)
    async with tracker.track("nightly", module="reports") as run:
        assert_type(run.task_id, str)
        assert_type(await tracker.checkpoint({"row": 7}), bool)
        await tracker.last_checkpoint()


async def logged(tracker: Tracker) -> None:
    page = await tracker.logs("7", attempt=1, level="WARNING", limit=10, after=None)
    assert_type(page.items, list[LogLine])
    async for line in tracker.tail(7):
        assert_type(line.at, datetime)
        assert_type(line.message, str)
    with TaskLogCollector("7", level=10, logger="app") as collector:
        assert_type(collector, TaskLogCollector)


async def repeats(tracker: Tracker, named: dict[str, str]) -> None:
    tracker.classify({KeyError: "permanent", "httpx.ReadError": None, OSError: lambda error: None})
    tracker.classify(named)
    assert_type(get_task_retry_labels(3, 5, 2.0, True, tracker=tracker), dict[str, Any])
    assert_type(await tracker.rerun(7, by="ada"), Execution)
    told = await tracker.rerun_many(status="failed", limit=10, since=timedelta(hours=1))
    assert_type(told, list[Rerun])
    assert_type(told[0].execution, Execution | None)
    try:
        await tracker.rerun("7")
    except NotRepeatable as error:
        assert_type(error.fields, dict[str, str])


async def decorated(tracker: Tracker) -> None:
    @tracker.tracked(module="reports")
    async def build(day: int, *, deep: bool = False) -> str:
        return f"{day}{deep}"

    @tracker.tracked
    async def bare(rows: int) -> int:
        return rows

    assert_type(await bare(3), int)

    @tracker.tracked("named")
    def count(rows: list[int]) -> int:
        return len(rows)

    assert_type(await build(1, deep=True), str)
    assert_type(count([1]), int)


async def lives() -> None:
    async with Tracker() as tracker:
        assert_type(tracker, Tracker)
    await tracker.startup()
    await tracker.shutdown()


assert_type(TaskStatus.parse("in_progress"), TaskStatus)


async def sweeps(tracker: Tracker) -> None:
    assert_type(await tracker.cleanup(retention_days=7, only_completed=False), int)
    assert_type(await tracker.mark_timed_out(timeout_minutes=0.5), int)
    await tracker.settings.set("retention_days", 7, scope="user", user=42)
    assert_type(await tracker.settings.unset("retention_days", user="42"), bool)
    told = await tracker.settings.explain("retention_days", user="42")
    assert_type((told.layer, told.source), tuple[str, str | None])
    assert_type(await tracker.settings.all(), dict[str, Any])
    assert_type(await tracker.audit.list(actor=42, since=timedelta(days=1)), Page[AuditEntry])
    await tracker.audit.append("invoice.pay", "invoice:7", by=42, before=None, after={"paid": 1.5})
    assert_type((await tracker.health()).dependencies["database"], Dependency)


async def submits(tracker: Tracker, broker: AsyncBroker) -> None:
    @broker.task
    async def pay(amount: int) -> str:
        return str(amount)

    first = await tracker.submit(pay, [7], priority="high", timeout=5)
    assert_type(first, AsyncTaskiqTask[Any])
    second = await tracker.submit("shop.pack", kwargs={"a": 1}, depends_on=[first, "id", 7])
    await tracker.submit("shop.pack", depends_on=[await tracker.get(second.task_id)], priority=3)
    await tracker.submit("shop.pack", depends_on=second)
    assert_type(await tracker.queues(), list[Queue])
    assert_type(tracker.tasks(), list[TaskInfo])
    try:
        await tracker.submit("shop.pack")
    except InvalidInput as error:
        assert_type(error.faults, list[str])
    except QueueFull as full:
        assert_type((full.queue, full.depth, full.limit), tuple[str, int, int])


async def schedules(tracker: Tracker, broker: AsyncBroker) -> TaskiqScheduler:
    made = await tracker.definitions.create(
        name="nightly",
        task_type="shop.clean",
        schedule_kind="cron",
        schedule={"cron": "0 3 * * *", "tz": "Europe/Berlin"},
        by=7,
    )
    assert_type(made, TaskDefinition)
    assert_type(await tracker.definitions.update("nightly", priority=9), TaskDefinition)
    assert_type(await tracker.definitions.list(text="night"), Page[TaskDefinition])
    assert_type(await tracker.definitions.stats(made.id), Stats)
    assert_type(await tracker.definitions.count_by_type(), dict[str, int])
    assert_type(await tracker.schedules.start("nightly", by="ada"), str)
    assert_type(await tracker.schedules.statuses(), dict[int, str])
    assert_type(await tracker.schedules.next_run(made.id), datetime | None)
    assert_type(await tracker.schedules.trigger(made.id), Execution)
    return TaskiqScheduler(broker, [DefinitionScheduleSource(tracker, catch_up="one")])
