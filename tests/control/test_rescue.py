"""What lost workers left is ended or sent again; a worker's own late word wins."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any

import pytest
from taskiq import AsyncBroker

from aiotrack import Execution, TaskStatus, Tracker
from aiotrack.model import Cause
from aiotrack.report import History, Report, Witness
from aiotrack.rescue import UNSENT, Unknown, judge_unknown, rescue
from aiotrack.verdicts import presume
from tests.control.crew import (
    PubSubBroker,
    QuietBroker,
    ended,
    enlist,
    registry_of,
    serving,
    started,
    write,
)

NAME = "aiotrack:rescue_lost"


def attached(tracker: Tracker, broker: QuietBroker, **labels: Any) -> QuietBroker:
    """Give a broker with a task, as a process has it that sends."""
    serving(tracker, broker).is_worker_process = False

    @broker.task("shop.pay", **labels)
    async def pay(*_: Any, **__: Any) -> None: ...

    return broker


def shown(execution: Execution) -> tuple[str, bool, str | None]:
    """Give what a verdict is about."""
    return (execution.status, execution.presumed, execution.error_class)


async def test_what_a_lost_worker_ran_has_failed(tracker: Tracker) -> None:
    """Presumed, with the reason; what others run, or ended, or who was never there, stays."""
    await enlist(tracker, "lost", ago=100)
    await enlist(tracker, "alive")
    await write(
        tracker,
        *(started(tracker, str(number), "lost") for number in range(250)),
        started(tracker, "other", "alive"),
        started(tracker, "stranger", "unknown"),
        ended(started(tracker, "done", "lost"), TaskStatus.SUCCESS, tracker.clock.now()),
    )
    count = await tracker.rescue_lost()
    again = await tracker.rescue_lost()
    one = await tracker.get("7")
    others = [(await tracker.get(name)).status for name in ("other", "stranger", "done")]
    attempts = await tracker.attempts("7")

    assert (250, 0) == (count, again)
    assert ("FAILURE", True, "lost") == shown(one)
    assert "its worker lost was lost" == one.error
    assert one.duration is not None
    assert one.duration > 59
    assert ["STARTED", "STARTED", "SUCCESS"] == others
    assert ["FAILURE"] == [attempt.status for attempt in attempts]


async def test_the_late_word_wins(tracker: Tracker) -> None:
    """Before and after the verdict, and a later run, too."""
    await enlist(tracker, "lost", ago=100)
    late, failed, again = (started(tracker, name, "lost") for name in ("a", "b", "c"))
    await write(tracker, late, failed, again)
    count = await tracker.rescue_lost()
    now = tracker.clock.now()
    await write(tracker, ended(late, TaskStatus.SUCCESS, now))
    await write(tracker, ended(failed, TaskStatus.FAILURE, now))
    rerun = started(tracker, "c", "alive")
    rerun.run_id, rerun.started_at = "second", now
    await write(tracker, rerun)

    assert 3 == count
    assert ("SUCCESS", False, None) == shown(await tracker.get("a"))
    assert ("FAILURE", False, None) == shown(await tracker.get("b"))
    assert ("STARTED", False, None) == shown(await tracker.get("c"))


async def test_races_of_the_rescue_and_the_worker(tracker: Tracker) -> None:
    """Whatever comes first, the worker's own word stands, and nothing stays unfinished."""
    await enlist(tracker, "lost", ago=100)
    for number in range(10):
        starts = [started(tracker, f"{number}-{one}", "lost") for one in range(30)]
        await write(tracker, *starts)
        told = [
            ended(
                start, random.choice([TaskStatus.SUCCESS, TaskStatus.FAILURE]), tracker.clock.now()
            )
            for start in starts
            if random.random() < 0.7
        ]

        async def tell(reports: list[Any] = told) -> None:
            for report in reports:
                await write(tracker, report)

        await asyncio.gather(tell(), tracker.rescue_lost(), tracker.rescue_lost())
        await tracker.rescue_lost()
        words = {report.origin.task_id: report.status for report in told}
        for start in starts:
            found = await tracker.get(start.origin.task_id)
            word = words.get(start.origin.task_id)
            expected = (TaskStatus.FAILURE, True) if word is None else (word, False)

            assert expected == (found.status, found.presumed)


async def test_after_a_farewell_nothing_may_be_left(tracker: Tracker) -> None:
    """A run that its worker abandoned ends a minute later; before, its word may still come."""
    await enlist(tracker, "just", ago=2, stopped=2)
    await enlist(tracker, "old", ago=70, stopped=70)
    await write(tracker, started(tracker, "a", "just"), started(tracker, "b", "old"))
    count = await tracker.rescue_lost()

    assert 1 == count
    assert "its worker old stopped before it told its end" == (await tracker.get("b")).error


