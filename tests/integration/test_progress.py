"""Progress from everywhere: loops, threads, other loops, and TaskIQ's own ProgressTracker."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import math
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from taskiq import AsyncResultBackend, InMemoryBroker, SimpleRetryMiddleware, TaskiqDepends
from taskiq.depends.progress_tracker import ProgressTracker, TaskProgress, TaskState
from taskiq_redis import RedisAsyncResultBackend

from aiotrack import TaskStatus, Tracker, TrackerMiddleware, by_hand, current_execution
from aiotrack.current import CURRENT, Run
from tests.integration.bench import bench

Told = ProgressTracker[Any]


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


# ── loops ───────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.no_cover
@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", ["timer", "socket"])
async def test_a_loop_of_a_million_calls_can_be_cancelled(small: Tracker, way: str) -> None:
    """The cancellation gets through with the next yield, and the last value is stored."""
    loop = asyncio.get_running_loop()
    told, due = -1, 0.0
    late: list[float] = []

    async def work(name: str) -> None:
        nonlocal told
        async with small.track("shop.loop", task_id=name):
            try:
                for number in range(1_000_000):
                    told = number
                    await small.progress(current=number, total=1_000_000, number=number)
            finally:
                late.append(loop.time() - due)

    async def obey(task: asyncio.Task[None], reader: asyncio.StreamReader) -> None:
        await reader.readline()
        task.cancel()

    for number in range(15):
        pause = 0.05 + 0.003 * number
        due = loop.time() + pause
        task = asyncio.create_task(work(str(number)))
        if way == "timer":
            loop.call_at(due, task.cancel)
            await asyncio.wait([task])
        else:
            here, there = socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=here)
            obeying = asyncio.create_task(obey(task, reader))
            timer = threading.Timer(pause, there.send, [b"\n"])
            timer.start()
            await asyncio.wait([task, obeying])
            timer.join()
            writer.close()
            there.close()
        record = await small.get(str(number))

        assert task.cancelled()
        assert "cancelled" == record.error_class
        assert told == record.metadata["number"]
        assert told * 100 // 1_000_000 == record.metadata["progress_percent"]

    assert 0.1 > statistics.median(late), "10 ms, and what a busy machine adds; all takes a second"


@pytest.mark.no_cover
@pytest.mark.timeout(60)
async def test_a_million_calls_write_a_few_rows(small: Tracker) -> None:
    """Five a second, whatever the loop does, and the last of them."""
    async with small.track("shop.loop") as run:
        before = small.recorder().counters["reports"]
        begun = time.monotonic()
        for number in range(1_000_000):
            await small.progress(number % 100, "busy", number=number)
        took = time.monotonic() - begun
        reports = small.recorder().counters["reports"] - before
    record = await small.get(run.task_id)

    assert {
        "progress_percent": 99,
        "progress_message": "busy",
        "number": 999_999,
    } == record.metadata
    assert 3 + took / 0.2 >= reports


# ── threads and other loops ─────────────────────────────────────────────────────────────────────
async def test_threads_tell_the_progress_of_the_run_they_belong_to(tracker: Tracker) -> None:
    """Threads that a task starts itself, with a copied context; nonsense from there is counted."""
    async with tracker.track("shop.threads") as run:

        def work(name: str) -> None:
            for number in range(2_000):
                tracker.progress_sync(current=number, total=1_999, **{name: number})
            tracker.progress_sync("nonsense")  # type: ignore[arg-type]

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(work, name))
            for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        foreign = threading.Thread(target=tracker.progress_sync, args=(1,))  # of no run
        foreign.start()
        foreign.join()
    record = await tracker.get(run.task_id)

    assert dict.fromkeys("abcd", 1_999) | {"progress_percent": 100} == record.metadata
    assert 4 == tracker.recorder().counters["nonsense"]


@pytest.mark.parametrize(
    "told",
    [
        {"percent": math.nan},
        *({"current": 1, "total": total} for total in (0, -3, math.inf, -math.inf, math.nan)),
        *({"current": current, "total": 3} for current in (math.inf, -math.inf, math.nan)),
    ],
)
async def test_a_share_that_cannot_be_is_ignored_and_counted(
    small: Tracker, told: dict[str, float]
) -> None:
    """It does not look like all or nothing; the last true one stays."""
    async with small.track("shop.rows") as run:
        await small.progress(7)
        await small.progress(message="m", **told)
    record = await small.get(run.task_id)

    assert {"progress_percent": 7, "progress_message": "m"} == record.metadata
    assert 1 == small.recorder().counters["nonsense"]


async def test_another_threads_loop_tells_the_progress_of_a_run(tracker: Tracker) -> None:
    """A coroutine of another loop, in the run's context: its word goes the run's way."""

    async def elsewhere() -> None:
        for number in range(1_000):
            await tracker.progress(number, elsewhere=number)

    async with tracker.track("shop.loops") as run:
        context = contextvars.copy_context()
        await asyncio.to_thread(context.run, asyncio.run, elsewhere())
    record = await tracker.get(run.task_id)

    assert {"progress_percent": 100, "elsewhere": 999} == record.metadata


async def test_a_thread_cannot_tell_of_another_execution(tracker: Tracker) -> None:
    """As metadata of its own run the id would be read as said of the other."""
    async with tracker.track("shop.threads") as run:
        with pytest.raises(TypeError, match="await progress"):
            await asyncio.to_thread(tracker.progress_sync, 10, task_id="other")
    record = await tracker.get(run.task_id)

    assert {} == record.metadata


async def test_progress_after_the_end_changes_nothing(tracker: Tracker) -> None:
    """Neither a task nor a thread that outlives its run writes over its record."""
    over = asyncio.Event()
    over_there = threading.Event()

    async def late() -> None:
        await over.wait()
        await tracker.progress(1)

    def late_there() -> None:
        over_there.wait()
        tracker.progress_sync(2)

    async with tracker.track("shop.late") as run:
        await tracker.progress(100)
        task = asyncio.create_task(late())
        thread = asyncio.create_task(asyncio.to_thread(late_there))
        await asyncio.sleep(0)
    over.set()
    over_there.set()
    await asyncio.gather(task, thread)
    await tracker.flush()
    record = await tracker.get(run.task_id)

    assert {"progress_percent": 100} == record.metadata


async def test_a_thread_may_outlive_the_loop(sqlite_url: str) -> None:
    """Progress from a thread whose loop has ended is no error."""
    tracker = Tracker(sqlite_url)
    may_go_on = threading.Event()
    faults: list[BaseException] = []

    def work() -> None:
        may_go_on.wait()
        try:
            tracker.progress_sync(50)
        except BaseException as error:
            faults.append(error)

    async def first() -> threading.Thread:
        async with tracker:
            run = by_hand.begin(
                tracker, "x", module=None, args=(), kwargs={}, created_by=None, metadata={}
            )
            token = CURRENT.set(run)
            thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
            thread.start()
            CURRENT.reset(token)
            return thread

    thread = await asyncio.to_thread(asyncio.run, first())
    may_go_on.set()
    await asyncio.to_thread(thread.join)

    assert [] == faults


# ── TaskIQ's ProgressTracker ────────────────────────────────────────────────────────────────────
class Model(BaseModel):
    percent: int
    rows: int


@dataclasses.dataclass
class Data:
    current: int
    total: int


META = {
    "percent": ({"percent": 40.9, "rows": 7}, {"progress_percent": 40, "rows": 7}),
    "current and total": ({"current": 1, "total": 3}, {"progress_percent": 33}),
    "both": (
        {"percent": 5, "current": 1, "total": 3},
        {"progress_percent": 5, "current": 1, "total": 3},
    ),
    "percent and current": (
        {"percent": 5, "current": 1},
        {"progress_percent": 5, "current": 1},
    ),
    "current alone": ({"current": 5}, {"current": 5}),
    "long names": (
        {"progress_percent": 250, "progress_message": "m", "progress_step": "s"},
        {"progress_percent": 100, "progress_message": "m", "progress_step": "s"},
    ),
    "short names": ({"message": "m", "step": "s"}, {"progress_message": "m", "progress_step": "s"}),
    "nonsense": ({"percent": "half", 7: [1]}, {"7": [1]}),
    "a model": (Model(percent=4, rows=2), {"progress_percent": 4, "rows": 2}),
    "a dataclass": (Data(2, 4), {"progress_percent": 50}),
    "a text": ("half way", {"progress_meta": "half way"}),
    "a secret": ({"token": "abc"}, {"token": "[redacted]"}),
    "nothing": (None, {}),
}


@pytest.mark.parametrize("what", META)
async def test_what_taskiqs_tracker_tells_is_recorded(small: Tracker, what: str) -> None:
    """Its meta like the keywords of `progress`; the backend has what it would have had."""
    meta, expected = META[what]
    async with bench(small) as b:

        @b.task("shop.rows")
        async def rows(progress: Told = TaskiqDepends()) -> None:
            await progress.set_progress(TaskState.STARTED, meta)

        record = await b.run(rows)
        kept = await b.broker.result_backend.get_progress(record.task_id)

    assert (TaskStatus.SUCCESS, None) == (record.status, record.error)
    if what != "a secret":
        assert expected == record.metadata
    else:
        assert "abc" not in str(record.metadata)
    assert kept is not None
    assert (TaskState.STARTED, meta) == (kept.state, kept.meta)


async def test_a_state_of_ones_own_is_the_step(tracker: Tracker) -> None:
    """TaskIQ's own words are left out; what the meta calls a step comes first."""
    seen: list[dict[str, Any]] = []
    async with bench(tracker) as b:

        @b.task("shop.rows")
        async def rows(progress: Told = TaskiqDepends()) -> None:
            run = current_execution()
            assert run is not None
            for state, meta in (
                ("copying", {"percent": 1}),
                ("SUCCESS", {"percent": 2}),
                ("writing", {"step": "second"}),
            ):
                await progress.set_progress(state, meta)
                seen.append((await tracker.get(run.task_id)).metadata)
            await tracker.progress(message="both ways")

        record = await b.run(rows)

    assert {"progress_percent": 1, "progress_step": "copying"} == seen[0]
    assert {
        "progress_percent": 2,
        "progress_step": "second",
        "progress_message": "both ways",
    } == record.metadata


