"""Start, stop, pause, resume, trigger: what they give, keep and say; and what Redis' loss costs."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from aiotrack import InvalidDefinition, ScheduleUnavailable, Tracker, UnknownTask
from aiotrack.repository.control.definitions import DefinitionRows
from aiotrack.repository.control.tables import AuditRow, DefinitionRow
from aiotrack.schedules.timetable import Timetable
from aiotrack.schedules.verbs import Schedules
from tests.schedules.site import Beat, Site


async def deeds(site: Site) -> list[tuple[str, str | None, Any, Any]]:
    """Give what the audit keeps of schedules: action, actor, state before and after."""
    async with site.tracker.core().repository.connection() as connection:
        rows = (await connection.execute(select(AuditRow.__table__).order_by(AuditRow.id))).all()
    return [
        (
            row.action,
            row.actor,
            json.loads(row.before or "{}").get("state"),
            json.loads(row.after or "{}").get("state"),
        )
        for row in rows
        if row.action.startswith("schedule.")
    ]


def once_before(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, work: Callable[[], Awaitable[object]]
) -> None:
    """Let somebody else do *work* right before a method's next call."""
    method = getattr(owner, name)

    async def first(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, method)
        await work()
        return await method(*args, **kwargs)

    monkeypatch.setattr(owner, name, first)


async def test_every_verb_gives_the_state_and_may_be_repeated(site: Site) -> None:
    """By id or name; the audit keeps what changed something."""
    made = await site.define()
    verbs = site.tracker.schedules
    told = [
        await verbs.status("count"),
        await verbs.pause(made.id),
        await verbs.resume(made.id),
        await verbs.stop(made.id),
        await verbs.start(made.id, by="ada"),
        await verbs.start("count"),
        await verbs.pause("count", by=7),
        await verbs.pause("count"),
        await verbs.resume("count"),
        await verbs.resume("count"),
        await verbs.status(made.id),
        await verbs.stop("count"),
        await verbs.stop("count"),
    ]

    assert [
        *("inactive", "inactive", "inactive", "inactive", "active", "active", "paused", "paused"),
        *("active", "active", "active", "inactive", "inactive"),
    ] == told
    assert [
        ("schedule.start", "ada", "inactive", "active"),
        ("schedule.pause", "7", "active", "paused"),
        ("schedule.resume", None, "paused", "active"),
        ("schedule.stop", None, "active", "inactive"),
    ] == await deeds(site)
    assert 0 == await site.redis.hlen(site.entries)


async def test_the_next_run_is_told(site: Site) -> None:
    """None unless it is active; the grid stays over a pause."""
    made = await site.define(schedule={"seconds": 3600})
    verbs = site.tracker.schedules
    before = [await verbs.next_run("count")]
    await verbs.start("count")
    first = await verbs.next_run(made.id)
    await verbs.pause("count")
    before.append(await verbs.next_run("count"))
    await verbs.resume("count")

    assert [None, None] == before
    assert first is not None
    assert first == await verbs.next_run("count")
    assert {made.id: first} == await verbs.next_runs()
    assert timedelta(minutes=59) < first - datetime.now(UTC) < timedelta(minutes=61)


async def test_a_crontab_is_due_in_its_zone(one_site: Site) -> None:
    """Three in the morning in Berlin is one or two in UTC."""
    await one_site.define(
        schedule_kind="cron", schedule={"cron": "0 3 * * *", "tz": "Europe/Berlin"}
    )
    await one_site.tracker.schedules.start("count")
    found = await one_site.tracker.schedules.next_run("count")

    assert found is not None
    assert found.hour in {1, 2}
    assert found.tzinfo is UTC


async def test_what_nothing_is_known_of_is_inactive(site: Site) -> None:
    """Also an id that no definition has."""
    verbs = site.tracker.schedules
    made = [await site.define(name) for name in ("a", "b", "c")]
    await verbs.start("b")
    await verbs.start("c")
    await verbs.pause("c")

    assert {made[0].id: "inactive", made[1].id: "active", made[2].id: "paused"} == (
        await verbs.statuses()
    )
    assert ["inactive"] * 3 == [await verbs.status(one) for one in (987654, -1, 10**30)]