async def test_an_outage_is_nobodys_loss(tracker: Tracker) -> None:
    """Workers rescue only whom others outlived: after an outage of the database all were silent."""
    core = tracker.core()
    await enlist(tracker, "silent", ago=20)
    await enlist(tracker, "just back", since=10)
    await write(tracker, started(tracker, "a", "silent"))
    early = await rescue(core, is_proven=True)
    await enlist(tracker, "always there", since=16)
    later = await rescue(core, is_proven=True)

    assert (0, 1) == (early.count, later.count)


async def test_a_worker_that_comes_back_is_closed_no_more(tracker: Tracker) -> None:
    """What it runs next is rescued if it is lost again."""
    await enlist(tracker, "w", ago=100)
    await enlist(tracker, "witness", since=100)
    await rescue(tracker.core(), is_proven=True)
    closed = await registry_of(tracker).gone(is_proven=True)
    await enlist(tracker, "w", ago=100)
    open_again = await registry_of(tracker).gone(is_proven=True)

    assert {} == closed
    assert {"w"} == set(open_again)


async def test_old_workers_are_forgotten_when_their_runs_are_closed(tracker: Tracker) -> None:
    """After a day, stopped or lost; one that lives stays however long."""
    day = 90_000
    await enlist(tracker, "lost", ago=day)
    await enlist(tracker, "stopped", ago=day, stopped=day)
    await enlist(tracker, "young", ago=100)
    await enlist(tracker, "alive", since=day)
    await write(tracker, started(tracker, "a", "lost"))
    await tracker.rescue_lost()

    assert {"young", "alive"} == {worker.id for worker in await tracker.workers()}
    assert "lost" == (await tracker.get("a")).error_class


# ── sent again ──────────────────────────────────────────────────────────────────────────────────
async def test_what_asks_for_it_is_sent_again(database_url: str) -> None:
    """The same task_id, arguments and attempt; the next run's cause is the requeue."""
    async with Tracker(database_url) as tracker:
        broker = attached(tracker, PubSubBroker(), on_lost="requeue", timeout=5)
        await enlist(tracker, "lost", ago=100)
        start = started(tracker, "a%b", "lost", created_by="42")
        start.origin.task_id, start.attempt = "a%25b", 2
        await write(tracker, start)
        count = await tracker.rescue_lost()
        again = await tracker.rescue_lost()
        waits = await tracker.get("a%b")
        alone = await tracker.attempts("a%b")
        message = broker.formatter.loads(broker.sent[0])
        message.parse_labels()
        run = started(tracker, "a", "new")
        run.origin.task_id, run.run_id, run.attempt, run.requeues = "a%25b", "2", 2, 1
        await write(tracker, run)
        tries = await tracker.attempts("a%b")
        causes = [attempt.cause for attempt in tries]

    assert (1, 0, 1) == (count, again, len(broker.sent))
    assert ["FAILURE"] == [one.status for one in alone]
    assert alone[0].finished_at is not None
    assert ["FAILURE", "STARTED"] == [one.status for one in tries]
    assert ("PENDING", False, "lost", 2) == (*shown(waits), waits.attempt)
    assert "its worker lost was lost; it was sent again" == waits.error
    assert ("a%b", "shop.pay", [1, [2]], {"a": None}) == (
        message.task_id,
        message.task_name,
        message.args,
        message.kwargs,
    )
    assert ("42", 5, "1", "1") == (
        message.labels["created_by"],
        message.labels["timeout"],
        str(message.labels["_retries"]),
        str(message.labels["X-Taskiq-requeue"]),
    )
    assert Cause.REQUEUE == causes[-1]


async def test_two_rescuers_send_it_once(database_url: str) -> None:
    """The one that changed the record sends."""
    trackers = [Tracker(database_url) for _ in range(3)]
    brokers = [attached(tracker, PubSubBroker(), on_lost="requeue") for tracker in trackers]
    await enlist(trackers[0], "lost", ago=100)
    await write(trackers[0], *(started(trackers[0], str(one), "lost") for one in range(50)))
    counts = await asyncio.gather(*(tracker.rescue_lost() for tracker in trackers))
    sent = [broker.formatter.loads(one).task_id for broker in brokers for one in broker.sent]
    for tracker in trackers:
        await tracker.shutdown()

    assert 50 == sum(counts)
    assert sorted(map(str, range(50))) == sorted(sent)