@pytest.mark.parametrize("place", ["before", "after"])
async def test_redis_gets_what_it_got_before(
    tracker: Tracker, redis_url: str, queue_name: str, place: str
) -> None:
    """The same with a tracker as without; in every order of middlewares."""
    told: list[tuple[list[str], bytes | None]] = []
    for is_tracked in (True, False):
        backend: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(
            redis_url, prefix_str=f"{queue_name}-{is_tracked}", result_ex_time=60
        )
        broker = InMemoryBroker().with_result_backend(backend)
        ours = [TrackerMiddleware(tracker)] if is_tracked else []
        other = SimpleRetryMiddleware()
        broker.add_middlewares(*([*ours, other] if place == "before" else [other, *ours]))

        @broker.task("shop.rows")
        async def rows(progress: Told = TaskiqDepends()) -> None:
            await progress.set_progress("copying", {"percent": 7})
            await progress.set_progress("writing")  # with the meta of before

        await broker.startup()
        task = await rows.kiq()
        await task.wait_result(timeout=30)
        kept = await backend.get_progress(task.task_id)
        told.append(kept)
        if is_tracked:
            record = await tracker.get(task.task_id)
        await backend.shutdown()

    assert told[0] == told[1] == TaskProgress(state="writing", meta={"percent": 7})
    assert {"progress_percent": 7, "progress_step": "writing"} == record.metadata


