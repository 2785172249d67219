"""Clean-up: what goes, what stays, with what, in which steps, and who runs it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text
from taskiq import InMemoryBroker
from taskiq.schedule_sources import LabelScheduleSource

from aiotrack import InvalidSetting, StoreUnavailable, TaskStatus, Tracker, TrackerMiddleware
from aiotrack.repository.control.retention import Deleted, Retention
from aiotrack.repository.control.tables import CancelRow, HeldRow, NeedRow, WorkerRow
from aiotrack.repository.control.unfinished import Living, Unfinished
from aiotrack.sweeps import cleanup

NAME = "aiotrack:cleanup"
CHILDREN = ("attempts", "logs", "checkpoints", "cancels", "held", "needs")


async def old(
    tracker: Tracker, task_id: str, days: float, status: str = "SUCCESS", **facts: Any
) -> None:
    """Leave a record that ended (or was created) so many days ago."""
    at = datetime.now(UTC) - timedelta(days=days)
    if TaskStatus.parse(status).is_final:
        facts["finished_at"] = at
    if status != "PENDING":
        facts["started_at"] = at
    await tracker.register(task_id, "shop.pay", status=status, created_at=at, **facts)


async def left(tracker: Tracker) -> list[str]:
    """Give the task_ids that are there."""
    return sorted(one.task_id for one in (await tracker.list(limit=500)).items)


async def rows_of(tracker: Tracker, table: str) -> int:
    """Count a table's rows."""
    async with tracker.core().repository.connection() as connection:
        found = await connection.execute(text(f"SELECT count(*) FROM aiotrack_{table}"))
        return int(found.scalar_one())


async def test_age_counts_from_the_end(tracker: Tracker) -> None:
    """Thirty days by default; what did not end stays, and so does what ended late."""
    await old(tracker, "old", 31)
    await old(tracker, "failed", 400, "FAILURE", error="x")
    await old(tracker, "young", 29)
    await old(tracker, "waits", 90, "PENDING")
    await old(tracker, "runs", 90, "STARTED")
    await old(tracker, "retries", 90, "RETRY")
    ago = datetime.now(UTC) - timedelta(days=90)
    await tracker.register(
        "ended late", "shop.pay", status="SUCCESS", created_at=ago, finished_at=datetime.now(UTC)
    )

    assert 2 == await tracker.cleanup()
    assert ["ended late", "retries", "runs", "waits", "young"] == await left(tracker)
    assert 0 == await tracker.cleanup()


async def test_what_never_ended_goes_when_asked_for(tracker: Tracker) -> None:
    """By its creation; never what a living worker began."""
    for status in ("PENDING", "STARTED", "RETRY"):
        await old(tracker, f"{status} 31", 31, status)
        await old(tracker, f"{status} 29", 29, status)
    for task_id, beat in (("alive", 1), ("dead", 60), ("gone", 1)):
        await old(tracker, task_id, 31, "STARTED")
        await give_worker(tracker, task_id, beat, is_gone=task_id == "gone")

    assert 5 == await tracker.cleanup(only_completed=False)
    assert ["PENDING 29", "RETRY 29", "STARTED 29", "alive"] == await left(tracker)


async def give_worker(tracker: Tracker, task_id: str, beat: float, *, is_gone: bool) -> None:
    """Say which worker runs something, and how many seconds ago it beat."""
    now = datetime.now(UTC)
    worker = WorkerRow.__table__
    async with tracker.core().repository.engine.begin() as connection:
        await connection.execute(
            text("UPDATE aiotrack_executions SET worker = :id WHERE task_id = :id"),
            {"id": task_id},
        )
        await connection.execute(
            insert(worker),
            {
                "queues": [],
                "running": [],
                "tasks": {},
                "versions": {},
                "id": task_id,
                "host": "h",
                "pid": 1,
                "started_at": now,
                "beat_seconds": 5.0,
                "beat_at": now - timedelta(seconds=beat),
                "stopped_at": now if is_gone else None,
            },
        )


async def test_everybody_is_cleaned_by_their_own_value(tracker: Tracker) -> None:
    """A user's row comes before the one for all, in both directions; 0 is at once, -1 never."""
    for user in ("more", "less", "none", "ever", "all"):
        for days in (0.001, 8, 31, 61):
            await old(tracker, f"{user} {days}", days, created_by=user)
    await old(tracker, "nobody's", 31)
    for user, days in (("more", 60), ("less", 7), ("none", 0), ("ever", -1)):
        await tracker.settings.set("retention_days", days, user=user)

    assert 1 + 3 + 4 + 0 + 2 + 1 == await tracker.cleanup()
    assert [
        *("all 0.001", "all 8"),
        *("ever 0.001", "ever 31", "ever 61", "ever 8"),
        "less 0.001",
        *("more 0.001", "more 31", "more 8"),
    ] == await left(tracker)

    await tracker.settings.set("retention_days", -1)
    assert 0 == await tracker.cleanup()
    await tracker.settings.set("retention_days", 5, user="all")
    assert 1 == await tracker.cleanup()
    assert 9 == await tracker.cleanup(retention_days=0)
    assert [] == await left(tracker)