async def test_a_rescuer_that_was_killed_is_rescued(database_url: str) -> None:
    """What it had handed back, and may not have sent, is sent by the next one; not at once."""
    async with Tracker(database_url) as tracker:
        broker = attached(tracker, PubSubBroker(), on_lost="requeue")
        await enlist(tracker, "lost", ago=100)
        for task_id, age in (("old", 40), ("fresh", 1)):
            start = started(tracker, task_id, "lost")
            at = tracker.clock.now() - age * 1_000_000
            report = ended(start, TaskStatus.PENDING, at)
            report.witness, report.error_class = Witness.HANDED_BACK, "lost"
            report.error, report.error_type = "it is being sent again", UNSENT
            await write(tracker, start, report)
        first = await rescue(tracker.core())
        again = await rescue(tracker.core())
        found = await tracker.get("old")

    assert (1, True) == (first.count, first.is_left)
    assert 0 == again.count
    assert ["old"] == [broker.formatter.loads(one).task_id for one in broker.sent]
    assert ("PENDING", "its worker lost was lost; it was sent again") == (found.status, found.error)
    assert None is found.error_type


async def test_a_verdict_on_its_wait_hides_nothing_that_is_to_be_sent_again(
    database_url: str,
) -> None:
    """It was begun after all, and its worker was lost; the rescuer was killed before it sent."""
    async with Tracker(database_url) as tracker:
        broker = attached(tracker, PubSubBroker(), on_lost="requeue")
        await enlist(tracker, "lost", ago=100)
        start, now = started(tracker, "a", "lost"), tracker.clock.now()

        def verdict(history: History) -> list[Report]:
            report = presume(history, now=now - 90_000_000, error="presumed", error_class="timeout")
            return [] if report is None else [report]

        await write(tracker, queued(tracker, "a", "shop.pay"))
        await tracker.core().repository.revise(["a"], verdict)
        before = await tracker.get("a")
        note = ended(start, TaskStatus.PENDING, now - 40_000_000)
        note.witness, note.error_class, note.error_type = Witness.HANDED_BACK, "lost", UNSENT
        await write(tracker, start, note)
        left = await registry_of(tracker).unsent(UNSENT, limit=10)
        count = await tracker.rescue_lost()
        after = await tracker.get("a")

    assert ("FAILURE", True, "timeout") == shown(before)
    assert ["a"] == [one.task_id for one in left]
    assert (1, 1) == (count, len(broker.sent))
    assert ("PENDING", False, "lost") == shown(after)


@pytest.mark.parametrize(
    ("broker", "labels", "origin", "why"),
    [
        (QuietBroker(), {"on_lost": "requeue"}, {}, "QuietBroker may redeliver it by itself"),
        (PubSubBroker(), {"on_lost": "requeue"}, {"exact": False}, "arguments were redacted"),
        (PubSubBroker(), {"on_lost": "again"}, {}, "'fail' or 'requeue', not 'again'"),
    ],
)
async def test_what_must_not_be_sent_again_has_failed(
    sqlite_url: str, caplog, broker: Any, labels: dict[str, Any], origin: dict[str, Any], why: str
) -> None:
    """It says why, once."""
    async with Tracker(sqlite_url) as tracker:
        broker = attached(tracker, type(broker)(), **labels)
        await enlist(tracker, "lost", ago=100)
        await write(tracker, *(started(tracker, str(one), "lost", **origin) for one in range(3)))
        with caplog.at_level(logging.WARNING):
            count = await tracker.rescue_lost()
        found = await tracker.get("1")

    assert (3, []) == (count, broker.sent)
    assert ("FAILURE", True, "lost") == shown(found)
    assert 1 == caplog.text.count(why)


async def test_a_mistyped_label_is_told_when_the_worker_starts(sqlite_url: str, caplog) -> None:
    """Not when a worker was lost, and nothing was sent again."""
    tracker = Tracker(sqlite_url)
    broker = serving(tracker)

    @broker.task("shop.typo", on_lost="requeu")
    async def typo() -> None: ...

    await broker.startup()
    await broker.shutdown()

    assert "on_lost of shop.typo is 'fail' or 'requeue', not 'requeu'" in caplog.text


