"""The time-out sweep: whose limit holds, who is asked first, and that its verdict yields."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text
from taskiq import AsyncResultBackend, InMemoryBroker, TaskiqResult
from taskiq.result_backends.dummy import DummyResultBackend
from taskiq.schedule_sources import LabelScheduleSource

from aiotrack import InvalidSetting, TaskStatus, Tracker, TrackerMiddleware
from aiotrack.encode import encode_task_id
from aiotrack.repository.control.tables import HeldRow, WorkerRow
from aiotrack.sweep import LONGEST
from aiotrack.sweeps import CLEANUP, Sweeps, asking, mark_timed_out

NAME = "aiotrack:mark_timed_out"


async def begun(tracker: Tracker, task_id: str, minutes: float, **facts: Any) -> None:
    """Leave a run that began so many minutes ago, and did not end."""
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    facts = {"status": "STARTED", "started_at": at} | facts
    await tracker.register(task_id, "shop.pay", created_at=at, **facts)


async def limited(tracker: Tracker, task_id: str, seconds: float) -> None:
    """Give a run a limit of its own, as its label would."""
    await change(tracker, "time_limit = :value", task_id, seconds)


async def change(tracker: Tracker, what: str, task_id: str, value: Any) -> None:
    """Change a row as time would."""
    async with tracker.core().repository.engine.begin() as connection:
        await connection.execute(
            text(f"UPDATE aiotrack_executions SET {what} WHERE task_id = :id"),
            {"id": task_id, "value": value},
        )


async def beat(
    tracker: Tracker, *task_ids: str, ago: float = 1, seconds: float = 5, is_gone: bool = False
) -> None:
    """Let a worker name the runs of executions."""
    async with tracker.core().repository.engine.begin() as connection:
        rows = await connection.execute(text("SELECT task_id, run_id FROM aiotrack_executions"))
        runs = {task_id: run_id for task_id, run_id in rows if task_id in task_ids}
        now = datetime.now(UTC)
        await connection.execute(
            insert(WorkerRow.__table__),
            {
                "tasks": {},
                "versions": {},
                "id": f"of {task_ids}",
                "host": "h",
                "pid": 1,
                "queues": [],
                "started_at": now,
                "beat_at": now - timedelta(seconds=ago),
                "beat_seconds": seconds,
                "stopped_at": now if is_gone else None,
                # Runs that were registered all have the same name: here they get others.
                "running": [f"run of {task_id}" for task_id in runs],
            },
        )
        for task_id in runs:
            await connection.execute(
                text(
                    "UPDATE aiotrack_executions SET run_id = :run, plain = true WHERE task_id = :id"
                ),
                {"run": f"run of {task_id}", "id": task_id},
            )


async def states(tracker: Tracker) -> dict[str, str]:
    """Give the status of each execution, with a mark where it is presumed."""
    return {
        one.task_id: one.status.value + "?" * one.presumed
        for one in (await tracker.list(limit=500)).items
    }


async def test_ten_minutes_for_what_nobody_claims(tracker: Tracker) -> None:
    """STARTED or RETRY; what only waits to begin is left alone."""
    for minutes in (9, 11):
        await begun(tracker, f"runs {minutes}", minutes)
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        await begun(tracker, f"retries {minutes}", minutes, status="RETRY", finished_at=at)
        await begun(tracker, f"waits {minutes}", minutes, status="PENDING", started_at=None)
    await begun(tracker, "late retry", 90, status="RETRY", finished_at=datetime.now(UTC))

    assert 2 == await tracker.mark_timed_out()
    assert {
        "runs 9": "STARTED",
        "runs 11": "FAILURE?",
        "retries 9": "RETRY",
        "retries 11": "FAILURE?",
        "late retry": "RETRY",
        "waits 9": "PENDING",
        "waits 11": "PENDING",
    } == await states(tracker)
    assert 0 == await tracker.mark_timed_out()


async def test_the_verdict_says_what_it_is(tracker: Tracker) -> None:
    """Presumed, with a class and a sentence; the run is among the attempts."""
    await begun(tracker, "a", 20)
    await tracker.mark_timed_out()
    found = await tracker.get("a")
    attempts = await tracker.attempts("a")

    assert (TaskStatus.FAILURE, True, "timeout") == (
        found.status,
        found.presumed,
        found.error_class,
    )
    assert "presumed: it ran for more than 10 minutes" == found.error
    assert 1200 <= (found.duration or 0) < 1300
    assert [TaskStatus.FAILURE] == [one.status for one in attempts]


async def test_what_nobody_began_ends_only_by_its_setting(database_url: str) -> None:
    """`pending_timeout_minutes`; an argument for runs says nothing about it."""
    async with Tracker(database_url) as tracker:
        for minutes in (4, 6):
            await begun(tracker, f"waits {minutes}", minutes, status="PENDING", started_at=None)
        assert 0 == await tracker.mark_timed_out(timeout_minutes=0)
    async with Tracker(database_url, settings={"pending_timeout_minutes": 5}) as tracker:
        assert 1 == await tracker.mark_timed_out(timeout_minutes=-1)
        found = await tracker.get("waits 6")
        assert {"waits 4": "PENDING", "waits 6": "FAILURE?"} == await states(tracker)
        assert "presumed: nobody began it within 5 minutes" == found.error


async def test_a_run_that_a_living_worker_names_ends_by_what_somebody_set(
    tracker: Tracker,
) -> None:
    """Its own limit, a configured one, an argument; not the default. Silence is no claim."""
    names = ("long", "own", "users", "silent", "gone")
    for task_id in names:
        await begun(tracker, task_id, 30, created_by=task_id)
    await beat(tracker, "long", "own", "users")
    await beat(tracker, "silent", ago=16)
    await beat(tracker, "gone", is_gone=True)
    await limited(tracker, "own", 60)
    await tracker.settings.set("timeout_minutes", 20, user="users")

    assert 4 == await tracker.mark_timed_out()
    assert {**dict.fromkeys(names, "FAILURE?"), "long": "STARTED"} == await states(tracker)
    assert "more than 61 s" in ((await tracker.get("own")).error or "")

    await tracker.settings.set("timeout_minutes", 40)
    assert 0 == await tracker.mark_timed_out()
    assert 1 == await tracker.mark_timed_out(timeout_minutes=25)


async def test_a_setting_of_the_process_holds_for_living_workers_too(database_url: str) -> None:
    """Somebody chose it, even when it says what the default says."""
    async with Tracker(database_url, settings={"timeout_minutes": 10}) as tracker:
        await begun(tracker, "a", 11)
        await beat(tracker, "a")

        assert 1 == await tracker.mark_timed_out()


async def test_a_run_of_this_process_lives(tracker: Tracker) -> None:
    """Whatever the table of workers says: it is here."""
    async with tracker.track("shop.long", task_id="here"):
        await tracker.flush()
        await change(tracker, "started_at = :value", "here", stored(tracker, 30))
        assert 0 == await tracker.mark_timed_out()
        assert 1 == await tracker.mark_timed_out(timeout_minutes=0)

    assert {"here": "SUCCESS"} == await states(tracker)


def stored(tracker: Tracker, minutes: float) -> Any:
    """Give a time ago as the database keeps it."""
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    if tracker.core().repository.dialect == "sqlite":
        return int(at.timestamp() * 1_000_000)
    return at


async def test_everybody_by_their_own_value(tracker: Tracker) -> None:
    """A user's row before the one for all; the run's own limit before both; -1 is never."""
    for user in ("more", "less", "ever", "all"):
        await begun(tracker, user, 15, created_by=user)
        await begun(tracker, f"own {user}", 15, created_by=user)
        await limited(tracker, f"own {user}", 3600)
    for user, minutes in (("more", 20), ("less", 0.5), ("ever", -1)):
        await tracker.settings.set("timeout_minutes", minutes, user=user)
    assert 2 == await tracker.mark_timed_out()
    await tracker.settings.set("timeout_minutes", -1)
    await tracker.settings.unset("timeout_minutes", user="more")

    assert 0 == await tracker.mark_timed_out()
    assert {"less": "FAILURE?", "all": "FAILURE?"} == {
        name: state for name, state in (await states(tracker)).items() if "?" in state
    }
    assert 6 == await tracker.mark_timed_out(timeout_minutes=0)


async def test_it_is_over_but_nobody_said_so(tracker: Tracker) -> None:
    """The worker's own word wins over the verdict, whenever it comes; and a retry begins anew."""
    await begun(tracker, "a", 20)
    await begun(tracker, "b", 20, status="RETRY")
    assert 2 == await tracker.mark_timed_out(timeout_minutes=0)
    await tracker.update("a", "success", result=7)
    await tracker.update("b", "started")
    found = await tracker.get("a")

    assert (TaskStatus.SUCCESS, False, 7) == (found.status, found.presumed, found.result)
    assert {"a": "SUCCESS", "b": "STARTED"} == await states(tracker)