class Slotted(AsyncResultBackend[Any]):
    """A backend whose progress cannot be kept, and that takes no attribute."""

    __slots__ = ("given",)

    def __init__(self) -> None:
        self.given: list[Any] = []

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "set_progress":
            raise AttributeError(name)
        super().__setattr__(name, value)

    async def set_result(self, task_id: str, result: Any) -> None: ...

    async def is_result_ready(self, task_id: str) -> bool:
        return False

    async def get_result(self, task_id: str, with_logs: bool = False) -> Any: ...

    async def set_progress(self, task_id: str, progress: Any) -> None:
        self.given.append(progress)
        raise ConnectionError("away")


async def test_a_backend_that_cannot_be_listened_to_goes_on_as_before(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """A line in the log, once; the task gets the backend's own error."""
    backend = Slotted()
    broker = InMemoryBroker().with_result_backend(backend)
    broker.add_middlewares(TrackerMiddleware(small))

    @broker.task("shop.rows")
    async def rows(progress: Told = TaskiqDepends()) -> None:
        with pytest.raises(ConnectionError):
            await progress.set_progress("copying", {"percent": 7})

    await broker.startup()
    with caplog.at_level(logging.ERROR, "aiotrack"):
        for _ in range(2):
            task = await rows.kiq()
            await broker.wait_all()
    record = await small.get(task.task_id)
    await broker.shutdown()

    assert (TaskStatus.SUCCESS, {}) == (record.status, record.metadata)
    assert 2 == len(backend.given)
    assert 1 == len(caplog.records)


async def test_a_backend_that_fails_fails_its_task_and_not_the_record(small: Tracker) -> None:
    """The progress is in the record all the same, and so is the error."""
    async with bench(small) as b:

        async def refuse(task_id: str, progress: Any) -> None:
            raise ConnectionError("away")

        b.broker.result_backend.set_progress = refuse  # type: ignore[method-assign]

        @b.task("shop.rows")
        async def rows(progress: Told = TaskiqDepends()) -> None:
            await progress.set_progress("copying", {"percent": 7})

        record = await b.run(rows)

    assert (TaskStatus.FAILURE, "away") == (record.status, record.error)
    assert {"progress_percent": 7, "progress_step": "copying"} == record.metadata


async def test_untracked_tasks_and_other_ids_are_left_alone(tracker: Tracker) -> None:
    """A task with track=False, and progress told for another task: the backend's business."""
    async with bench(tracker) as b:

        @b.task("shop.untracked", track=False)
        async def untracked(progress: Told = TaskiqDepends()) -> None:
            await progress.set_progress("copying", {"percent": 7})

        @b.task("shop.other")
        async def other() -> None:
            backend = b.broker.result_backend
            await backend.set_progress("somebody", TaskProgress(state="x", meta={"percent": 1}))

        await untracked.kiq()
        record = await b.run(other)
        kept = await b.broker.result_backend.get_progress("somebody")

    assert {} == record.metadata
    assert kept is not None
    assert 1 == (await tracker.stats()).total


async def test_two_trackers_of_one_broker_both_see_it(small: Tracker, tmp_path: Any) -> None:
    """Each has it once, in its own record."""
    other = Tracker(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    async with other, bench(small, after=[TrackerMiddleware(other)]) as b:

        @b.task("shop.rows")
        async def rows(progress: Told = TaskiqDepends()) -> None:
            await progress.set_progress("copying", {"percent": 7})

        record = await b.run(rows)
        twin = await other.get(record.task_id)

    assert {"progress_percent": 7, "progress_step": "copying"} == record.metadata == twin.metadata


# ── the current execution as a dependency ───────────────────────────────────────────────────────
async def test_the_current_execution_is_a_dependency(small: Tracker) -> None:
    """As a default value and in an annotation, in async and sync tasks, in every attempt."""
    seen: list[tuple[str, int]] = []
    async with bench(small, after=[SimpleRetryMiddleware()]) as b:

        @b.task("shop.default", retry_on_error=True, max_retries=2)
        async def default(run: Run = TaskiqDepends(current_execution)) -> None:
            seen.append((run.task_id, run.attempt))
            if run.attempt == 1:
                raise ConnectionError

        @b.task("shop.annotated")
        def annotated(run: Annotated[Run, TaskiqDepends(current_execution)]) -> None:
            seen.append((run.task_id, run.attempt))

        first, second = await b.run(default), await b.run(annotated)

    assert TaskStatus.SUCCESS is first.status is second.status
    assert [(first.task_id, 1), (first.task_id, 2), (second.task_id, 1)] == seen
