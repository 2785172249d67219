"""Records that are filled from result backends: what they are believed, and what they are not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from taskiq import (
    AsyncResultBackend,
    InMemoryBroker,
    NoResultError,
    SimpleRetryMiddleware,
    TaskiqResult,
)
from taskiq.serializers import JSONSerializer, PickleSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from aiotrack import (
    Cause,
    ExecutionNotFound,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
    current_execution,
    results,
)
from aiotrack.labels import RUN
from aiotrack.report import Origin, Report, Witness
from tests.integration.bench import bench
from tests.integration.proxy import proxied


class Refused(Exception):
    """An error of the user's own."""


@pytest.fixture(autouse=True)
def _nothing_complained() -> None:
    """Each test sees the first warning of its kind."""
    results._complained.clear()


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


def result(value: Any = None, error: BaseException | None = None, **labels: Any) -> Any:
    """Make what a worker gives to a result backend."""
    return TaskiqResult[Any](
        is_err=error is not None,
        return_value=value,
        execution_time=0.25,
        labels=labels,
        error=error,
    )


def run_report(task_id: str = "x", *, attempt: int = 1, run_id: str = "r1") -> Report:
    """Make what a worker tells of a start."""
    origin = Origin(task_id, "shop.rows", "shop", 1_763_000_000_000_000)
    return Report(
        *(origin, Witness.STARTED, TaskStatus.STARTED, run_id, attempt),
        worker="host:1",
        started_at=origin.created_at + 1_000_000 * attempt,
    )


def ended(run: Report, status: TaskStatus, witness: Witness = Witness.ENDED) -> Report:
    """Make what it tells of the end."""
    report = run_report(run.origin.task_id, attempt=run.attempt, run_id=run.run_id)
    assert run.started_at is not None
    report.witness, report.status = witness, status
    report.finished_at, report.duration = run.started_at + 123_456, 0.123456
    report.result = '"its own"' if status is TaskStatus.SUCCESS else None
    return report


def asked(tracker: Tracker, backend: AsyncResultBackend[Any] | None = None) -> Any:
    """Give the result backend of a broker that reports to *tracker*."""
    broker = InMemoryBroker()
    if backend is not None:
        broker = broker.with_result_backend(backend)
    broker.add_middlewares(TrackerMiddleware(tracker))
    return broker.result_backend


# ── what it is believed ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("serializer", [PickleSerializer, JSONSerializer])
async def test_a_result_in_redis_ends_the_record(
    tracker: Tracker, redis_url: str, queue_name: str, serializer: Any
) -> None:
    """Value, error, attempt and duration, by pickle and by JSON; and it may be read again."""
    backend: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(
        redis_url, prefix_str=queue_name, serializer=serializer(), result_ex_time=60
    )
    asked(tracker, backend)
    await tracker.register("good", "shop.rows")
    await tracker.register("bad", "shop.rows", status="started")
    await tracker.register("late", "shop.rows")
    before = await tracker.sync("good")
    await backend.set_result("good", result({"rows": [1, None]}))
    await backend.set_result("bad", result(error=Refused("no rows")))
    await backend.set_result("late", result(7, _retries="2"))
    good, bad, late = [await tracker.sync(one) for one in ("good", "bad", "late")]
    again = await tracker.sync("good")
    still = await backend.get_result("good")
    attempts = await tracker.attempts("late")
    await backend.shutdown()

    assert TaskStatus.PENDING is before.status
    assert (TaskStatus.SUCCESS, {"rows": [1, None]}, 0.25, 1, False) == (
        *(good.status, good.result, good.duration, good.runs, good.presumed),
    )
    assert (TaskStatus.FAILURE, "no rows", 1, None) == (
        *(bad.status, bad.error, bad.runs, bad.traceback),
    )
    assert bad.error_type is not None
    assert bad.error_type.endswith("Refused")
    assert bad.started_at is not None
    assert bad.finished_at is not None
    assert 0.25 == (bad.finished_at - bad.started_at).total_seconds()
    assert (TaskStatus.SUCCESS, 3, 7) == (late.status, late.attempt, late.result)
    assert [(3, TaskStatus.SUCCESS)] == [(one.attempt, one.status) for one in attempts]
    assert good == again
    assert {"rows": [1, None]} == still.return_value