async def test_a_failure_by_hand_is_more_than_a_presumed_one(tracker: Tracker) -> None:
    """The verdict yields to who knows it, also when both say the same."""
    await begun(tracker, "x", 20)
    await tracker.mark_timed_out()
    await tracker.update("x", "failed", error="the disk was full")
    found = await tracker.get("x")
    attempts = await tracker.attempts("x")

    assert (TaskStatus.FAILURE, False) == (found.status, found.presumed)
    assert "the disk was full" == found.error
    assert ["the disk was full"] == [one.error for one in attempts]


async def test_nonsense_is_refused(tracker: Tracker) -> None:
    """Before anybody is judged."""
    await begun(tracker, "a", 20)
    for minutes in (-2, float("inf"), "x"):
        with pytest.raises(InvalidSetting, match="timeout_minutes"):
            await tracker.mark_timed_out(timeout_minutes=minutes)

    assert {"a": "STARTED"} == await states(tracker)


async def test_pages_and_batches_leave_nobody_out(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a page of them, late and in time, in any order."""
    monkeypatch.setattr(mark_timed_out, "PAGE", 7)
    monkeypatch.setattr(mark_timed_out, "BATCH", 3)
    for number in range(30):
        await begun(tracker, f"a{number}", 20 if number % 3 else 5)

    assert 20 == await tracker.mark_timed_out()


# ── the result backend is asked first ───────────────────────────────────────────────────────────
class Kept(AsyncResultBackend[Any]):
    """A result backend that knows some results; it may be slow, or broken."""

    def __init__(self, results: Mapping[str, TaskiqResult[Any]], wait: float = 0.0) -> None:
        self.results = results
        self.wait = wait
        self.asked: list[str] = []

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Keep nothing."""

    async def is_result_ready(self, task_id: str) -> bool:
        self.asked.append(task_id)
        await asyncio.sleep(self.wait)
        return task_id in self.results

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        return self.results[task_id]


def with_results(tracker: Tracker, backend: AsyncResultBackend[Any]) -> InMemoryBroker:
    """Give the tracker a broker whose results are those."""
    broker = InMemoryBroker().with_result_backend(backend)
    broker.add_middlewares(TrackerMiddleware(tracker))
    return broker


async def test_a_result_that_is_there_needs_no_verdict(tracker: Tracker) -> None:
    """It is filled in; all others are judged, and nobody is asked who has just begun."""
    done = TaskiqResult(is_err=False, return_value=5, execution_time=1.0, labels={})
    failed = TaskiqResult(
        is_err=True, return_value=None, execution_time=1.0, labels={}, error=ValueError("no")
    )
    backend = Kept({"done": done, "failed": failed})
    with_results(tracker, backend)
    for task_id, minutes in {"done": 20, "failed": 20, "lost": 20, "young": 1}.items():
        await begun(tracker, task_id, minutes)

    assert 1 == await tracker.mark_timed_out()
    assert {
        "done": "SUCCESS",
        "failed": "FAILURE",
        "lost": "FAILURE?",
        "young": "STARTED",
    } == await states(tracker)
    assert (5, "no") == ((await tracker.get("done")).result, (await tracker.get("failed")).error)
    assert {"done", "failed", "lost"} == set(backend.asked)


async def test_who_is_in_time_is_synced_too(tracker: Tracker) -> None:
    """Whatever did not end; but nobody whom a living worker names, or who waits for others."""
    done = TaskiqResult(is_err=False, return_value=5, execution_time=1.0, labels={})
    second = done.model_copy(update={"labels": {"_retries": 1}})
    error = TaskiqResult(
        is_err=True, return_value=None, execution_time=1.0, labels={}, error=ValueError("no")
    )
    told = dict.fromkeys(["waits", "runs", "claimed", "held", "young", "begun"], done)
    backend = Kept({**told, "retried": second, "retries": error})
    with_results(tracker, backend)
    at = datetime.now(UTC) - timedelta(minutes=5)
    for task_id, minutes in {"waits": 90, "held": 90, "young": 1, "unknown": 9}.items():
        await begun(tracker, task_id, minutes, status="PENDING", started_at=None)
    for task_id in ("runs", "claimed"):
        await begun(tracker, task_id, 5)
    await begun(tracker, "begun", 90, started_at=datetime.now(UTC))
    for task_id in ("retried", "retries"):
        await begun(tracker, task_id, 5, status="RETRY", finished_at=at)
    await beat(tracker, "claimed")
    async with tracker.core().repository.engine.begin() as connection:
        held = {"task_id": "held", "task_name": "shop.pay", "message": "{}", "held_at": at}
        await connection.execute(insert(HeldRow.__table__), held)

    assert 0 == await tracker.mark_timed_out()
    assert {
        "waits": "SUCCESS",
        "runs": "SUCCESS",
        "retried": "SUCCESS",
        "retries": "RETRY",
        "claimed": "STARTED",
        "begun": "STARTED",
        "held": "PENDING",
        "young": "PENDING",
        "unknown": "PENDING",
    } == await states(tracker)
    assert {"waits", "runs", "retried", "retries", "unknown"} == set(backend.asked)
    assert 5 == (await tracker.get("waits")).result


async def test_a_backlog_is_asked_about_piece_by_piece(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest first; each sweep goes on where the one before stopped, and then begins anew."""
    monkeypatch.setattr(asking, "PAGE", 4)
    monkeypatch.setattr(asking, "MOST", 10)
    backend = Kept({})
    with_results(tracker, backend)
    names = [f"a{number}" for number in range(25)]
    for number, task_id in enumerate(names):
        await begun(tracker, task_id, 90 - number, status="PENDING", started_at=None)
    asked: list[list[str]] = []
    for _ in range(4):
        backend.asked = []
        await tracker.mark_timed_out()
        asked.append(backend.asked)

    assert [names[:10], names[10:20], names[20:], names[:10]] == asked


async def test_a_hanging_backend_does_not_hold_the_next_sweep_at_the_same_place(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its seconds are bounded; who had no answer is asked again when all others have been."""
    monkeypatch.setattr(mark_timed_out, "ASK", 1.0)
    backend = Kept({}, wait=30)
    with_results(tracker, backend)
    for number in range(15):
        await begun(tracker, f"a{number:02}", 90 - number, status="PENDING", started_at=None)
    started = asyncio.get_running_loop().time()
    await tracker.mark_timed_out()
    first, backend.asked = set(backend.asked), []
    await tracker.mark_timed_out()

    assert asyncio.get_running_loop().time() - started < 15
    assert {f"a{number:02}" for number in range(10)} == first
    assert {f"a{number:02}" for number in range(10, 15)} == set(backend.asked)


@pytest.mark.parametrize("what", ["taken once", "calls all a success", "no broker"])
async def test_what_keeps_no_results_is_not_asked(
    sqlite_url: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A backend that gives a result once, TaskIQ's default, and none at all."""
    async with Tracker(sqlite_url) as tracker:
        backend = Kept({})
        backend.keep_results = False  # type: ignore[attr-defined]
        if what != "no broker":
            with_results(tracker, backend if what == "taken once" else DummyResultBackend())
        await begun(tracker, "a", 90, status="PENDING", started_at=None)
        await tracker.mark_timed_out()

        assert {"a": "PENDING"} == await states(tracker)
    assert [] == backend.asked
    assert "finds no broker" not in caplog.text


async def test_a_backend_is_asked_by_the_id_of_the_message(tracker: Tracker) -> None:
    """Not by the stored one, which may be another task's; where only that is known, not at all."""
    done = TaskiqResult(is_err=False, return_value=5, execution_time=1.0, labels={})
    long = "x" * 300
    backend = Kept(dict.fromkeys(["50%", "a%25", encode_task_id(long)], done))
    with_results(tracker, backend)
    for task_id in ("50%", "a%", long):
        await begun(tracker, task_id, 20)

    assert 2 == await tracker.mark_timed_out()
    assert {"50%": "SUCCESS", "a%": "FAILURE?", encode_task_id(long): "FAILURE?"} == await states(
        tracker
    )
    assert {"50%", "a%"} == set(backend.asked)


async def test_a_result_of_an_earlier_attempt_saves_nobody(tracker: Tracker) -> None:
    """It is known already; the attempt that is waited for is late all the same."""
    error = TaskiqResult(
        is_err=True, return_value=None, execution_time=1.0, labels={}, error=ValueError("no")
    )
    with_results(tracker, Kept({"a": error}))
    at = datetime.now(UTC) - timedelta(minutes=20)
    await begun(tracker, "a", 20, status="RETRY", finished_at=at)

    assert 1 == await tracker.mark_timed_out()
    assert {"a": "FAILURE?"} == await states(tracker)


async def test_a_result_backend_that_hangs_stops_nobody(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The questions of a sweep have a bound together."""
    monkeypatch.setattr(mark_timed_out, "ASK", 0.2)
    with_results(tracker, Kept({}, wait=30))
    for number in range(30):
        await begun(tracker, f"a{number}", 20)
    started = asyncio.get_running_loop().time()

    assert 30 == await tracker.mark_timed_out()
    assert asyncio.get_running_loop().time() - started < 5
    assert "judges without the result backend" in caplog.text


# ── as a task ───────────────────────────────────────────────────────────────────────────────────
async def test_it_is_scheduled_recorded_and_can_be_sent(database_url: str) -> None:
    """Every half hour, once for a fleet; by hand it takes the verb's keyword."""
    trackers = [Tracker(database_url) for _ in range(3)]
    brokers = [InMemoryBroker(await_inplace=True) for _ in trackers]
    for tracker, broker in zip(trackers, brokers, strict=True):
        broker.add_middlewares(TrackerMiddleware(tracker))
        await broker.startup()
    source = LabelScheduleSource(brokers[0])
    await source.startup()
    crons = {one.schedule_id: one.cron for one in await source.get_schedules()}
    await begun(trackers[0], "a", 20)
    await begun(trackers[0], "b", 5)
    tasks = [broker.find_task(NAME) for broker in brokers]
    await asyncio.gather(*(task.kiq(scheduled=True) for task in tasks))
    records = (await trackers[0].list(module="aiotrack")).items
    asked = await (await tasks[0].kiq(timeout_minutes=0)).wait_result()
    found = await states(trackers[0])
    for broker in brokers:
        await broker.shutdown()

    assert "*/30 * * * *" == crons[NAME]
    assert [(TaskStatus.SUCCESS, 1)] == [(one.status, one.result) for one in records]
    assert 1 == asked.return_value
    assert {"SUCCESS"} == {state for name, state in found.items() if name.startswith(NAME)}


async def test_a_crontab_that_cannot_be_read_is_half_an_hour(sqlite_url: str, caplog: Any) -> None:
    """And the log says so."""
    tracker = Tracker(sqlite_url, settings={"mark_timeout_crontab": "often"})
    off = Tracker(sqlite_url, settings={"mark_timeout_enabled": False})

    assert [1800] == [one.interval for one in tracker.sweep_schedules() if one.task_name == NAME]
    assert "'often' is no crontab; every 1800 s instead" in caplog.text
    assert NAME not in {one.task_name for one in off.sweep_schedules()}


async def test_a_sweep_that_was_killed_is_presumed_too(tracker: Tracker) -> None:
    """After an hour, whatever anybody set; never while it may still run."""
    is_there, forever = asyncio.Event(), asyncio.Event()

    async def hang(*_: Any, **__: Any) -> None:
        is_there.set()
        await forever.wait()

    hanging = dataclasses.replace(CLEANUP, run=hang)
    task = asyncio.ensure_future(tracker.feature(Sweeps).perform(hanging, {}, scheduled=True))
    await asyncio.wait_for(is_there.wait(), 10)
    record = (await tracker.list(module="aiotrack")).items[0]
    await tracker.settings.set("timeout_minutes", -1)
    early = await tracker.mark_timed_out(timeout_minutes=0)
    await change(tracker, "started_at = :value", record.task_id, stored(tracker, 61))
    late = await tracker.mark_timed_out()
    found = await tracker.get(record.task_id)
    forever.set()
    await task

    assert (LONGEST, TaskStatus.STARTED) == (record.time_limit, record.status)
    assert (0, 1) == (early, late)
    assert (TaskStatus.FAILURE, True) == (found.status, found.presumed)
    assert TaskStatus.SUCCESS == (await tracker.get(record.task_id)).status