async def test_whose_end_alone_is_told_goes_by_it(tracker: Tracker) -> None:
    """It was not created after its end: also where its creator keeps less than all others."""
    ago = datetime.now(UTC) - timedelta(days=3)
    for task_id, user in (("theirs", "42"), ("others", "43")):
        await tracker.register(task_id, "shop.pay", status="done", finished_at=ago, created_by=user)
    await tracker.register("began", "shop.pay", status="done", started_at=ago, created_by="42")
    await tracker.settings.set("retention_days", 1, user="42")
    found = await tracker.get("theirs")

    assert ago == found.finished_at == found.created_at
    assert ago == (await tracker.get("began")).created_at
    assert 1 == await tracker.cleanup()
    assert ["began", "others"] == await left(tracker)


async def test_what_belongs_to_an_execution_goes_with_it(database_url: str) -> None:
    """Attempts, logs, checkpoints, cancels and held messages; nothing of others."""
    async with Tracker(database_url) as tracker:
        for task_id in ("a", "b"):
            async with tracker.track("shop.pay", task_id=task_id):
                await tracker.checkpoint({"row": 1})
            await tracker.update(task_id, metadata={"seen": True})
        now = datetime.now(UTC)
        async with tracker.core().repository.engine.begin() as connection:
            for task_id in ("a", "b"):
                await connection.execute(
                    insert(CancelRow.__table__), {"task_id": task_id, "asked_at": now}
                )
                held = {"task_id": task_id, "task_name": "shop.pay", "message": "{}"}
                await connection.execute(insert(HeldRow.__table__), held | {"held_at": now})
                await connection.execute(
                    insert(NeedRow.__table__), {"task_id": task_id, "needs": "c"}
                )
                await connection.execute(
                    text(
                        "INSERT INTO aiotrack_logs SELECT task_id, started_at, run_id, 1, 1, "
                        "started_at, 20, 'INFO', 'x', 'y' FROM aiotrack_executions "
                        "WHERE task_id = :id"
                    ),
                    {"id": task_id},
                )
        before = [await rows_of(tracker, name) for name in CHILDREN]
        await tracker.settings.set("retention_days", 0)
        await old(tracker, "c", 3)
        await tracker.settings.set("retention_days", 1, user="b's")
        async with tracker.core().repository.engine.begin() as connection:
            await connection.execute(
                text("UPDATE aiotrack_executions SET created_by = 'b''s' WHERE task_id = 'b'")
            )
        done = await tracker.cleanup()
        after = [await rows_of(tracker, name) for name in CHILDREN]
        kept = await tracker.get("b")

    assert (2, "b") == (done, kept.task_id)
    assert [2, 2, 2, 2, 2, 2] == before
    assert [1, 1, 1, 1, 1, 1] == after


async def test_counts_of_cleaned_days_are_what_is_there(tracker: Tracker) -> None:
    """Rollups are told before rows go: nothing is counted that is not there any more."""
    for number in range(3):
        await old(tracker, f"a{number}", 40, created_by="ever" if number == 0 else None)
    await old(tracker, "b", 3)
    await tracker.settings.set("retention_days", -1, user="ever")
    await tracker.roll_up()
    before = (await tracker.stats()).total
    done = await tracker.cleanup()
    await tracker.roll_up()

    assert (4, 2) == (before, done)
    assert 2 == (await tracker.stats()).total


