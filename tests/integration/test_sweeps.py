"""Sweeps on real brokers: registered, scheduled, run once for each due time, recorded."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from taskiq import InMemoryBroker
from taskiq.schedule_sources import LabelScheduleSource

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.model import TaskStatus

NAME = "aiotrack:roll_up"


def broker_of(tracker: Tracker) -> InMemoryBroker:
    """Give a broker that the tracker watches."""
    broker = InMemoryBroker(await_inplace=True)
    broker.add_middlewares(TrackerMiddleware(tracker))
    return broker


async def schedules(broker: InMemoryBroker) -> list[Any]:
    """Give what TaskIQ's own source finds of this sweep."""
    source = LabelScheduleSource(broker)
    await source.startup()
    return [one for one in await source.get_schedules() if one.task_name == NAME]


async def work_of_an_hour_ago(tracker: Tracker, task_id: str = "a") -> None:
    """Leave something to roll up."""
    await tracker.register(
        task_id, "shop.pay", status="SUCCESS", created_at=datetime.now(UTC) - timedelta(hours=2)
    )


async def test_the_middleware_brings_the_schedule(database_url: str) -> None:
    """A label source finds it with no further set-up, and it can be sent as JSON."""
    found = await schedules(broker_of(Tracker(database_url)))

    assert [("aiotrack:roll_up", "*/5 * * * *", None)] == [
        (one.schedule_id, one.cron, one.interval) for one in found
    ]
    assert NAME == found[0].task_name
    assert {"scheduled": True} == found[0].kwargs
    assert {"track": False} == json.loads(json.dumps(found[0].labels))


async def test_a_sweep_can_be_timed_anew_and_switched_off(sqlite_url: str, caplog) -> None:
    """By settings; a crontab that never matches falls back to an interval, loudly."""
    timed = Tracker(sqlite_url, settings={"roll_up_crontab": "0 * * * *"})
    wrong = Tracker(sqlite_url, settings={"roll_up_crontab": "61 * * * *"})
    off = Tracker(sqlite_url, settings={"roll_up_enabled": False})

    assert ["0 * * * *"] == [one.cron for one in await schedules(broker_of(timed))]
    assert "" == caplog.text
    assert [300] == [one.interval for one in await schedules(broker_of(wrong))]
    assert "'61 * * * *' is no crontab" in caplog.text
    assert [] == await schedules(broker_of(off))


async def test_a_fleet_rolls_up_once(database_url: str) -> None:
    """Several schedulers send it, several workers get it: one runs, and records it."""
    trackers = [Tracker(database_url) for _ in range(4)]
    brokers = [broker_of(tracker) for tracker in trackers]
    for broker in brokers:
        await broker.startup()
    await work_of_an_hour_ago(trackers[0])

    tasks = [broker.find_task(NAME) for broker in brokers]
    await asyncio.gather(*(task.kiq(scheduled=True) for task in tasks))
    await work_of_an_hour_ago(trackers[0], "b")
    await asyncio.gather(*(task.kiq(scheduled=True) for task in tasks))
    records = (await trackers[0].list(module="aiotrack")).items
    for broker in brokers:
        await broker.shutdown()

    assert [(TaskStatus.SUCCESS, NAME)] == [(one.status, one.task_name) for one in records]
    assert records[0].task_id.startswith("aiotrack:roll_up:2")
    assert records[0].result >= 1


async def test_nothing_due_is_not_recorded(database_url: str) -> None:
    """Neither on an empty database, nor where only sweeps left records."""
    tracker = Tracker(database_url)
    broker = broker_of(tracker)
    await broker.startup()
    task = broker.find_task(NAME)
    await task.kiq(scheduled=True)
    await tracker.register(
        "old", NAME, status="SUCCESS", created_at=datetime.now(UTC) - timedelta(hours=2)
    )
    first = await task.kiq(scheduled=True)
    result = await first.wait_result()
    records = (await tracker.list()).items
    await broker.shutdown()

    assert ["old"] == [one.task_id for one in records]
    assert (None, False) == (result.return_value, result.is_err)


async def test_by_hand_it_always_runs(database_url: str) -> None:
    """Sent by hand, or by the verb, switched off or not."""
    tracker = Tracker(database_url, settings={"roll_up_enabled": False})
    broker = broker_of(tracker)
    await broker.startup()
    await work_of_an_hour_ago(tracker)
    task = broker.find_task(NAME)
    unasked = await (await task.kiq(scheduled=True)).wait_result()
    asked = await (await task.kiq()).wait_result()
    again = await (await task.kiq()).wait_result()
    verb = await tracker.roll_up()
    records = (await tracker.list(module="aiotrack")).items
    stats = await tracker.stats()
    await broker.shutdown()

    assert None is unasked.return_value
    assert asked.return_value >= 1
    assert (0, 0) == (again.return_value, verb)
    assert 2 == len(records)
    assert (1, 1, True) == (stats.total, stats.success, stats.is_approximate or True)


async def test_a_sweep_that_fails_is_recorded_and_harms_nobody(
    database_url: str, monkeypatch, caplog
) -> None:
    """A scheduled one says so in the log; the next time it comes again."""
    from aiotrack.repository.statistics.rollups import Rollups

    async def fail(_: Rollups) -> int:
        raise OSError("no space")

    tracker = Tracker(database_url)
    broker = broker_of(tracker)
    await broker.startup()
    await work_of_an_hour_ago(tracker)
    monkeypatch.setattr(Rollups, "roll_up", fail)
    with caplog.at_level(logging.ERROR):
        result = await (await broker.find_task(NAME).kiq(scheduled=True)).wait_result()
    records = (await tracker.list(module="aiotrack")).items
    await broker.shutdown()

    assert not result.is_err
    assert "comes again at its next time: no space" in caplog.text
    assert [(TaskStatus.FAILURE, "no space")] == [(one.status, one.error) for one in records]
