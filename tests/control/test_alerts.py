"""`tracker.alerts`: what is wrong is told once when it begins, and once when it is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update
from taskiq import InMemoryBroker

from aiotrack import Alert, Tracker, TrackerMiddleware
from aiotrack.brokers import PriorityStreamBroker
from aiotrack.repository.control.tables import AuditRow, WorkerRow
from aiotrack.repository.tables import ExecutionRow
from aiotrack.testing.servers import ValkeyServer
from tests.schedules.site import Site

LOW = {"alert_backlog": 3, "alert_worker_memory": 1000, "alert_worker_cpu": 0.5}


@pytest.fixture
async def tracker(database_url: str) -> AsyncIterator[Tracker]:
    """A tracker without Redis that cares for workers' memory."""
    async with Tracker(database_url, settings=LOW) as tracker:
        yield tracker


async def runs(tracker: Tracker, name: str, statuses: str, ago: timedelta, seconds: float) -> None:
    """Record runs of a task: a letter for each, S or F."""
    at = datetime.now(UTC) - ago
    for number, letter in enumerate(statuses):
        await tracker.register(
            f"{name}-{ago}-{number}",
            name,
            status="SUCCESS" if letter == "S" else "FAILURE",
            created_at=at,
            started_at=at,
            finished_at=at + timedelta(seconds=seconds),
        )


async def worker(tracker: Tracker, name: str, beat_ago: float, **facts: Any) -> None:
    """Leave a worker that beat so many seconds ago."""
    now = datetime.now(UTC)
    row = {
        "id": name,
        "host": "h",
        "pid": 1,
        "queues": [],
        "tasks": {},
        "versions": {},
        "started_at": now,
        "beat_at": now - timedelta(seconds=beat_ago),
        "beat_seconds": 5,
        "running": [],
        **facts,
    }
    async with tracker.core().repository.engine.begin() as connection:
        await connection.execute(insert(WorkerRow.__table__), row)


def told(alerts: list[Alert]) -> set[tuple[str, str]]:
    """Give what goes on."""
    return {(one.rule, one.subject) for one in alerts}


