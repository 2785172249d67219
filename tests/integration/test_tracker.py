"""The tracker without a broker: register, update, read, and plain code that is tracked."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime as dt
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any

import pytest
from taskiq import SimpleRetryMiddleware

from aiotrack import (
    ExecutionNotFound,
    InvalidQuery,
    InvalidStatus,
    InvalidValue,
    TaskStatus,
    Tracker,
    current_execution,
)
from tests.integration.bench import bench

NOON = dt.datetime(2020, 2, 29, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
STATUSES = list(TaskStatus)


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


# ── register ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("status", STATUSES)
async def test_work_is_registered_with_any_status(tracker: Tracker, status: TaskStatus) -> None:
    """A record by hand has what a run would have had, as far as its status goes."""
    record = await tracker.register(
        7,
        "shop.import:rows",
        args=[1],
        kwargs={"a": 2},
        created_by=3,
        metadata={"m": 4},
        status=status,
    )

    assert ("7", "shop.import:rows", "shop", status) == (
        *(record.task_id, record.task_name, record.module, record.status),
    )
    assert ([1], {"a": 2}, "3", {"m": 4}) == (
        *(record.args, record.kwargs, record.created_by, record.metadata),
    )
    assert (status is TaskStatus.STARTED) == (record.started_at is not None)
    assert status.is_final == (record.finished_at is not None)
    assert record == await tracker.get("7")
    assert record == await tracker.get_by_id(record.id)


@pytest.mark.parametrize("status", STATUSES)
async def test_registering_twice_is_harmless(tracker: Tracker, status: TaskStatus) -> None:
    """The second time changes nothing, whatever the status."""
    first = await tracker.register("x", "shop.rows", status=status, metadata={"a": 1})
    second = await tracker.register("x", "shop.rows", status=status, metadata={"a": 1})

    assert first == second
    assert 1 == (await tracker.stats()).total


async def test_rows_of_an_old_table_are_moved_as_they_were(tracker: Tracker) -> None:
    """Given times, result and error are kept to the microsecond."""
    times = {
        "created_at": NOON,
        "started_at": NOON + MINUTE + dt.timedelta(microseconds=1),
        "finished_at": NOON + 2 * MINUTE,
    }
    good = await tracker.register("a", "old", status="completed", result=[1], **times)
    empty = await tracker.register("b", "old", status="done", result=None, **times)
    bad = await tracker.register("c", "old", status="error", error="no", **times)
    runs = await tracker.attempts("c")

    for record in (good, empty, bad):
        assert times == {name: getattr(record, name) for name in times}
        assert 59.999999 == record.duration
        assert 60.000001 == record.wait
    assert ([1], None, "no") == (good.result, empty.result, bad.error)
    assert [("FAILURE", "no")] == [(one.status, one.error) for one in runs]


async def test_an_end_before_its_start_took_no_time(tracker: Tracker) -> None:
    """Clocks of an old system may say so; times are kept as given, and no span is below zero."""
    old = await tracker.register(
        "a", "old", status="done", created_at=NOON, started_at=NOON, finished_at=NOON - MINUTE
    )

    assert (NOON, NOON - MINUTE, 0.0, 0.0) == (
        *(old.started_at, old.finished_at, old.duration, old.wait),
    )


async def test_an_offset_is_only_another_way_to_write_a_moment(tracker: Tracker) -> None:
    """Times with an offset come back as the same moments in UTC."""
    there = NOON.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=45)))
    record = await tracker.register("a", "old", created_at=there)

    assert NOON == record.created_at
    assert dt.timedelta(0) == record.created_at.utcoffset()


@pytest.mark.parametrize("name", ["created_at", "started_at", "finished_at"])
@pytest.mark.parametrize(
    "far", ["0001-01-01T00:00Z", "9999-01-01T00:00Z", "9999-12-31T23:59:59.999999Z"]
)
async def test_a_time_that_not_every_reader_could_show_is_refused(
    tracker: Tracker, name: str, far: str
) -> None:
    """Nothing of it is written: one such row would fail every list."""
    times: dict[str, Any] = {name: dt.datetime.fromisoformat(far)}
    with pytest.raises(InvalidValue, match=name):
        await tracker.register("a", "old", status="done", **times)

    assert [] == (await tracker.list()).items
    assert 0 == (await tracker.stats()).total


@pytest.mark.parametrize("year", [2, 1200, 2999, 9998])
async def test_far_times_are_kept_to_the_microsecond(tracker: Tracker, year: int) -> None:
    """Their microseconds take more than the 53 bits of a float."""
    begin = dt.datetime(year, 12, 31, 23, 59, 59, 999_990, tzinfo=dt.UTC)
    times = {
        name: begin + dt.timedelta(microseconds=number)
        for number, name in enumerate(["created_at", "started_at", "finished_at"])
    }
    record = await tracker.register("a", "old", status="done", **times)
    updated = await tracker.update("a", metadata={"a": 1})

    for one in (record, updated, *(await tracker.list()).items):
        assert times == {name: getattr(one, name) for name in times}


async def test_registering_after_a_run_adds_who_made_it(tracker: Tracker) -> None:
    """After a SUCCESS it stays a SUCCESS; created_by and metadata come in."""
    async with bench(tracker) as b:
        record = await b.run(b.task("shop.rows")(_echo), 5)
        after = await tracker.register(
            record.task_id, "shop.rows", created_by=42, metadata={"form": "a"}
        )

    assert (TaskStatus.SUCCESS, 5, [5], 1) == (after.status, after.result, after.args, after.runs)
    assert ("42", {"form": "a"}) == (after.created_by, after.metadata)
    assert record.created_at == after.created_at


async def test_registering_before_the_send_joins_with_it(tracker: Tracker) -> None:
    """A record registered with the id of a later message is that message's record."""
    async with bench(tracker) as b:
        registered = await tracker.register("form-1", "shop.rows", created_by="ada")
        task = b.task("shop.rows")(_echo).kicker().with_task_id("form-1")
        record = await b.run(task, 5)

    assert registered.id == record.id
    assert (TaskStatus.SUCCESS, 5, [5], "ada", 1) == (
        *(record.status, record.result, record.args, record.created_by, record.runs),
    )