async def test_what_takes_its_workers_with_it_is_not_sent_for_ever(database_url: str) -> None:
    """A task that runs out of memory: five workers are lost, not all that there are."""
    async with Tracker(database_url) as tracker:
        broker = attached(tracker, PubSubBroker(), on_lost="requeue", max_retries=1)
        statuses = []
        for number in range(7):
            worker = f"worker{number}"
            await enlist(tracker, worker, ago=100)
            start = started(tracker, "a", worker)
            start.run_id, start.requeues = str(number), number
            start.started_at = tracker.clock.now()
            if number <= len(broker.sent):
                await write(tracker, start)
            await tracker.rescue_lost()
            statuses.append((await tracker.get("a")).status)
        found = await tracker.get("a")
        attempts = await tracker.attempts("a")

    assert ["PENDING"] * 4 + ["FAILURE"] * 3 == statuses
    assert (4, 5) == (len(broker.sent), len(attempts))
    assert ("FAILURE", True, "lost") == shown(found)
    assert (
        "its worker worker4 was lost; it was not sent again: "
        "5 workers that ran it were lost" == found.error
    )


async def test_what_cannot_be_sent_has_failed(sqlite_url: str, caplog) -> None:
    """A queue that is away."""

    class PubSubSentinelBroker(QuietBroker):
        async def kick(self, message: Any) -> None:
            raise OSError(f"no queue for {message.task_id}")

    async with Tracker(sqlite_url) as tracker:
        attached(tracker, PubSubSentinelBroker(), on_lost="requeue")
        await enlist(tracker, "lost", ago=100)
        await write(tracker, started(tracker, "a", "lost"))
        await tracker.rescue_lost()
        found = await tracker.get("a")

    assert ("FAILURE", True, "lost") == shown(found)
    assert "could not be sent again" in (found.error or "")


async def test_who_knows_the_task_decides(database_url: str) -> None:
    """A process of another project leaves it to one that knows the label; for a minute."""
    stranger, own = Tracker(database_url), Tracker(database_url)
    broker = attached(own, PubSubBroker(), on_lost="requeue")
    await enlist(own, "lost", ago=20)
    await enlist(own, "knows", tasks={"shop.pay": True})
    await write(own, started(own, "a", "lost"))
    first = await rescue(stranger.core())
    second = await rescue(own.core())
    await enlist(own, "lost", ago=100)
    await write(own, started(own, "b", "lost"))
    late = await rescue(stranger.core())
    for tracker in (stranger, own):
        await tracker.shutdown()

    assert (0, True) == (first.count, first.is_left)
    assert (1, False, 1) == (second.count, second.is_left, len(broker.sent))
    assert (1, False) == (late.count, late.is_left)


# ── tasks that nobody knows ─────────────────────────────────────────────────────────────────────
def queued(tracker: Tracker, task_id: str, name: str, age: float = 100, queue: str = "crew") -> Any:
    """Give the report of a send."""
    report = started(tracker, task_id, "", name, queue=queue)
    report.origin.created_at = tracker.clock.now() - int(age * 1e6)
    report.witness, report.status, report.run_id = report.witness.SENT, TaskStatus.PENDING, ""
    report.worker = report.started_at = None
    return report


async def test_what_no_live_worker_knows_has_failed(tracker: Tracker) -> None:
    """Known tasks, new records, other queues wait on; a later run wins."""
    await enlist(tracker, "old", since=100, tasks={"shop.pay": True})
    await enlist(tracker, "new", tasks={"shop.new": True})
    await write(
        tracker,
        queued(tracker, "unknown", "shop.gone"),
        queued(tracker, "known", "shop.pay"),
        queued(tracker, "just known", "shop.new"),
        queued(tracker, "fresh", "shop.gone", age=30),
        queued(tracker, "elsewhere", "shop.gone", queue="other"),
    )
    state = Unknown()
    counts = [await judge_unknown(tracker.core(), state) for _ in range(2)]
    found = await tracker.get("unknown")
    others = [await tracker.get(one) for one in ("known", "just known", "fresh", "elsewhere")]
    run = started(tracker, "unknown", "new", "shop.gone")
    await write(tracker, run)

    assert [1, 0] == counts
    assert ("FAILURE", True, "lost") == shown(found)
    assert "no live worker knows this task" in (found.error or "")
    assert {"PENDING"} == {one.status for one in others}
    assert "STARTED" == (await tracker.get("unknown")).status


async def test_it_is_not_said_before_workers_are_there_for_a_minute(tracker: Tracker) -> None:
    """A deployment starts them one after the other."""
    await enlist(tracker, "new", since=30, tasks={"shop.pay": True})
    await enlist(tracker, "lost", ago=100, since=200)
    await write(tracker, queued(tracker, "unknown", "shop.gone"))

    assert 0 == await judge_unknown(tracker.core(), Unknown())