async def test_many_go_in_small_steps(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch is larger than it may be, and none is forgotten."""
    sizes: list[int] = []
    delete = Retention.delete

    async def counted(self: Retention, kind: Any, found: Any) -> Deleted:
        sizes.append(len(found))
        return await delete(self, kind, found)

    for number in range(60):
        await old(tracker, f"a{number}", 40, created_by=str(number % 2))
    for number in range(30):
        await old(tracker, f"b{number}", 10, created_by="soon")
    await tracker.settings.set("retention_days", -1, user="1")
    await tracker.settings.set("retention_days", 9, user="soon")
    monkeypatch.setattr(Retention, "delete", counted)
    for name, value in {"FIRST": 4, "LEAST": 2, "MOST": 7, "FEW": 2, "PIECE": 9}.items():
        monkeypatch.setattr(cleanup, name, value)

    assert 60 == await tracker.cleanup()
    assert max(sizes) <= 7
    assert 60 == sum(sizes)
    assert 30 == len(await left(tracker))


async def test_what_ends_anew_meanwhile_stays(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DELETE decides again: a redelivered run is not taken away under its worker."""
    delete = Retention.delete
    for task_id in ("again", "gone"):
        await old(tracker, task_id, 40, "FAILURE")

    async def late(self: Retention, kind: Any, found: Any) -> Deleted:
        async with tracker.core().repository.engine.begin() as connection:
            await connection.execute(
                text(
                    "UPDATE aiotrack_executions SET status = 'STARTED', finished_at = NULL "
                    "WHERE task_id = 'again'"
                )
            )
        return await delete(self, kind, found)

    monkeypatch.setattr(Retention, "delete", late)

    assert 1 == await tracker.cleanup()
    assert ["again"] == await left(tracker)


async def test_what_a_living_worker_took_meanwhile_stays(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DELETE asks for the worker, too: it may have become known since the row was read."""
    delete = Retention.delete
    known: list[str] = []
    for task_id in ("alive", "dead", "gone", "nobody"):
        await old(tracker, task_id, 40, "STARTED")
    await old(tracker, "ended", 40)

    async def late(self: Retention, kind: Any, found: Any) -> Deleted:
        for task_id, beat in (("alive", 1), ("dead", 60), ("gone", 1), ("ended", 1)):
            if task_id not in known:
                known.append(task_id)
                await give_worker(tracker, task_id, beat, is_gone=task_id == "gone")
        return await delete(self, kind, found)

    monkeypatch.setattr(Retention, "delete", late)
    monkeypatch.setattr(Unfinished, "living", nobody)

    assert 4 == await tracker.cleanup(only_completed=False)
    assert ["alive"] == await left(tracker)


async def nobody(_: Unfinished, now: int) -> Living:
    """Tell of no worker: none is known yet."""
    return Living(frozenset(), frozenset())


async def test_whom_somebody_writes_to_stays(postgres_url: str) -> None:
    """PostgreSQL: a batch waits for nobody; the next clean-up takes what was left."""
    async with Tracker(postgres_url) as tracker:
        await old(tracker, "written", 40)
        await old(tracker, "gone", 40)
        await old(tracker, "sooner", 5, created_by="soon")
        await tracker.settings.set("retention_days", 1, user="soon")
        async with tracker.core().repository.engine.begin() as connection:
            await connection.execute(
                text(
                    "SELECT 1 FROM aiotrack_executions "
                    "WHERE task_id IN ('written', 'sooner') FOR UPDATE"
                )
            )
            first = await tracker.cleanup()
            there = await left(tracker)
        second = await tracker.cleanup()

    assert (1, ["sooner", "written"], 2) == (first, there, second)


async def test_nothing_of_a_piece_may_go(tracker: Tracker) -> None:
    """All of it belongs to somebody who keeps it for ever."""
    await old(tracker, "a", 40, created_by="ever")
    await tracker.settings.set("retention_days", -1, user="ever")

    assert 0 == await tracker.cleanup()


async def test_a_database_that_refuses_is_asked_for_less(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half as much each time; three times in a row are an error, and nothing is half done."""
    faults = [True, True, False, True, True, True]
    sizes: list[int] = []
    delete = Retention.delete

    async def flaky(self: Retention, kind: Any, found: Any) -> Deleted:
        sizes.append(len(found))
        if faults.pop(0):
            raise StoreUnavailable("too long")
        return await delete(self, kind, found)

    for number in range(40):
        await old(tracker, f"a{number}", 40)
    monkeypatch.setattr(Retention, "delete", flaky)
    with pytest.raises(StoreUnavailable):
        await tracker.cleanup()

    assert [40, 40, 25] == sizes[:3]
    assert 40 - sizes[2] == len(await left(tracker))


async def test_nonsense_is_refused(tracker: Tracker) -> None:
    """Before anything is deleted."""
    await old(tracker, "a", 40)
    for days in (-2, float("nan"), "x"):
        with pytest.raises(InvalidSetting, match="retention_days"):
            await tracker.cleanup(retention_days=days)

    assert ["a"] == await left(tracker)


# ── as a task ───────────────────────────────────────────────────────────────────────────────────
async def test_the_schedule_follows_the_settings(sqlite_url: str, caplog: Any) -> None:
    """On, off, re-timed; a crontab that cannot be read is an interval, loudly."""

    async def found(**settings: Any) -> list[Any]:
        broker = InMemoryBroker()
        broker.add_middlewares(TrackerMiddleware(Tracker(sqlite_url, settings=settings)))
        source = LabelScheduleSource(broker)
        await source.startup()
        return [
            (one.schedule_id, one.cron, one.interval)
            for one in await source.get_schedules()
            if one.task_name == NAME
        ]

    assert [(NAME, "0 2 * * *", None)] == await found()
    assert [(NAME, "5 * * * *", None)] == await found(cleanup_crontab="5 * * * *")
    assert [] == await found(cleanup_enabled=False)
    assert "" == caplog.text
    assert [(NAME, None, 86_400)] == await found(cleanup_crontab="nightly")
    assert [(NAME, None, 7200)] == await found(cleanup_crontab="@x", cleanup_interval_hours=2)
    assert "'nightly' is no crontab; every 86400 s instead" in caplog.text


async def test_other_sources_get_the_same_entries(sqlite_url: str) -> None:
    """`sweep_schedules` gives what a label source would find."""
    tracker = Tracker(sqlite_url, settings={"roll_up_enabled": False, "cleanup_crontab": "no"})
    broker = InMemoryBroker()
    broker.add_middlewares(TrackerMiddleware(tracker))
    source = LabelScheduleSource(broker)
    await source.startup()

    def told(entries: list[Any]) -> list[Any]:
        return sorted(
            (one.schedule_id, one.task_name, one.cron or "", one.kwargs, one.labels["track"])
            for one in entries
        )

    assert told(await source.get_schedules()) == told(tracker.sweep_schedules())
    assert "aiotrack:roll_up" not in {one.task_name for one in tracker.sweep_schedules()}


async def test_a_fleet_cleans_once_and_records_it(database_url: str) -> None:
    """Several schedulers send it, several workers get it; by hand it takes the verb's keywords."""
    trackers = [Tracker(database_url) for _ in range(3)]
    brokers = []
    for tracker in trackers:
        broker = InMemoryBroker(await_inplace=True)
        broker.add_middlewares(TrackerMiddleware(tracker))
        await broker.startup()
        brokers.append(broker)
    await old(trackers[0], "a", 40)
    await old(trackers[0], "b", 4)
    tasks = [broker.find_task(NAME) for broker in brokers]
    await asyncio.gather(*(task.kiq(scheduled=True) for task in tasks))
    await asyncio.gather(*(task.kiq(scheduled=True) for task in tasks))
    records = (await trackers[0].list(module="aiotrack")).items
    asked = await (await tasks[0].kiq(retention_days=3)).wait_result()
    refused = await (await tasks[0].kiq(retention_days=-3)).wait_result()
    everything = (await trackers[0].list(module="aiotrack")).items
    ids = await left(trackers[0])
    for broker in brokers:
        await broker.shutdown()

    assert [(TaskStatus.SUCCESS, NAME, 1)] == [
        (one.status, one.task_name, one.result) for one in records
    ]
    assert 1 == asked.return_value
    assert refused.is_err
    assert [3, 1] == [
        len(everything),
        sum(one.kwargs == {"retention_days": 3} for one in everything),
    ]
    assert not {"a", "b"} & set(ids)


async def test_what_this_process_runs_stays(tracker: Tracker) -> None:
    """The sweep's own record among it: nobody deletes that while it sweeps."""
    broker = InMemoryBroker(await_inplace=True)
    broker.add_middlewares(TrackerMiddleware(tracker))
    await old(tracker, "waits", 1, "PENDING")
    async with tracker.track("shop.long", task_id="here"):
        await tracker.flush()
        tracker.core().recorder.tell_starts()
        await tracker.flush()
        task = broker.find_task(NAME)
        sent = await task.kiq(retention_days=0, only_completed=False)
        done = await sent.wait_result()
        there = await tracker.get("here")

    assert (1, TaskStatus.STARTED) == (done.return_value, there.status)


async def test_switched_off_the_verb_acts_and_a_queued_copy_does_not(database_url: str) -> None:
    """Switched off means not scheduled."""
    tracker = Tracker(database_url, settings={"cleanup_enabled": False})
    broker = InMemoryBroker(await_inplace=True)
    broker.add_middlewares(TrackerMiddleware(tracker))
    await broker.startup()
    await old(tracker, "a", 40)
    await broker.find_task(NAME).kiq(scheduled=True)
    before = await left(tracker)
    done = await tracker.cleanup()
    await broker.shutdown()

    assert (["a"], 1) == (before, done)