async def test_a_worker_without_a_tracker_is_heard_by_its_results(tracker: Tracker) -> None:
    """Whoever only sends sees how it ended, by the broker's own backend."""
    worker = InMemoryBroker()
    sender = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
    sender.result_backend = worker.result_backend
    sender.kick = worker.kick  # type: ignore[method-assign]

    async def rows(count: int) -> int:
        return count

    worker.register_task(rows, "shop.rows")
    await sender.startup()
    await worker.startup()
    task = await sender.register_task(rows, "shop.rows").kiq(3)
    await task.wait_result(timeout=30)
    before = await tracker.get(task.task_id)
    record = await tracker.sync(task.task_id)
    attempts = await tracker.attempts(task.task_id)
    await worker.shutdown()
    await sender.shutdown()

    assert TaskStatus.PENDING is before.status
    assert (TaskStatus.SUCCESS, 3, [3], 1) == (
        *(record.status, record.result, record.args, record.runs),
    )
    assert [Cause.FIRST] == [one.cause for one in attempts]


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE"])
@pytest.mark.parametrize("known", ["started", "presumed", "queued"])
async def test_the_workers_own_late_word_wins(tracker: Tracker, known: str, status: str) -> None:
    """It joins the run that the result told of: one run, with all that only its worker knows."""
    backend = asked(tracker)
    run = run_report()
    if known == "queued":
        await tracker.register("x", "shop.rows")
    else:
        await tracker.recorder().commit(run)
    if known == "presumed":
        lost = ended(run, TaskStatus.FAILURE, Witness.PRESUMED)
        await tracker.recorder().commit(lost)
    before = await tracker.get("x")
    error = None if status == "SUCCESS" else Refused("no")
    await backend.set_result("x", result("relayed", error, **{RUN: "r1"}))
    synced = await tracker.sync("x")
    await tracker.recorder().commit(ended(run, TaskStatus(status)))
    record = await tracker.get("x")

    assert (known == "presumed") == before.presumed
    assert (status, 0.25, 1, False) == (
        *(synced.status, synced.duration, synced.runs, synced.presumed),
    )
    assert (None if known == "queued" else "host:1") == synced.worker
    assert (status, 0.123456, 1, 0, "host:1") == (
        *(record.status, record.duration, record.runs, record.duplicates, record.worker),
    )
    assert ("its own" if status == "SUCCESS" else None) == record.result


async def test_a_result_names_its_run(tracker: Tracker) -> None:
    """The label that a worker sets goes with the result, anew in every attempt."""
    seen: list[tuple[str, str]] = []
    async with bench(tracker, after=[SimpleRetryMiddleware(no_result_on_retry=False)]) as b:

        @b.task("shop.rows", retry_on_error=True, max_retries=2)
        async def rows() -> None:
            run = current_execution()
            assert run is not None
            seen.append(run.run_id)
            if run.attempt == 1:
                raise Refused

        record = await b.run(rows)
        told = await b.broker.result_backend.get_result(record.task_id)

    assert 2 == len(set(seen))
    assert seen[-1] == told.labels[RUN]


async def test_of_two_runs_the_result_ends_its_own(tracker: Tracker) -> None:
    """The first failed while a second one runs: the record still shows that one."""
    backend = asked(tracker)
    first, second = run_report(), run_report(run_id="r2")
    assert second.started_at is not None
    second.started_at += 5
    await tracker.recorder().commit(first)
    await tracker.recorder().commit(second)
    await backend.set_result("x", result(error=Refused("no"), **{RUN: "r1"}))
    record = await tracker.sync("x")
    told = [(one.status, one.error) for one in await tracker.attempts("x")]
    again = await tracker.sync("x")

    assert (TaskStatus.STARTED, 2, 1) == (record.status, record.runs, record.duplicates)
    assert [("FAILURE", "no"), ("STARTED", None)] == told
    assert record == again


# ── what it is not believed ─────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("status", ["success", "failure", "revoked"])
async def test_a_true_end_is_never_touched(tracker: Tracker, status: str) -> None:
    """Whatever the backend says."""
    backend = asked(tracker)
    before = await tracker.register("x", "shop.rows", status=status)
    for told in (result(5), result(error=Refused("no"))):
        await backend.set_result("x", told)

        assert before == await tracker.sync("x")