async def test_a_long_queue_is_read_in_turns(tracker: Tracker, monkeypatch) -> None:
    """Each look goes on where the last one stopped, and begins anew at the end."""
    monkeypatch.setattr("aiotrack.rescue.LOOK", 10)
    await enlist(tracker, "old", since=100, tasks={"shop.pay": True})
    waiting = [queued(tracker, str(one), "shop.pay", age=1000 - one) for one in range(25)]
    await write(tracker, *waiting, queued(tracker, "x", "shop.gone", age=500))
    state = Unknown()
    counts = [await judge_unknown(tracker.core(), state) for _ in range(4)]

    assert [0, 0, 1, 0] == counts


# ── when ────────────────────────────────────────────────────────────────────────────────────────
async def alone(database_url: str, **settings: Any) -> tuple[Tracker, AsyncBroker]:
    """Start a worker that beats often."""
    own = Tracker(database_url, settings={"heartbeat_seconds": 0.2} | settings)
    broker = serving(own)
    await broker.startup()
    return own, broker


async def test_a_fleet_rescues_with_its_beats(database_url: str, tracker: Tracker) -> None:
    """Soon, once, and with a record of it."""
    await enlist(tracker, "lost", ago=100, beat=0.2)
    await write(tracker, started(tracker, "a", "lost"))
    fleet = [await alone(database_url) for _ in range(3)]
    async with asyncio.timeout(10):
        found = await tracker.wait("a")
    await asyncio.sleep(1)
    for _, broker in fleet:
        await broker.shutdown()
    records = (await tracker.list(module="aiotrack")).items

    assert ("FAILURE", True, "lost") == shown(found)
    assert [(NAME, TaskStatus.SUCCESS, 1)] == [
        (one.task_name, one.status, one.result) for one in records
    ]


async def test_who_cannot_send_lets_others_have_their_turn(
    database_url: str, tracker: Tracker
) -> None:
    """Whoever beats first has the turn again and again, but for the one after it left something."""
    _, stranger = await alone(database_url)
    await asyncio.sleep(0.5)
    own = Tracker(database_url, settings={"heartbeat_seconds": 0.2})
    broker = attached(own, PubSubBroker(), on_lost="requeue")
    broker.is_worker_process = True
    await broker.startup()
    await asyncio.sleep(1)  # both are known, and have beaten for a while
    await write(tracker, started(tracker, "a", "lost"))
    await enlist(tracker, "lost", ago=20, beat=0.2)
    async with asyncio.timeout(40):
        while not broker.sent:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await tracker.flush()
    for one in (stranger, broker):
        await one.shutdown()
    found = await tracker.get("a")

    assert ("PENDING", "lost") == (found.status, found.error_class)
    assert 1 == len(broker.sent)


async def test_a_rescue_that_fails_harms_nobody(sqlite_url: str, monkeypatch, caplog) -> None:
    """It is told once, and the worker beats on."""

    async def fail(*_: Any, **__: Any) -> None:
        raise LookupError("a fault of ours")

    monkeypatch.setattr("aiotrack.rescue.rescue", fail)
    own, broker = await alone(sqlite_url)
    await asyncio.sleep(1.5)
    found = await own.workers()
    await broker.shutdown()

    assert ["alive"] == [one.status for one in found]
    assert 1 == caplog.text.count("rescue of lost workers failed")


async def test_switched_off_workers_leave_it(database_url: str, tracker: Tracker) -> None:
    """The verb acts all the same."""
    await enlist(tracker, "lost", ago=100, beat=0.2)
    await write(tracker, started(tracker, "a", "lost"))
    _, broker = await alone(database_url, rescue_lost_enabled=False)
    await asyncio.sleep(1.5)
    before = await tracker.get("a")
    await broker.shutdown()

    assert TaskStatus.STARTED == before.status
    assert 1 == await tracker.rescue_lost()


async def test_the_sweep_can_be_sent_by_hand(sqlite_url: str) -> None:
    """And a scheduled one that finds nothing leaves no record."""
    from taskiq import InMemoryBroker

    from aiotrack import TrackerMiddleware

    tracker = Tracker(sqlite_url)
    broker = InMemoryBroker(await_inplace=True)
    broker.add_middlewares(TrackerMiddleware(tracker))
    await broker.startup()
    task = broker.find_task(NAME)
    assert task is not None
    await enlist(tracker, "lost", ago=100)
    await write(tracker, started(tracker, "a", "lost"))
    unproven = await (await task.kiq(scheduled=True)).wait_result()
    by_hand = await (await task.kiq()).wait_result()
    records = (await tracker.list(module="aiotrack")).items
    await broker.shutdown()

    assert (None, 1) == (unproven.return_value, by_hand.return_value)
    assert [1] == [one.result for one in records]
    assert json.dumps(task.labels)