@pytest.mark.parametrize("status", [None, "started"])
async def test_an_update_tells_no_facts(tracker: Tracker, status: str | None) -> None:
    """What was registered without arguments gets them from its message, updated or not."""
    async with bench(tracker) as b:
        await tracker.register("form-1", "shop.rows", created_by="ada")
        await tracker.update("form-1", status, metadata={"step": 1})
        task = b.task("shop.rows")(_echo).kicker().with_task_id("form-1")
        record = await b.run(task, 5)

    assert ([5], "ada", {"step": 1}) == (record.args, record.created_by, record.metadata)


async def _echo(value: Any) -> Any:
    return value


# ── update ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("new", STATUSES)
@pytest.mark.parametrize("old", STATUSES)
async def test_a_status_goes_on_but_never_back_from_the_end(
    tracker: Tracker, old: TaskStatus, new: TaskStatus
) -> None:
    """Final statuses stay; PENDING undoes nothing; everything else becomes what was said."""
    before = await tracker.register("x", "shop.rows", status=old)
    record = await tracker.update("x", new, metadata={"k": 1})

    expected = old if old.is_final or new is TaskStatus.PENDING else new
    assert expected is record.status
    assert {"k": 1} == record.metadata
    if expected is old:
        assert (before.started_at, before.finished_at, before.attempt) == (
            *(record.started_at, record.finished_at, record.attempt),
        )


async def test_a_record_by_hand_goes_from_start_to_end(tracker: Tracker) -> None:
    """PENDING, STARTED, SUCCESS: with times, duration and a result, in any words."""
    await tracker.register("x", "shop.rows")
    started = await tracker.update("x", "running")
    ended = await tracker.update("x", "Completed", result={"rows": 3}, metadata={"a": 1})

    assert (TaskStatus.STARTED, True) == (started.status, started.is_running)
    assert (TaskStatus.SUCCESS, {"rows": 3}, {"a": 1}) == (
        *(ended.status, ended.result, ended.metadata),
    )
    assert started.started_at == ended.started_at
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert (ended.finished_at - ended.started_at).total_seconds() == ended.duration
    assert 1 == ended.runs