async def test_an_earlier_attempts_result_ends_nothing(tracker: Tracker) -> None:
    """The record waits for attempt 2, or runs it; the backend still has attempt 1's error."""
    backend = asked(tracker)
    first = run_report()
    await tracker.recorder().commit(ended(first, TaskStatus.RETRY, Witness.HANDED_BACK))
    waiting = await tracker.get("x")
    await backend.set_result("x", result(error=Refused("1"), **{RUN: "r1"}))
    still_waiting = await tracker.sync("x")
    await tracker.recorder().commit(run_report(attempt=2, run_id="r2"))
    running = await tracker.sync("x")
    await backend.set_result("x", result(2, _retries=1, **{RUN: "r2"}))
    done = await tracker.sync("x")

    assert waiting == still_waiting
    assert (TaskStatus.RETRY, 2) == (waiting.status, waiting.attempt)
    assert (TaskStatus.STARTED, 2) == (running.status, running.attempt)
    assert (TaskStatus.SUCCESS, 2, 2) == (done.status, done.attempt, done.runs)


async def test_no_result_is_no_outcome(small: Tracker) -> None:
    """A result that says there is none tells nothing of the end."""
    backend = asked(small)
    before = await small.register("x", "shop.rows", status="started")
    await backend.set_result("x", result(error=NoResultError()))

    assert before == await small.sync("x")


async def test_a_backend_that_keeps_nothing_is_not_believed(
    small: Tracker, redis_url: str, queue_name: str
) -> None:
    """Dummy calls every task a success; and a result that can be read once stays the user's."""
    once: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(
        redis_url, prefix_str=queue_name, keep_results=False, result_ex_time=60
    )
    asked(small, once)
    dummy = ListQueueBroker(redis_url).with_middlewares(TrackerMiddleware(small))
    await once.set_result("x", result(5))
    before = await small.register("x", "shop.rows")
    after = await small.sync("x")
    kept = await once.get_result("x")
    await once.shutdown()
    await dummy.connection_pool.disconnect()

    assert before == after
    assert 5 == kept.return_value


@pytest.mark.parametrize("by", ["label", "middleware"])
async def test_results_that_are_not_to_be_recorded_are_not(small: Tracker, by: str) -> None:
    """``record_result=False`` says so on this way, too."""
    broker = InMemoryBroker()
    broker.add_middlewares(TrackerMiddleware(small, record_result=by != "middleware"))
    labels = {"record_result": "False"} if by == "label" else {}
    await small.register("x", "shop.rows")
    await broker.result_backend.set_result("x", result("secret", **labels))
    record = await small.sync("x")

    assert (TaskStatus.SUCCESS, None) == (record.status, record.result)


@pytest.mark.parametrize(
    ("seconds", "limit", "expected"), [(0.25, "0.25", "timeout"), (0.25, "9", "transient")]
)
async def test_a_time_limit_is_told_from_a_timeout_error(
    small: Tracker, seconds: float, limit: str, expected: str | None
) -> None:
    """By how long it ran: the frames stayed with the worker."""
    backend = asked(small)
    await small.register("x", "shop.rows")
    await backend.set_result("x", result(error=TimeoutError("slow"), timeout=limit))
    record = await small.sync("x")

    assert (TaskStatus.FAILURE, expected) == (record.status, record.error_class)


# ── trouble ─────────────────────────────────────────────────────────────────────────────────────
async def test_an_unknown_id_is_an_error(small: Tracker) -> None:
    """A result alone makes no record."""
    await asked(small).set_result("x", result(5))
    with pytest.raises(ExecutionNotFound):
        await small.sync("x")