async def test_a_manual_one_is_only_triggered(site: Site) -> None:
    """A start is refused, with the way out; its run bears its ids."""
    made = await site.define(schedule_kind="manual", schedule={}, priority=9, timeout_seconds=12.5)
    with pytest.raises(InvalidDefinition, match="manual: it has no schedule; use trigger"):
        await site.tracker.schedules.start("count")
    execution = await site.tracker.schedules.trigger("count", by="ada")
    execution = await site.tracker.wait(execution.task_id, timeout=10)

    assert (made.id, f"task_{made.id}", "ada", 9, 12.5, 3) == (
        *(execution.config_id, execution.schedule_id, execution.created_by),
        *(execution.priority, execution.time_limit, execution.result),
    )
    assert [execution.task_id] == await site.sent(made)
    assert [("schedule.trigger", "ada", None, None)] == await deeds(site)


async def test_a_parameter_that_taskiq_takes_for_no_task_is_refused(site: Site) -> None:
    """Named `self`: where it is stored, or by a trigger of what a process without tasks stored."""
    manual: dict[str, Any] = {"schedule_kind": "manual", "schedule": {}}
    wrong = {"task_type": "shop.clean", "parameters": {"self": 1}, **manual}
    with pytest.raises(InvalidDefinition, match="parameters: 'self' cannot be sent"):
        await site.define(**wrong)
    known = list(site.tracker.brokers)
    site.tracker.brokers.clear()
    await site.define(**wrong)
    site.tracker.brokers.extend(known)
    with pytest.raises(InvalidDefinition, match="parameters: 'self' cannot be sent"):
        await site.tracker.schedules.trigger("count")

    assert [] == (await site.tracker.list()).items
    assert [] == await deeds(site)


async def test_a_run_without_a_limit_of_its_own_gets_that_of_the_settings(site: Site) -> None:
    """Triggered or sent by a scheduler; a definition's and a task's own come before it."""
    every = {"schedule": {"seconds": 3600}, "parameters": {}}
    made = [
        await site.define(task_type=task, **(every | more))
        for task, more in (
            ("shop.clean", {"name": "a"}),
            ("shop.clean", {"name": "b", "timeout_seconds": 7}),
            ("shop.add", {"name": "c", "parameters": {"a": 1}}),
        )
    ]
    triggered = []
    for one in made:
        await site.tracker.schedules.start(one.id)
        await site.rewind(one, 1)
        triggered.append((await site.tracker.schedules.trigger(one.id)).time_limit)
    async with Beat(site) as beat:
        sent = {task.schedule_id: task.labels["timeout"] for task in await beat.due()}

    assert [300, 7, 30] == triggered
    assert [300, 7, 30] == [sent[f"task_{one.id}"] for one in made]


async def test_an_update_times_anew_and_a_delete_stops(site: Site) -> None:
    """What is active follows; executions stay."""
    made = await site.define(schedule={"seconds": 3600})
    verbs, definitions = site.tracker.schedules, site.tracker.definitions
    await verbs.start("count")
    first = await verbs.next_run("count")
    await definitions.update("count", parameters={"a": 9})
    kept = await verbs.next_run("count")
    told = json.loads(await site.redis.hget(site.entries, str(made.id)))  # type: ignore[misc]
    await definitions.update("count", schedule={"seconds": 60}, by="ada")
    sooner = await verbs.next_run("count")
    await definitions.update("count", schedule_kind="manual", schedule={})
    manual = await verbs.status("count")
    await definitions.update("count", schedule_kind="interval", schedule={"seconds": 60})
    await verbs.start("count")
    execution = await verbs.trigger("count")
    await definitions.delete("count")

    assert (first, {"a": 9}) == (kept, told["kwargs"])
    assert first is not None
    assert sooner is not None
    assert sooner < first
    assert ("inactive", "inactive") == (manual, await verbs.status(made.id))
    assert 0 == await site.redis.hlen(site.entries)
    assert made.id == (await site.tracker.get(execution.task_id)).config_id


