"""Two trackers on one broker: each tells the same of a run, whichever of them is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from taskiq import InMemoryBroker, SimpleRetryMiddleware, TaskiqMessage, TaskiqMiddleware

from aiotrack import (
    CancelOutcome,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
    prevent_duplicate_task,
    raise_if_cancelled,
    task_lock,
)

REVOKED, RETRY, SUCCESS = TaskStatus.REVOKED, TaskStatus.RETRY, TaskStatus.SUCCESS
ASKED = pytest.mark.parametrize("asked", [(0,), (1,), (0, 1), (1, 0)], ids=str)


class Counting(TaskiqMiddleware):
    """Notes how many cancellations a run left over in TaskIQ's asyncio task."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[int] = []

    def post_execute(self, *_: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.left.append(task.cancelling())


class Pair:
    """A broker that reports to two trackers, each with a database of its own."""

    def __init__(self, *trackers: Tracker) -> None:
        self.trackers = trackers
        self.counting = Counting()
        self.broker = InMemoryBroker()
        self.broker.add_middlewares(
            *(TrackerMiddleware(one) for one in trackers),
            SimpleRetryMiddleware(no_result_on_retry=False),
            self.counting,
        )
        self.begun = asyncio.Event()
        self.go = threading.Event()
        self.told: list[str] = []

        @self.broker.task("shop.sleep", retry_on_error=True)
        async def sleep() -> None:
            self.told.append("began")
            self.begun.set()
            await asyncio.sleep(5)
            self.told.append("slept")

        @self.broker.task("shop.compute")
        def compute() -> None:
            loop.call_soon_threadsafe(self.begun.set)
            self.go.wait(5)
            raise_if_cancelled()
            self.told.append("computed")

        @self.broker.task("shop.guarded", validate_result=True)
        @prevent_duplicate_task("guarded", on_unavailable="skip")
        async def guarded() -> int:
            return 1

        @self.broker.task("shop.recover", retry_on_error=True)
        async def recover() -> None:
            self.told.append("began")
            if len(self.told) < 2:
                raise ConnectionError("away")

        loop = asyncio.get_running_loop()

    async def start(self, name: str) -> str:
        """Send a task, wait until its body runs, and give its id."""
        task = self.broker.find_task(name)
        assert task is not None
        task_id = (await task.kiq()).task_id
        async with asyncio.timeout(5):
            await self.begun.wait()
        return task_id

    async def cancel(self, task_id: str, asked: tuple[int, ...]) -> list[CancelOutcome]:
        """Cancel by these trackers at once."""
        return await asyncio.gather(*(self.trackers[one].cancel(task_id) for one in asked))

    async def statuses(self, task_id: str) -> list[list[TaskStatus]]:
        """Give the status of each attempt, as each tracker tells it, when nothing runs any more."""
        while self.broker._running_tasks:
            await asyncio.gather(*self.broker._running_tasks, return_exceptions=True)
        told = [await one.attempts(task_id) for one in self.trackers]
        return [[one.status for one in attempts] for attempts in told]


@pytest.fixture
async def pair(tracker: Tracker, tmp_path: Path) -> AsyncIterator[Pair]:
    """A broker with a tracker on each database, and one on a SQLite file of its own."""
    async with Tracker(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}") as other:
        pair = Pair(tracker, other)
        await pair.broker.startup()
        yield pair
        await pair.broker.shutdown()


@ASKED
async def test_either_interrupts_a_body(pair: Pair, asked: tuple[int, ...]) -> None:
    """Both tell that it was revoked; no retry comes, and no cancellation is left over."""
    task_id = await pair.start("shop.sleep")
    outcomes = await pair.cancel(task_id, asked)
    statuses = await pair.statuses(task_id)

    assert CancelOutcome.CANCELLING in outcomes, "who is later may find it over"
    assert [[REVOKED], [REVOKED]] == statuses
    assert ["began"] == pair.told
    assert [0] == pair.counting.left


@ASKED
async def test_either_ends_a_thread_that_asks(pair: Pair, asked: tuple[int, ...]) -> None:
    """`raise_if_cancelled` heeds the wish that any of them was told."""
    task_id = await pair.start("shop.compute")
    await pair.cancel(task_id, asked)
    pair.go.set()

    assert [[REVOKED], [REVOKED]] == await pair.statuses(task_id)
    assert [] == pair.told


@pytest.mark.parametrize("asked", [0, 1])
async def test_what_either_has_revoked_never_runs(pair: Pair, asked: int) -> None:
    """Its message is refused, and the other tells of no run that began."""
    await pair.trackers[asked].register("a", "shop.sleep")
    outcome = await pair.trackers[asked].cancel("a")
    message = TaskiqMessage(
        task_id="a", task_name="shop.sleep", labels={}, args=[], kwargs={}, labels_types={}
    )
    await pair.broker.receiver.callback(pair.broker.formatter.dumps(message).message)
    records = [await one.get("a") for one in pair.trackers]

    assert CancelOutcome.REVOKED is outcome
    assert [(REVOKED, None)] * 2 == [(one.status, one.started_at) for one in records]
    assert [] == pair.told


async def test_both_tell_a_retry_that_keeps_its_result(pair: Pair) -> None:
    """The message that is sent from inside `on_error` is each one's retry."""
    task = pair.broker.find_task("shop.recover")
    assert task is not None
    task_id = (await task.kiq()).task_id

    assert [[RETRY, SUCCESS], [RETRY, SUCCESS]] == await pair.statuses(task_id)


async def test_neither_judges_what_is_answered_for_a_skipped_body(pair: Pair) -> None:
    """It is no result of the body, and need not fit its annotation."""
    task = pair.broker.find_task("shop.guarded")
    assert task is not None
    task_id = (await task.kiq()).task_id

    assert [[SUCCESS], [SUCCESS]] == await pair.statuses(task_id)
    result = (await pair.trackers[0].get(task_id)).result
    assert {"success": False, "status": "skipped", "reason": "lock_unavailable"} == result


@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
async def test_both_tell_who_did_what_was_skipped(
    tracker: Tracker, redis_url: str, queue_name: str, tmp_path: Path, is_sync: bool
) -> None:
    """And count it: each keeps a record of its own."""
    settings = {"namespace": queue_name}
    url = f"sqlite+aiosqlite:///{tmp_path / 'other.db'}"
    async with (
        Tracker(tracker.database, redis=redis_url, settings=settings) as first,
        Tracker(url, redis=redis_url, settings=settings) as second,
        task_lock("rebuild", tracker=first),
    ):
        pair = Pair(first, second)

        @prevent_duplicate_task("rebuild")
        async def rebuild() -> None:
            pair.told.append("rebuilt")

        @prevent_duplicate_task("rebuild")
        def rebuild_here() -> None:
            pair.told.append("rebuilt")

        task = pair.broker.task("shop.rebuild")(rebuild_here if is_sync else rebuild)
        await pair.broker.startup()
        sent = await task.kiq()
        statuses = await pair.statuses(sent.task_id)
        records = [await one.get(sent.task_id) for one in pair.trackers]
        skipped = [(await one.stats()).skipped for one in pair.trackers]
        await pair.broker.shutdown()

    assert [] == pair.told
    assert [[SUCCESS], [SUCCESS]] == statuses
    assert [{"skipped_by": first.worker_id}] * 2 == [one.metadata for one in records]
    assert [1, 1] == skipped