async def test_without_a_broker_the_record_is_given_as_it_is(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """And a line says why nothing could be asked."""
    before = await small.register(7, "shop.rows")
    after = await small.sync(7)

    assert before == after
    assert "no broker" in caplog.text


class Broken(AsyncResultBackend[Any]):
    """A backend that fails as it is told to."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    async def set_result(self, task_id: str, result: Any) -> None: ...

    async def is_result_ready(self, task_id: str) -> bool:
        return True

    async def get_result(self, task_id: str, with_logs: bool = False) -> Any:
        if self.error is None:
            return await asyncio.Event().wait()
        raise self.error


@pytest.mark.parametrize("error", [ConnectionError("away"), KeyError("x"), AttributeError("gone")])
async def test_a_backend_that_fails_is_logged_once(
    small: Tracker, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Unreachable, expired, not to be unpickled: the record as it is; the next backend is asked."""
    asked(small, Broken(error))
    before = await small.register("x", "shop.rows")
    with caplog.at_level(logging.WARNING, "aiotrack"):
        for _ in range(3):
            assert before == await small.sync("x")
    await asked(small).set_result("x", result(5))
    record = await small.sync("x")

    assert 1 == len(caplog.records)
    assert "Broken does not answer" in caplog.text
    assert 5 == record.result


async def test_a_backend_that_never_answers_costs_two_seconds(
    small: Tracker, redis_url: str, queue_name: str
) -> None:
    """A server that takes and does not give; afterwards the same backend answers again."""
    async with proxied(redis_url) as (proxy, url):
        backend: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(
            url, prefix_str=queue_name, result_ex_time=60, max_connection_pool_size=1
        )
        asked(small, backend)
        before = await small.register("x", "shop.rows")
        await backend.set_result("x", result(5))
        proxy.is_black_hole = True
        begun = time.monotonic()
        after = await small.sync("x")
        took = time.monotonic() - begun
        proxy.is_black_hole = False
        record = await small.sync("x")
        await backend.shutdown()

    assert before == after
    assert 1.5 < took < 5
    assert 5 == record.result


# ── odd results ─────────────────────────────────────────────────────────────────────────────────
async def test_an_error_that_nobody_tells_is_a_failure_all_the_same(small: Tracker) -> None:
    """A backend that keeps only that it failed, and a limit that is no number."""
    backend = asked(small)
    await small.register("a", "shop.rows")
    await small.register("b", "shop.rows")
    silent = result()
    silent.is_err = True
    await backend.set_result("a", silent)
    await backend.set_result("b", result(error=TimeoutError("slow"), timeout="soon"))
    a, b = await small.sync("a"), await small.sync("b")

    assert (TaskStatus.FAILURE, "the result backend tells no error") == (a.status, a.error)
    assert (TaskStatus.FAILURE, "slow", "transient") == (b.status, b.error, b.error_class)


async def test_a_label_of_the_attempt_before_names_no_run(tracker: Tracker) -> None:
    """A worker without a tracker did the retry: its result has the label of attempt 1's worker."""
    backend = asked(tracker)
    first = ended(run_report(), TaskStatus.RETRY, Witness.HANDED_BACK)
    await tracker.recorder().commit(first)
    await backend.set_result("x", result(5, _retries=1, **{RUN: "r1"}))
    record = await tracker.sync("x")
    told = [(one.attempt, one.status) for one in await tracker.attempts("x")]

    assert (TaskStatus.SUCCESS, 2, 5) == (record.status, record.attempt, record.result)
    assert [(1, "RETRY"), (2, "SUCCESS")] == told


async def test_a_result_without_labels_is_the_shown_runs(tracker: Tracker) -> None:
    """A backend that drops labels: the run that is shown ended so, and no second one appears."""
    backend = asked(tracker)
    await tracker.recorder().commit(run_report())
    await backend.set_result("x", result(5))
    record = await tracker.sync("x")
    await tracker.recorder().commit(ended(run_report(), TaskStatus.SUCCESS))
    after = await tracker.get("x")

    assert (TaskStatus.SUCCESS, 5, 1) == (record.status, record.result, record.runs)
    assert ("its own", 1, 0) == (after.result, after.runs, after.duplicates)


@pytest.mark.parametrize("labels", [{RUN: "r1"}, {}], ids=["of the run before", "none"])
async def test_a_result_after_a_requeue_is_of_a_later_run(
    tracker: Tracker, labels: dict[str, str]
) -> None:
    """A run that put its message back gave no result: who did it then has no tracker."""
    backend = asked(tracker)
    run = run_report()
    await tracker.recorder().commit(ended(run, TaskStatus.PENDING, Witness.HANDED_BACK))
    before = await tracker.sync("x")
    await backend.set_result("x", result(5, **labels, **{"X-Taskiq-requeue": "1"}))
    record = await tracker.sync("x")
    told = [(one.cause, one.status) for one in await tracker.attempts("x")]

    assert TaskStatus.PENDING is before.status
    assert (TaskStatus.SUCCESS, 5, 2, 0) == (
        *(record.status, record.result, record.runs, record.duplicates),
    )
    assert [(Cause.FIRST, "PENDING"), (Cause.REQUEUE, "SUCCESS")] == told