async def test_an_episode_is_told_twice(tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    """Once when it begins, once when it is over; then it may begin anew. All of it is audited."""
    heard: list[Alert] = []
    late: list[Alert] = []
    tracker.alerts.on(heard.append)

    @tracker.alerts.on
    async def slowly(alert: Alert) -> None:
        await asyncio.sleep(0)
        late.append(alert)

    @tracker.alerts.on
    def broken(alert: Alert) -> None:
        raise ZeroDivisionError

    assert [] == await tracker.alerts.check()
    assert not await tracker.alerts.has_news()
    await runs(tracker, "shop.pay", "F" * 10 + "S" * 10, timedelta(minutes=1), 0.1)
    await runs(tracker, "shop.mail", "F" * 3 + "S" * 20, timedelta(minutes=1), 0.1)
    await runs(tracker, "shop.rare", "F" * 10, timedelta(minutes=1), 0.1)
    await runs(tracker, "shop.old", "F" * 30, timedelta(minutes=20), 0.1)
    with caplog.at_level(logging.WARNING, "aiotrack"):
        assert await tracker.alerts.has_news()
        first = await tracker.alerts.check()
        assert not await tracker.alerts.has_news()
        again = await tracker.alerts.check()
        async with tracker.core().repository.engine.begin() as connection:
            await connection.execute(update(ExecutionRow).values(status="SUCCESS"))
        over = await tracker.alerts.check()

    assert {("failure-rate", "shop.pay")} == told(first) == told(again)
    assert "10 of 20 runs failed within fifteen minutes" == first[0].text
    assert first == again
    assert [] == over == await tracker.alerts.list()
    assert heard == late
    assert [None, True] == [one.ended_at and one.ended_at > one.began_at for one in heard]
    lines = [line for line in caplog.messages if line.startswith("alert")]
    assert 2 == len(lines)
    assert 2 == sum("was not told" in line for line in caplog.messages)
    page = await tracker.audit.list(target="failure-rate:shop.pay")
    assert ["alert.end", "alert.begin"] == [one.action for one in page.items]

    async with tracker.core().repository.engine.begin() as connection:
        await connection.execute(update(ExecutionRow).values(status="FAILURE"))
    assert ("failure-rate", "shop.pay") in told(await tracker.alerts.check())


async def test_tasks_that_got_slow(tracker: Tracker) -> None:
    """Against their own history, and only where it is long enough to feel."""
    week = timedelta(days=3)
    for name, before, now in (
        ("shop.slower", 1, 5),
        ("shop.steady", 5, 6),
        ("shop.quick", 0.001, 0.1),
    ):
        await runs(tracker, name, "S" * 25, week, before)
        await runs(tracker, name, "S" * 25, timedelta(minutes=20), now)
    await runs(tracker, "shop.new", "S" * 25, timedelta(minutes=20), 50)

    assert {("slow-task", "shop.slower")} == told(await tracker.alerts.check())


async def test_one_of_too_many_goes_on(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went on is looked at first; of what is left out nothing begins and nothing is over."""
    monkeypatch.setattr("aiotrack.alerts.rules.MOST", 2)
    heard: list[tuple[str, str, bool]] = []
    tracker.alerts.on(lambda one: heard.append((one.rule, one.subject, one.ended_at is None)))

    async def frequent(name: str, seconds: float) -> None:
        await runs(tracker, name, "S" * 20, timedelta(days=3), 0.01)
        await runs(tracker, name, "S" * 20, timedelta(minutes=20), seconds)

    await frequent("z", 9)
    first = await tracker.alerts.check()
    for name in ("a", "b", "c"):
        await frequent(name, 0.01)
    second = await tracker.alerts.check()
    for name in ("a", "b", "c"):
        await runs(tracker, name, "S" * 30, timedelta(minutes=10), 9)
    third = await tracker.alerts.check()
    async with tracker.core().repository.engine.begin() as connection:
        quick = update(ExecutionRow).where(ExecutionRow.task_name == "z")
        await connection.execute(quick.values(duration=0.01))
    fourth = await tracker.alerts.check()

    slow = "slow-task"
    assert {(slow, "z")} == told(first) == told(second)
    assert {(slow, "z"), (slow, "a")} == told(third)
    assert {(slow, "a")} == told(fourth)
    assert [(slow, "z", True), (slow, "a", True), (slow, "z", False)] == heard


async def test_more_go_on_than_a_rule_may_tell(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that began are told on, whatever comes before them in the alphabet."""
    monkeypatch.setattr("aiotrack.alerts.rules.MOST", 2)
    for name in ("y", "z"):
        await worker(tracker, name, 60)
    first = await tracker.alerts.check()
    for name in ("a", "b"):
        await worker(tracker, name, 60)
    second = await tracker.alerts.check()
    monkeypatch.setattr("aiotrack.alerts.rules.MOST", 1)
    third = await tracker.alerts.check()

    assert {("lost-worker", "y"), ("lost-worker", "z")} == told(first)
    assert told(first) == told(second) == told(third)


async def test_one_that_began_before_many_others(tracker: Tracker) -> None:
    """However often another came and went since: it goes on, and is told when it is over."""
    heard: list[tuple[str, bool]] = []
    tracker.alerts.on(lambda one: heard.append((one.subject, one.ended_at is None)))
    await runs(tracker, "shop.pay", "F" * 20, timedelta(minutes=1), 0.1)
    await tracker.alerts.check()
    at = datetime.now(UTC)
    flaps = [
        {"at": at, "action": action, "target": "worker-cpu:flaps", "reason": "x"}
        for _ in range(501)
        for action in ("alert.begin", "alert.end")
    ]
    async with tracker.core().repository.engine.begin() as connection:
        await connection.execute(insert(AuditRow.__table__), flaps)
    known = await tracker.alerts.list()
    async with tracker.core().repository.engine.begin() as connection:
        await connection.execute(update(ExecutionRow).values(status="SUCCESS"))
    over = await tracker.alerts.check()

    assert {("failure-rate", "shop.pay")} == told(known)
    assert [] == over
    assert [("shop.pay", True), ("shop.pay", False)] == heard


async def test_workers_that_are_lost_or_too_big(tracker: Tracker) -> None:
    """A lost one for half an hour; one that eats too much for as long as it does."""
    await worker(tracker, "fine", 1, memory=10, cpu=0.1)
    await worker(tracker, "lost", 60)
    await worker(tracker, "long lost", 3600)
    await worker(tracker, "left", 60, stopped_at=datetime.now(UTC))
    await worker(tracker, "big", 1, memory=2000)
    await worker(tracker, "busy", 1, cpu=0.7)

    assert {("lost-worker", "lost"), ("worker-memory", "big"), ("worker-cpu", "busy")} == told(
        await tracker.alerts.check()
    )


async def test_queues_and_schedules(
    database_url: str, own_valkey: ValkeyServer, queue_name: str
) -> None:
    """What waits, and what nobody sends; while Redis is away what was told goes on."""
    async with Site(database_url, own_valkey.url, "aiotrack") as site:
        made = await site.define(schedule={"seconds": 86_400})
        await site.tracker.schedules.start(made.id)
        tracker = Tracker(database_url, redis=own_valkey.url, settings=LOW)
        broker = PriorityStreamBroker(own_valkey.url, queue_name=queue_name)
        broker.add_middlewares(TrackerMiddleware(tracker))
        task = broker.register_task(lambda: None, "shop.work")
        await broker.startup()
        assert [] == await tracker.alerts.check()
        for _ in range(3):
            await task.kiq()
        await site.rewind(made, 600)
        expected = {("backlog", queue_name), ("silent-schedule", f"task_{made.id}")}
        assert expected == told(await tracker.alerts.check())
        own_valkey.stop()
        assert expected == told(await tracker.alerts.check())
        own_valkey.start()
        await site.redis.connection_pool.disconnect()
        await site.redis.delete(queue_name)
        await site.rewind(made, -600)
        assert [] == await tracker.alerts.check()
        await broker.shutdown()
        await tracker.shutdown()


async def test_a_schedule_looks(made_sqlite_url: str) -> None:
    """As a sweep, which is recorded only when it told something."""
    async with Tracker(made_sqlite_url) as tracker:
        broker = InMemoryBroker(await_inplace=True).with_middlewares(TrackerMiddleware(tracker))
        heard: list[Alert] = []
        tracker.alerts.on(heard.append)
        (entry,) = (
            one for one in tracker.sweep_schedules() if one.task_name == "aiotrack:check_alerts"
        )
        await broker.startup()
        task = broker.find_task(entry.task_name)
        assert task is not None
        await task.kiq(**entry.kwargs)
        assert 0 == (await tracker.stats(module="aiotrack")).total
        await runs(tracker, "shop.pay", "F" * 30, timedelta(minutes=1), 0.1)
        await task.kiq(**entry.kwargs)
        await task.kiq(**entry.kwargs)
        assert 1 == (await tracker.stats(module="aiotrack")).success
        await broker.shutdown()

    assert ["failure-rate"] == [one.rule for one in heard]