async def test_an_update_that_meets_a_claim_sends_nothing_twice(
    one_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler takes the due time between what an update reads and what it puts."""
    made = await one_site.define()
    await one_site.tracker.schedules.start(made.id)
    async with Beat(one_site) as beat:
        await one_site.rewind(made, 1)
        revision = await one_site.redis.incr(one_site.version)
        await one_site.redis.zadd(one_site.changes, {str(made.id): revision})
        once_before(monkeypatch, Timetable, "put", beat.tick)
        await one_site.tracker.definitions.update(made.id, parameters={"a": 5})
        for _ in range(3):
            await beat.tick()
        (sent,) = await one_site.sent(made)

    assert (1, {"a": 1}) == ((record := await one_site.tracker.get(sent)).runs, record.kwargs)


async def test_a_start_that_meets_a_delete_leaves_nothing(
    one_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The definition is gone when its schedule is put: no verb could end it."""
    made = await one_site.define()
    verbs, definitions = one_site.tracker.schedules, one_site.tracker.definitions
    once_before(monkeypatch, Timetable, "line", partial(definitions.delete, made.id))
    started = await verbs.start(made.id)

    assert ("inactive", "inactive") == (started, await verbs.status(made.id))
    assert 0 == await one_site.redis.hlen(one_site.entries)


async def test_a_delete_that_meets_a_start_leaves_nothing(
    one_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody starts it after it was stopped, and before its row is gone."""
    made = await one_site.define()
    verbs = one_site.tracker.schedules
    started: list[str] = []

    async def start() -> None:
        started.append(await verbs.start(made.id))

    once_before(monkeypatch, DefinitionRows, "delete", start)
    await one_site.tracker.definitions.delete(made.id)

    assert (["active"], "inactive") == (started, await verbs.status(made.id))
    assert 0 == await one_site.redis.hlen(one_site.entries)


async def test_two_updates_at_once_leave_what_the_definition_says(
    one_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to be stored is the last to be followed."""
    made = await one_site.define()
    definitions = one_site.tracker.definitions
    await one_site.tracker.schedules.start(made.id)
    second = partial(definitions.update, made.id, parameters={"a": 1, "b": 222})
    once_before(monkeypatch, Schedules, "changed", second)
    await definitions.update(made.id, parameters={"a": 1, "b": 111})
    told = json.loads(await one_site.redis.hget(one_site.entries, str(made.id)))  # type: ignore[misc]

    assert {"a": 1, "b": 222} == (await definitions.get(made.id)).parameters == told["kwargs"]


async def test_many_at_once_start_it_once(one_site: Site) -> None:
    """Whoever is quickest; the others see it."""
    made = await one_site.define()
    verbs = one_site.tracker.schedules
    told = await asyncio.gather(*(verbs.start("count") for _ in range(20)))

    assert {"active"} == set(told)
    assert [str(made.id).encode()] == await one_site.redis.hkeys(one_site.entries)
    assert 1 == await one_site.redis.zcard(one_site.due)


async def test_what_cannot_be_read_is_inactive_and_can_be_started(one_site: Site) -> None:
    """A planted value is replaced by what the definition says."""
    made = await one_site.define()
    verbs = one_site.tracker.schedules
    await verbs.start("count")
    await one_site.redis.hset(one_site.entries, str(made.id), b"\x80\x04cos\nsystem\n")
    odd = [await verbs.status("count"), (await verbs.statuses())[made.id]]
    stopped = [await verbs.stop("count"), await one_site.redis.hlen(one_site.entries)]
    await one_site.redis.hset(one_site.entries, str(made.id), b"\x80\x04cos\nsystem\n")

    assert (["inactive", "inactive"], ["inactive", 0]) == (odd, stopped)
    assert "active" == await verbs.start("count")
    assert "active" == await verbs.status("count")


async def test_lost_data_are_made_anew_from_the_audit(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Active, paused and inactive ones are again what they were, on their grid; it is said."""
    verbs = site.tracker.schedules
    for name in ("active", "paused", "stopped", "never", "slower"):
        await site.define(name, schedule={"seconds": 3600})
    for name in ("active", "paused", "stopped", "slower"):
        await verbs.start(name)
    await verbs.pause("paused")
    await verbs.stop("stopped")
    await verbs.trigger("active")
    await site.tracker.definitions.update("slower", schedule={"seconds": 7200})
    known, runs = await verbs.statuses(), await verbs.next_runs()
    await site.redis.delete(*site.keys)
    with caplog.at_level(logging.WARNING, "aiotrack"):
        found = await verbs.statuses()

    assert known == found
    assert runs == await verbs.next_runs()
    (warning,) = [one.getMessage() for one in caplog.records]
    assert "2 active, 1 paused, 2 inactive" in warning


async def test_a_moment_that_was_sent_before_the_loss_is_not_sent_again(site: Site) -> None:
    """Its execution is known; that of another one is not."""
    at = (datetime.now(UTC) - timedelta(seconds=30)).replace(microsecond=0)
    told = {"schedule_kind": "once", "schedule": {"at": at.isoformat()}}
    sent, unsent = await site.define("sent", **told), await site.define("unsent", **told)
    old = await site.define("old", **told)
    await site.tracker.schedules.start("old")
    before = (at - timedelta(days=2)).isoformat()
    async with site.tracker.core().repository.connection() as connection:
        await connection.execute(
            update(DefinitionRow)
            .where(DefinitionRow.id == old.id)
            .values(schedule=json.dumps({"at": before}))
        )
        await connection.commit()
    await site.tracker.schedules.start("sent")
    await site.tracker.schedules.start("unsent")
    await site.tracker.register(
        f"task_{sent.id}:{at:%Y-%m-%dT%H:%M:%SZ}", "shop.add", status="success"
    )
    await site.redis.delete(*site.keys)

    assert {sent.id: "inactive", unsent.id: "active", old.id: "inactive"} == (
        await site.tracker.schedules.statuses()
    )


async def test_without_redis_it_is_said(made_sqlite_url: str) -> None:
    """Definitions and triggers need none."""
    async with Tracker(made_sqlite_url) as tracker:
        made = await tracker.definitions.create(
            name="x", task_type="shop.add", schedule_kind="interval", schedule={"seconds": 5}
        )
        for verb in (
            tracker.schedules.start,
            tracker.schedules.stop,
            tracker.schedules.status,
            tracker.schedules.next_run,
        ):
            with pytest.raises(ScheduleUnavailable, match="or AIOTRACK_REDIS_URL"):
                await verb(made.id)
        with pytest.raises(ScheduleUnavailable):
            await tracker.schedules.statuses()
        with pytest.raises(UnknownTask):
            await tracker.schedules.trigger("x")
        await tracker.definitions.update("x", priority=1)
        await tracker.definitions.delete("x")


async def test_a_redis_that_is_away_is_told_soon(made_sqlite_url: str) -> None:
    """Nothing is changed halfway: a definition that may be scheduled stays as it is."""
    async with Tracker(made_sqlite_url, redis="redis://127.0.0.1:1/0") as tracker:
        told: dict[str, Any] = {"schedule_kind": "interval", "schedule": {"seconds": 5}}
        await tracker.definitions.create(name="x", task_type="shop.print", **told)
        begun = time.monotonic()
        with pytest.raises(ScheduleUnavailable):
            await tracker.schedules.start("x")
        with pytest.raises(ScheduleUnavailable):
            await tracker.definitions.update("x", priority=9)
        with pytest.raises(ScheduleUnavailable):
            await tracker.definitions.delete("x")
        took = time.monotonic() - begun
        left = await tracker.definitions.get("x")

    assert 5 == left.priority
    assert took < 20


async def test_a_manual_definition_needs_no_redis(site: Site) -> None:
    """Unless it becomes another, or something of it may still go on: an error changed nothing."""
    told: dict[str, Any] = {"schedule_kind": "interval", "schedule": {"seconds": 60}}
    manual: dict[str, Any] = {"schedule_kind": "manual", "schedule": {}}
    await site.define("idle", **manual)
    once, active = await site.define("once"), await site.define("active")
    await site.tracker.schedules.start("once")
    await site.tracker.schedules.start("active")
    await site.tracker.definitions.update("once", **manual)
    async with Tracker(site.tracker.database, redis="redis://127.0.0.1:1/0") as away:
        definitions = away.definitions
        with pytest.raises(ScheduleUnavailable):
            await definitions.update("idle", **told)
        with pytest.raises(ScheduleUnavailable):
            await definitions.update("active", **manual)
        kinds = [(await definitions.get(name)).schedule_kind for name in ("idle", "active")]
        changed = [await definitions.update(name, priority=9) for name in ("idle", "once")]
        await definitions.delete("idle")
        await definitions.delete(once.id)
        with pytest.raises(ScheduleUnavailable):
            await definitions.delete("active")
        left = [one.name for one in (await definitions.list()).items]

    assert ["manual", "interval"] == kinds
    assert [9, 9] == [one.priority for one in changed]
    assert ["active"] == left
    assert {active.id: "active"} == await site.tracker.schedules.statuses()