async def test_a_retry_by_hand_opens_a_second_attempt(tracker: Tracker) -> None:
    """RETRY waits for attempt 2 with the error; STARTED opens it; both attempts are kept."""
    await tracker.register("x", "shop.rows", status="started")
    waiting = await tracker.update("x", "retrying", error=ConnectionError("away"))
    running = await tracker.update("x", "started")
    ended = await tracker.update("x", "failed", error="gone", traceback="Traceback: gone")
    told = [(one.attempt, one.cause, one.status, one.error) for one in await tracker.attempts("x")]

    assert (TaskStatus.RETRY, 2, "away") == (waiting.status, waiting.attempt, waiting.error)
    assert (TaskStatus.STARTED, 2, None) == (running.status, running.attempt, running.error)
    assert (TaskStatus.FAILURE, 2, "gone", "Traceback: gone") == (
        *(ended.status, ended.attempt, ended.error, ended.traceback),
    )
    assert [(1, "first", "RETRY", "away"), (2, "retry", "FAILURE", "gone")] == told


async def test_metadata_is_merged_key_by_key(tracker: Tracker) -> None:
    """An update sets its keys and leaves the others, also after the end."""
    await tracker.register("x", "shop.rows", metadata={"a": 1, "b": {"deep": 1}})
    await tracker.update("x", metadata={"b": 2, "c": None})
    await tracker.update("x", "success", metadata={"d": [1]})
    record = await tracker.update("x", "failed", metadata={"a": "after"})

    assert {"a": "after", "b": 2, "c": None, "d": [1]} == record.metadata
    assert TaskStatus.SUCCESS is record.status


async def test_none_is_a_result(tracker: Tracker) -> None:
    """A result of None is stored as JSON null, not as no result."""
    await tracker.register("x", "shop.rows")
    record = await tracker.update("x", "success", result=None)

    assert (TaskStatus.SUCCESS, None) == (record.status, record.result)


@pytest.mark.parametrize("kind", ["block", "function", "thread", "task", "sync task"])
@pytest.mark.parametrize(
    ("status", "told"),
    [
        (TaskStatus.SUCCESS, {"result": {"rows": 5}}),
        (TaskStatus.FAILURE, {"error": "3 rows refused"}),
        (TaskStatus.REVOKED, {}),
    ],
)
async def test_an_end_told_inside_is_not_undone_by_a_return(
    tracker: Tracker, kind: str, status: TaskStatus, told: dict[str, Any]
) -> None:
    """Its status, result and error stay; the run goes on to its own end, and lasts until then."""

    async def work() -> str:
        run = current_execution()
        assert run is not None
        inside = await tracker.update(run.task_id, status, **told)
        assert inside.status is status
        again = await tracker.update(run.task_id, "failed", error="too late")
        assert again.error == inside.error
        await asyncio.sleep(0.02)
        return run.task_id

    loop = asyncio.get_running_loop()

    def in_thread() -> str:
        context = contextvars.copy_context()
        future: Future[str] = Future()

        def begin() -> None:
            task = loop.create_task(work(), context=context)
            task.add_done_callback(lambda done: future.set_result(done.result()))

        loop.call_soon_threadsafe(begin)
        return future.result(10)

    async with bench(tracker) as b:
        if kind == "block":
            async with tracker.track("shop.rows"):
                task_id = await work()
        elif kind == "function":
            task_id = await tracker.tracked("shop.rows")(work)()
        elif kind == "thread":
            task_id = await asyncio.to_thread(tracker.tracked("shop.rows")(in_thread))
        else:
            task = b.task("shop.rows")(work if kind == "task" else in_thread)
            task_id = (await b.run(task)).task_id
        record = await tracker.get(task_id)
        (attempt,) = await tracker.attempts(task_id)

    assert (status, told.get("result"), told.get("error")) == (
        *(record.status, record.result, record.error),
    )
    assert (status, told.get("error")) == (attempt.status, attempt.error)
    assert (record.duration or 0) >= 0.02
    assert 1 == record.runs


