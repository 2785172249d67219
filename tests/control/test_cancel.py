"""Cancel on both databases: what waits, runs, is over; locks, retries, blocks, threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from sqlalchemy import delete, insert
from taskiq import (
    InMemoryBroker,
    SimpleRetryMiddleware,
    SmartRetryMiddleware,
    TaskiqDepends,
    TaskiqMessage,
)

from aiotrack import (
    CancelOutcome,
    ExecutionNotFound,
    InvalidQuery,
    TaskCancelled,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
    by_hand,
    current_execution,
    prevent_duplicate_task,
    raise_if_cancelled,
    task_lock,
)
from aiotrack.current import Run
from aiotrack.report import Report, Witness
from aiotrack.repository.control.tables import WorkerRow
from aiotrack.tracker import Cancellation
from aiotrack.verdicts import presume

REVOKED, CANCELLING = CancelOutcome.REVOKED, CancelOutcome.CANCELLING
FINISHED, RUNS_ON = CancelOutcome.FINISHED, CancelOutcome.NOT_INTERRUPTIBLE


class Shop:
    """A broker in this process, and what its bodies tell."""

    def __init__(self, tracker: Tracker, *others: Any, is_last: bool = False) -> None:
        self.tracker = tracker
        self.broker = InMemoryBroker()
        ours = TrackerMiddleware(tracker)
        self.broker.add_middlewares(*([*others, ours] if is_last else [ours, *others]))
        self.begun = asyncio.Event()
        self.told: list[str] = []

        @self.broker.task("shop.sleep")
        async def sleep() -> str:
            self.begun.set()
            try:
                await asyncio.sleep(30)
            finally:
                self.told.append("left")
                await asyncio.sleep(0)
                self.told.append("cleaned up")
            return "slept"

        @self.broker.task("shop.fail", retry_on_error=True)
        async def fail() -> None:
            self.begun.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                raise ValueError("own error") from None

    async def start(self, name: str) -> Any:
        """Send a task, and wait until its body runs."""
        self.begun.clear()
        task = self.broker.find_task(name)
        assert task is not None
        sent = await task.kiq()
        async with asyncio.timeout(5):
            await self.begun.wait()
        return sent


@pytest.fixture
async def shop(tracker: Tracker) -> AsyncIterator[Shop]:
    """A shop on each database."""
    shop = Shop(tracker)
    await shop.broker.startup()
    yield shop
    await shop.broker.shutdown()


async def waiting(tracker: Tracker, task_id: str = "a", **facts: Any) -> str:
    """Make a record of work that waits."""
    await tracker.register(task_id, "shop.sleep", **facts)
    return task_id


async def deliver(broker: InMemoryBroker, task_id: str, name: str, **labels: Any) -> None:
    """Give a message to the worker, as a broker does."""
    message = TaskiqMessage(
        task_id=task_id, task_name=name, labels=labels, args=[], kwargs={}, labels_types={}
    )
    await broker.receiver.callback(broker.formatter.dumps(message).message)


# ── what waits, what is over ────────────────────────────────────────────────────────────────────
async def test_what_waits_is_revoked_and_never_runs(shop: Shop) -> None:
    """At once; its message is refused, however often it comes."""
    tracker, task_id = shop.tracker, await waiting(shop.tracker)

    outcome = await tracker.cancel(task_id, reason="wrong file", by=7)
    before = await tracker.get(task_id)
    for _ in range(2):
        await deliver(shop.broker, task_id, "shop.sleep")
    after = await tracker.get(task_id)

    assert REVOKED is outcome
    for one in (before, after):
        assert TaskStatus.REVOKED is one.status
        assert ("wrong file", "7", None) == (one.cancel_reason, one.cancelled_by, one.started_at)
    assert [] == await tracker.attempts(task_id)
    assert [] == shop.told


async def test_what_waits_for_a_retry_is_dropped(shop: Shop) -> None:
    """Its next attempt is refused, too."""
    tracker, task_id = shop.tracker, await waiting(shop.tracker, status="STARTED")
    await tracker.update(task_id, "retry", error="first")

    assert REVOKED is await tracker.cancel(task_id)
    await deliver(shop.broker, task_id, "shop.sleep", _retries=1)
    found = await tracker.get(task_id)

    assert (TaskStatus.REVOKED, 2) == (found.status, found.attempt)
    assert ["first"] == [one.error for one in await tracker.attempts(task_id)]
    assert [] == shop.told


@pytest.mark.parametrize("status", ["success", "failure", "revoked"])
async def test_what_is_over_stays_as_it_is(tracker: Tracker, status: str) -> None:
    """Nothing changes, also not for a redelivery that may come."""
    task_id = await waiting(tracker, status=status)
    before = await tracker.get(task_id)

    assert FINISHED is await tracker.cancel(task_id, reason="late")
    assert before == await tracker.get(task_id)
    assert [] == await rows(tracker)


async def test_cancelling_twice_keeps_the_first_reason(tracker: Tracker) -> None:
    """The second finds it finished."""
    task_id = await waiting(tracker)

    outcomes = [await tracker.cancel(task_id, reason=word) for word in ("one", "two")]

    assert [REVOKED, FINISHED] == outcomes
    assert "one" == (await tracker.get(task_id)).cancel_reason


async def test_what_ended_between_the_look_and_the_lock(tracker: Tracker) -> None:
    """Is finished, and the wish is taken back."""
    from aiotrack.cancellation.asking import ask

    done = await waiting(tracker, status="success")
    open_ = await waiting(tracker, "b")

    found = await ask(tracker, tracker.core(), [done, open_, "unknown"], reason=None, by=None)

    assert {done: FINISHED, open_: REVOKED} == found
    assert [open_] == await rows(tracker)


async def test_unknown_ids_are_refused(tracker: Tracker) -> None:
    """By name, and nothing is stored."""
    with pytest.raises(ExecutionNotFound, match="nobody"):
        await tracker.cancel("nobody")
    assert [] == await rows(tracker)


async def test_what_runs_by_hand_is_not_ours_to_end(tracker: Tracker) -> None:
    """Whoever reports it says how it ended."""
    task_id = await waiting(tracker, status="started")

    assert RUNS_ON is await tracker.cancel(task_id)
    assert TaskStatus.SUCCESS is (await tracker.update(task_id, "success")).status


async def test_odd_ids_and_secrets(tracker: Tracker) -> None:
    """Ids are found as they are stored; a token in a reason is masked."""
    task_id = "odd %s \x00 \udc00 " + "x" * 300
    await waiting(tracker, task_id)

    assert REVOKED is await tracker.cancel(task_id, reason="password=hunter2 \x00", by="me\x00")
    assert "hunter2" not in str((await tracker.get(task_id)).cancel_reason)


async def rows(tracker: Tracker) -> list[str]:
    """Give the wishes that are stored."""
    from aiotrack.repository.control.cancels import Cancels

    return [wish.task_id for wish in await Cancels(tracker.core().repository).newest(100)]


async def test_presumed_verdicts_are_no_end(shop: Shop) -> None:
    """What a sweep gave up may still run, or wait: a cancel ends it."""
    tracker = shop.tracker
    sent = await shop.start("shop.sleep")
    ids = [await waiting(tracker), sent.task_id]
    assert TaskStatus.STARTED is (await tracker.get(sent.task_id)).status
    await tracker.core().repository.revise(
        ids,
        lambda history: [
            report
            for report in [
                presume(history, now=tracker.clock.now(), error="lost", error_class="lost")
            ]
            if report is not None
        ],
    )
    before = [(await tracker.get(one)).status for one in ids]

    outcomes = [await tracker.cancel(one, by="ada") for one in ids]
    await sent.wait_result(timeout=30)
    found = [await tracker.get(one) for one in ids]

    assert [TaskStatus.FAILURE] * 2 == before
    assert [REVOKED, CANCELLING] == outcomes
    assert [(TaskStatus.REVOKED, False, "ada")] * 2 == [
        (one.status, one.presumed, one.cancelled_by) for one in found
    ]


async def test_a_presumed_end_says_who_cancelled_it_and_why(tracker: Tracker) -> None:
    """No run may be left that could; the first reason stays, and a later word is taken."""
    await tracker.register("x", "ops.backup", status="started")
    await tracker.mark_timed_out(timeout_minutes=0)
    outcomes = [
        await tracker.cancel("x", reason="why", by="me"),
        await tracker.cancel("x", reason="other", by="you"),
    ]
    found = await tracker.get("x")
    tries = await tracker.attempts("x")
    ended = await tracker.update("x", "success")

    assert [RUNS_ON] * 2 == outcomes
    assert (TaskStatus.FAILURE, True) == (found.status, found.presumed)
    assert ("why", "me", "timeout") == (found.cancel_reason, found.cancelled_by, found.error_class)
    assert [(TaskStatus.FAILURE, found.error)] == [(one.status, one.error) for one in tries]
    assert (TaskStatus.SUCCESS, False) == (ended.status, ended.presumed)


async def test_what_a_worker_knows_of_its_tasks(tracker: Tracker) -> None:
    """Its own word on whether a body can be interrupted comes before ours."""
    repository = tracker.core().repository
    for number, (name, is_async) in enumerate([("shop.one", True), ("shop.two", False)]):
        await tracker.register(f"w{number}", name)
        origin = by_hand.origin_of(
            *(tracker, f"w{number}", name),
            module=None,
            args=(),
            kwargs={},
            created_by=None,
            metadata={},
        )
        started = Report(origin, Witness.STARTED, TaskStatus.STARTED, f"run{number}")
        started.worker, started.started_at = "host:1:a", tracker.clock.now()
        await repository.write([started])
        told = {name: is_async, "shop.other": not is_async}
        async with repository.engine.begin() as connection:
            await connection.execute(delete(WorkerRow))
            await connection.execute(insert(WorkerRow).values(**worker(told)))
        expected = CANCELLING if is_async else RUNS_ON

        assert expected is await tracker.cancel(f"w{number}")


def worker(tasks: dict[str, bool]) -> dict[str, Any]:
    """Give the row of a worker that knows these tasks."""
    now = datetime.now(UTC)
    return {
        "id": "host:1:a",
        "host": "host",
        "pid": 1,
        "started_at": now,
        "beat_at": now,
        "beat_seconds": 5.0,
        "queues": [],
        "tasks": tasks,
        "versions": {},
        "running": [],
    }


# ── what runs ───────────────────────────────────────────────────────────────────────────────────
async def test_a_body_is_cancelled_and_cleans_up(shop: Shop) -> None:
    """With awaits; the record says who and why, and the client hears of it."""
    sent = await shop.start("shop.sleep")

    outcome = await shop.tracker.cancel(sent.task_id, reason="enough", by="ada")
    result = await sent.wait_result(timeout=30)
    found = await shop.tracker.get(sent.task_id)

    assert CANCELLING is outcome
    assert ["left", "cleaned up"] == shop.told
    assert isinstance(result.error, TaskCancelled)
    assert (TaskStatus.REVOKED, "enough", "ada", 1) == (
        *(found.status, found.cancel_reason, found.cancelled_by, found.runs),
    )
    assert found.started_at is not None
    assert "cancelled" not in (found.error_class or "")


async def test_a_body_that_swallows_it_succeeds(shop: Shop) -> None:
    """And the record shows that somebody asked."""

    @shop.broker.task("shop.stubborn")
    async def stubborn() -> str:
        shop.begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            async with asyncio.TaskGroup() as group:  # its count of cancellations is none of ours
                group.create_task(asyncio.sleep(0))
        run = current_execution()
        assert run is not None
        return f"cancelled {run.cancelled}"

    sent = await shop.start("shop.stubborn")
    await shop.tracker.cancel(sent.task_id, reason="please")
    result = await sent.wait_result(timeout=30)
    found = await shop.tracker.get(sent.task_id)

    assert "cancelled True" == result.return_value
    assert (TaskStatus.SUCCESS, "please") == (found.status, found.cancel_reason)


async def test_a_sync_body_runs_on_until_it_looks(shop: Shop) -> None:
    """`raise_if_cancelled` ends it; the record is REVOKED."""
    go, begun = threading.Event(), threading.Event()

    @shop.broker.task("shop.sync")
    def sync() -> None:
        raise_if_cancelled()
        begun.set()
        go.wait(5)
        raise_if_cancelled()
        shop.told.append("ran on")

    sent = await sync.kiq()
    await asyncio.to_thread(begun.wait, 5)
    outcome = await shop.tracker.cancel(sent.task_id, by="ada")
    go.set()
    result = await sent.wait_result(timeout=30)
    found = await shop.tracker.get(sent.task_id)

    assert RUNS_ON is outcome
    assert isinstance(result.error, TaskCancelled)
    assert (TaskStatus.REVOKED, "ada") == (found.status, found.cancelled_by)
    assert [] == shop.told


async def test_a_body_may_cancel_itself_and_look_in_children(shop: Shop) -> None:
    """Also as a group of errors, out of a task group."""

    @shop.broker.task("shop.itself")
    async def itself() -> None:
        run = current_execution()
        assert run is not None
        await asyncio.create_task(shop.tracker.cancel(run.task_id))
        await asyncio.sleep(5)

    @shop.broker.task("shop.children")
    async def children() -> None:
        shop.begun.set()

        async def child() -> None:
            while True:
                raise_if_cancelled()
                with pytest.MonkeyPatch.context():
                    await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    one = await itself.kiq()
    two = await shop.start("shop.children")
    await shop.tracker.cancel(two.task_id)
    for sent in (one, two):
        assert isinstance((await sent.wait_result(timeout=30)).error, TaskCancelled)
        assert TaskStatus.REVOKED is (await shop.tracker.get(sent.task_id)).status


async def test_another_tasks_cancellation_is_no_own_one(shop: Shop) -> None:
    """Who waits for a cancelled task fails, and is not cancelled."""
    other = await shop.start("shop.sleep")

    @shop.broker.task("shop.waits")
    async def waits() -> None:
        shop.begun.set()
        (await other.wait_result(timeout=30)).raise_for_error()

    sent = await shop.start("shop.waits")
    await shop.tracker.cancel(other.task_id)
    await sent.wait_result(timeout=30)
    found = await shop.tracker.get(sent.task_id)

    assert (TaskStatus.FAILURE, None) == (found.status, found.cancelled_by)
    assert "TaskCancelled" in str(found.error_type)


async def test_a_run_in_place_inside_another(tracker: Tracker) -> None:
    """The outer body is interrupted as soon as the inner run is over, and never within it."""
    broker = InMemoryBroker(await_inplace=True)
    broker.add_middlewares(TrackerMiddleware(tracker))
    begun, go = asyncio.Event(), asyncio.Event()

    @broker.task("shop.inner")
    async def inner() -> str:
        begun.set()
        await go.wait()
        return "inner"

    @broker.task("shop.outer")
    async def outer() -> str:
        sent = await inner.kiq()
        await asyncio.sleep(5)
        return sent.task_id

    await broker.startup()
    with_outer = asyncio.create_task(outer.kicker().with_task_id("outer").kiq())
    await begun.wait()
    outcome = await tracker.cancel("outer")
    await asyncio.sleep(0.1)
    go.set()
    await with_outer
    found = {one.task_name: one.status for one in (await tracker.list()).items}
    await broker.shutdown()

    assert CANCELLING is outcome
    assert {"shop.inner": TaskStatus.SUCCESS, "shop.outer": TaskStatus.REVOKED} == found


async def test_the_run_is_a_dependency(shop: Shop) -> None:
    """TaskIQ hands the run to the body."""

    @shop.broker.task("shop.asks")
    async def asks(run: Annotated[Run, TaskiqDepends(current_execution)]) -> list[Any]:
        return [run.task_id, run.attempt, run.cancelled]

    sent = await asks.kiq()

    assert [sent.task_id, 1, False] == (await sent.wait_result(timeout=30)).return_value


# ── retries, locks ──────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("kind", [SimpleRetryMiddleware, SmartRetryMiddleware])
@pytest.mark.parametrize("name", ["shop.sleep", "shop.fail"])
async def test_a_cancelled_execution_is_never_retried(
    database_url: str, kind: type, is_last: bool, name: str
) -> None:
    """Not when it ends by the cancel, and not when it fails in its own way."""
    async with Tracker(database_url) as tracker:
        shop = Shop(tracker, kind(default_retry_label=True), is_last=is_last)
        await shop.broker.startup()
        sent = await shop.start(name)
        await tracker.cancel(sent.task_id, reason="no more")
        result = await sent.wait_result(timeout=30)
        await asyncio.sleep(0.1)
        found = await tracker.get(sent.task_id)
        await shop.broker.shutdown()

        expected = TaskStatus.FAILURE if name == "shop.fail" else TaskStatus.REVOKED
        error = ValueError if name == "shop.fail" else TaskCancelled
        assert (expected, 1, 1) == (found.status, found.attempt, found.runs)
        assert isinstance(result.error, error)


async def test_a_retry_that_overtakes_its_cancel_is_dropped(database_url: str) -> None:
    """The worker hears of it only when the retry was sent: the record does not wait for it."""
    async with Tracker(database_url) as tracker, Tracker(database_url) as other:
        shop = Shop(tracker)
        await shop.broker.startup()
        sent = await shop.start("shop.sleep")
        await tracker.feature(Cancellation).close(for_good=False)  # it hears nothing for now
        run = next(iter(tracker.recorder().running))
        assert isinstance(run, Run)
        assert TaskStatus.STARTED is (await tracker.get(sent.task_id)).status  # so it is told
        assert CANCELLING is await other.cancel(sent.task_id, reason="late")
        run.resent = True  # as when a retry middleware sends it again
        assert run.body is not None
        run.body.cancel()
        await sent.wait_result(timeout=30)
        tracker.feature(Cancellation).listen()
        execution = await tracker.wait(sent.task_id, timeout=5)
        await shop.broker.shutdown()

        assert (TaskStatus.REVOKED, 2, "late") == (
            *(execution.status, execution.attempt, execution.cancel_reason),
        )


async def test_what_is_held_is_freed(database_url: str, redis_url: str, queue_name: str) -> None:
    """The lock of a body, and the guard around it."""
    settings = {"namespace": queue_name}
    async with Tracker(database_url, redis=redis_url, settings=settings) as tracker:
        shop = Shop(tracker)

        @shop.broker.task("shop.guarded")
        @prevent_duplicate_task("guarded")
        async def guarded() -> None:
            shop.begun.set()
            await asyncio.sleep(30)

        @shop.broker.task("shop.locked")
        async def locked() -> None:
            async with task_lock("locked"):
                shop.begun.set()
                await asyncio.sleep(30)

        await shop.broker.startup()
        for name in ("shop.guarded", "shop.locked"):
            sent = await shop.start(name)
            held = await tracker.locks.list()
            await tracker.cancel(sent.task_id)
            await sent.wait_result(timeout=30)

            assert 1 == len(held)
            assert [] == await tracker.locks.list()
            assert TaskStatus.REVOKED is (await tracker.get(sent.task_id)).status
        await shop.broker.shutdown()


# ── blocks and calls ────────────────────────────────────────────────────────────────────────────
async def test_a_block_is_cancelled_from_another_tracker(database_url: str) -> None:
    """By the poll alone, within a second; the CancelledError passes through."""
    async with Tracker(database_url) as tracker, Tracker(database_url) as other:
        begun: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def block() -> None:
            async with tracker.track("import") as run:
                begun.set_result(run.task_id)
                await asyncio.sleep(30)

        task = asyncio.create_task(block())
        task_id = await begun
        await tracker.flush()
        outcome = await other.cancel(task_id, reason="enough")
        async with asyncio.timeout(1.5):
            await asyncio.wait({task})
        found = await other.get(task_id)

        assert CANCELLING is outcome
        assert task.cancelled()
        assert (TaskStatus.REVOKED, "enough") == (found.status, found.cancel_reason)


async def test_tracked_functions(tracker: Tracker) -> None:
    """An async one is interrupted, a sync one looks by itself."""
    begun, go = threading.Event(), threading.Event()

    @tracker.tracked("calls.sync")
    def sync() -> None:
        begun.set()
        go.wait(5)
        raise_if_cancelled()

    @tracker.tracked("calls.async")
    async def wait() -> None:
        begun.set()
        await asyncio.sleep(30)

    calls = [asyncio.create_task(asyncio.to_thread(sync)), asyncio.create_task(wait())]
    await asyncio.to_thread(begun.wait, 5)
    await asyncio.sleep(0.05)
    ids = {one.task_name: one.task_id for one in (await tracker.list()).items}
    outcomes = {name: await tracker.cancel(task_id) for name, task_id in ids.items()}
    go.set()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    await tracker.flush()
    statuses = [(await tracker.get(one)).status for one in ids.values()]

    assert {"calls.sync": RUNS_ON, "calls.async": CANCELLING} == outcomes
    assert [TaskCancelled, asyncio.CancelledError] == [type(error) for error in errors]
    assert [TaskStatus.REVOKED] * 2 == statuses
    raise_if_cancelled()  # outside a run it does nothing


# ── many ────────────────────────────────────────────────────────────────────────────────────────
async def test_many_by_filter(shop: Shop) -> None:
    """Each as by itself, counted by outcome; what does not match stays."""
    tracker = shop.tracker
    for number in range(12):
        await waiting(tracker, f"a{number}", created_by="ada")
    await waiting(tracker, "over", created_by="ada", status="success")
    await waiting(tracker, "bob", created_by="bob")
    await waiting(tracker, "hand", created_by="ada", status="started")

    first = await tracker.cancel_many(created_by="ada", reason="gone", by="boss", limit=5)
    rest = await tracker.cancel_many(created_by="ada", reason="gone")
    again = await tracker.cancel_many(created_by="ada", status=["pending", "success"])
    await deliver(shop.broker, "a3", "shop.sleep")

    assert 5 == first.total()
    assert 12 == first[REVOKED] + rest[REVOKED]
    assert {FINISHED: 1} == again
    assert TaskStatus.PENDING is (await tracker.get("bob")).status
    assert "gone" == (await tracker.get("a3")).cancel_reason
    assert [] == shop.told
    for wrong in (0, 50_001, True):
        with pytest.raises(InvalidQuery):
            await tracker.cancel_many(limit=wrong)


@pytest.mark.no_cover
async def test_more_than_a_batch_at_once(tracker: Tracker) -> None:
    """In batches; one pass over the filter finds all."""
    begun = datetime.now(UTC) - timedelta(hours=3)
    await asyncio.gather(
        *(
            waiting(tracker, f"m{number}", created_at=begun + timedelta(seconds=number))
            for number in range(600)
        )
    )

    assert {REVOKED: 600} == await tracker.cancel_many(task_name="shop.sleep")
    assert 600 == (await tracker.stats()).revoked