async def test_an_error_after_an_end_told_inside_is_kept_unless_it_was_a_success(
    tracker: Tracker,
) -> None:
    """A success is never undone; and a failure that was told keeps no retry from its turn."""
    async with bench(tracker, after=[SimpleRetryMiddleware(default_retry_count=2)]) as b:

        @b.task("shop.rows", retry_on_error=True)
        async def work(status: str) -> int:
            run = current_execution()
            assert run is not None
            if run.attempt == 2:
                return 2
            await tracker.update(run.task_id, status)
            raise ValueError("its own")

        retried, done = await b.run(work, "failed"), await b.run(work, "success")
        for status in ("failed", "success"):
            with contextlib.suppress(ValueError):
                async with tracker.track("shop.block", task_id=status):
                    await tracker.update(status, status, error="told")
                    raise ValueError("its own")
        failed, good = await tracker.get("failed"), await tracker.get("success")

    assert (TaskStatus.SUCCESS, 2, 2) == (retried.status, retried.attempt, retried.result)
    assert TaskStatus.SUCCESS is done.status
    assert (TaskStatus.FAILURE, "its own") == (failed.status, failed.error)
    assert TaskStatus.SUCCESS is good.status


async def test_an_update_of_a_run_that_goes_on_yields_to_the_worker(tracker: Tracker) -> None:
    """The run's own SUCCESS comes last and is shown, with what the update told."""
    async with bench(tracker) as b:

        @b.task("shop.rows")
        async def work() -> int:
            run = current_execution()
            assert run is not None
            await tracker.update(run.task_id, metadata={"from": "inside"})
            return 3

        record = await b.run(work)

    assert (TaskStatus.SUCCESS, 3, {"from": "inside"}, 1) == (
        *(record.status, record.result, record.metadata, record.runs),
    )


async def test_an_unknown_id_is_told(tracker: Tracker) -> None:
    """Every verb that needs a record raises `ExecutionNotFound`, a LookupError, with the id."""
    verbs = [
        lambda: tracker.get("nobody"),
        lambda: tracker.get_by_id(4_000_000),
        lambda: tracker.get_by_id(2**80),
        lambda: tracker.attempts("nobody"),
        lambda: tracker.update("nobody", "success"),
        lambda: tracker.update("nobody", metadata={"a": 1}),
        lambda: tracker.progress(5, task_id="nobody"),
    ]
    for verb in verbs:
        with pytest.raises(ExecutionNotFound) as caught:
            await verb()

        assert isinstance(caught.value, LookupError)
        assert "nobody" in str(caught.value) or "id" in str(caught.value)


async def test_what_needs_a_status_says_which(small: Tracker) -> None:
    """An outcome alone would leave a record that is not over and has one."""
    await small.register("x", "a")
    for outcome in ({"result": None}, {"error": "no"}, {"traceback": "no"}):
        with pytest.raises(InvalidValue, match=r"'success', result=.*'failed', error="):
            await small.update("x", **outcome)  # type: ignore[arg-type]


# ── refused ─────────────────────────────────────────────────────────────────────────────────────
async def test_bad_input_is_refused_by_name(small: Tracker) -> None:
    """Naive times, unknown words, limits and cursors out of range: an error, nothing stored."""
    naive = NOON.replace(tzinfo=None)
    refused: list[tuple[type[Exception], Any]] = [
        (InvalidValue, lambda: small.register("x", "a", created_at=naive)),
        (InvalidValue, lambda: small.register("x", "a", status="started", started_at=naive)),
        (InvalidValue, lambda: small.register("x", "a", status="done", finished_at=naive)),
        (InvalidStatus, lambda: small.register("x", "a", status="lost")),
        (InvalidStatus, lambda: small.update("x", "perhaps")),
        (InvalidValue, lambda: small.update("x", result=1)),
        (InvalidValue, lambda: small.update("x", error="no")),
        (ValueError, lambda: small.list(since=naive)),
        (InvalidQuery, lambda: small.list(limit=0)),
        (InvalidQuery, lambda: small.list(limit=1001)),
        (InvalidQuery, lambda: small.list(limit=True)),
        (InvalidQuery, lambda: small.list(after="nonsense")),
        (InvalidQuery, lambda: small.list(order="random")),
        (InvalidStatus, lambda: small.list(status="perhaps")),
        (InvalidQuery, lambda: small.get_by_id("1")),  # type: ignore[arg-type]
        (TypeError, lambda: small.progress(5, current=1, total=2)),
    ]
    for kind, verb in refused:
        with pytest.raises(kind):
            await verb()

    assert 0 == (await small.stats()).total
