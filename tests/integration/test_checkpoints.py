"""Checkpoints: what a run stored, the next run of the same work gets, exactly as it was."""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from taskiq import SimpleRetryMiddleware, SmartRetryMiddleware

from aiotrack import InvalidValue, NoCurrentExecution, StoreUnavailable, TaskStatus, Tracker
from aiotrack.labels import RERUN_OF
from aiotrack.testing.servers import PostgresServer
from tests.integration.bench import bench

STATES = [
    {"rows": 5_000, "cursor": "a\x00\ud800é", "done": [1, 2.0, True, None]},
    *(0, -0.0, 1e100, 2**70, 0.1, "", [], {}, False, [[[]]], {"b": 1, "a": 2}),
]


class Color(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int


BAD = {
    "a tuple": (1, 2),
    "a set": {1},
    "a number as a key": {1: "a"},
    "nan": float("nan"),
    "infinity": [float("inf")],
    "bytes": b"x",
    "a decimal": Decimal(1),
    "an enum": Color.RED,
    "an object": Point(1),
    "keys that meet": {1: "a", "1": "b"},
}


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


# ── what is kept ────────────────────────────────────────────────────────────────────────────────
async def test_a_state_comes_back_as_it_was(tracker: Tracker) -> None:
    """Every JSON value, NUL and surrogates and huge numbers among them, type by type."""
    async with tracker.track("shop.import") as run:
        before = await tracker.last_checkpoint()
        given = []
        for state in STATES:
            assert await tracker.checkpoint(state)
            given.append(await tracker.last_checkpoint())
    after = await tracker.last_checkpoint(task_id=run.task_id)

    assert before is None
    assert [repr(state) for state in STATES] == [repr(state) for state in given]
    assert STATES[-1] == after


@pytest.mark.parametrize("task_id", [0, ""])
async def test_an_id_may_be_nothing(tracker: Tracker, task_id: int | str) -> None:
    """Ids are what people number their work with: a 0 is not an empty text."""
    async with tracker.track("shop.import", task_id=task_id):
        await tracker.checkpoint("here")

    assert "here" == await tracker.last_checkpoint(task_id=task_id)
    assert "here" == await asyncio.to_thread(tracker.last_checkpoint_sync, task_id=task_id)


async def test_a_checkpoint_is_committed_when_it_returns(tracker: Tracker) -> None:
    """Another tracker of the same database reads it at once, and the record is untouched."""
    other = Tracker(tracker.database)
    async with other, tracker.track("shop.import", task_id=7) as run:
        await tracker.checkpoint({"row": 1})
        read = await other.last_checkpoint(task_id=7)
    record = await tracker.get(run.task_id)

    assert {"row": 1} == read
    assert (TaskStatus.SUCCESS, {}) == (record.status, record.metadata)


async def test_none_begins_anew(small: Tracker) -> None:
    """A checkpoint of None is as good as none."""
    async with small.track("shop.import"):
        await small.checkpoint(5)
        await small.checkpoint(None)

        assert await small.last_checkpoint() is None


async def test_of_many_at_once_the_last_call_stands(tracker: Tracker) -> None:
    """Calls of one run that are under way together are kept in the order of their calls."""
    async with tracker.track("shop.import"):
        kept = await asyncio.gather(*(tracker.checkpoint(number) for number in range(50)))
        last = await tracker.last_checkpoint()

    assert [True] * 50 == kept
    assert 49 == last


@pytest.mark.parametrize("what", BAD)
async def test_what_would_come_back_altered_is_refused(small: Tracker, what: str) -> None:
    """An error at once is better than another state later; what was stored stays."""
    async with small.track("shop.import"):
        await small.checkpoint("good")
        with pytest.raises(InvalidValue, match="checkpoint"):
            await small.checkpoint({"state": BAD[what]})
        last = await small.last_checkpoint()

    assert "good" == last


async def test_a_state_that_is_too_large_or_endless_is_refused(small: Tracker) -> None:
    """The bound is max_value_bytes of JSON, to the byte; a cycle ends, too."""
    most = small.options.max_value_bytes
    ring: list[Any] = []
    ring.append(ring)
    async with small.track("shop.import"):
        await small.checkpoint("x" * (most - 2))
        for state in ("x" * (most - 1), ring):
            with pytest.raises(InvalidValue):
                await small.checkpoint(state)


# ── who may call ────────────────────────────────────────────────────────────────────────────────
async def test_outside_a_run_it_is_a_clear_error(small: Tracker) -> None:
    """No run, or one that is over: nothing to keep a state for. By id it can be read anywhere."""
    ended = asyncio.Event()

    async def late() -> None:
        await ended.wait()
        await small.checkpoint(2)

    async with small.track("shop.import"):
        task = asyncio.create_task(late())
    ended.set()
    with pytest.raises(NoCurrentExecution, match="checkpoint"):
        await task
    for call in (small.checkpoint(1), small.last_checkpoint()):
        with pytest.raises(NoCurrentExecution, match=r"tracker\.track"):
            await call
    for name in ("checkpoint_sync", "last_checkpoint_sync"):
        with pytest.raises(NoCurrentExecution, match=name):
            getattr(small, name)(*([1] if name == "checkpoint_sync" else []))

    assert await small.last_checkpoint(task_id="nobody") is None


async def test_a_sync_task_keeps_its_state_from_its_thread(tracker: Tracker) -> None:
    """Through the loop, and committed when the call returns; in the loop's thread it is refused."""
    seen: list[Any] = []
    async with bench(tracker) as b:

        @b.task("shop.resize")
        def resize() -> None:
            seen.append(tracker.last_checkpoint_sync())
            seen.append(tracker.checkpoint_sync({"frame": 3}))
            seen.append(tracker.last_checkpoint_sync())

        record = await b.run(resize)
        outside = await asyncio.to_thread(tracker.last_checkpoint_sync, task_id=record.task_id)
        async with tracker.track("shop.block"):
            inside = await asyncio.to_thread(tracker.checkpoint_sync, 1)
            for call in (lambda: tracker.checkpoint_sync(1), tracker.last_checkpoint_sync):
                with pytest.raises(RuntimeError, match="await"):
                    call()

    assert (TaskStatus.SUCCESS, None) == (record.status, record.error)
    assert [None, True, {"frame": 3}] == seen
    assert {"frame": 3} == outside
    assert inside is True


async def test_a_thread_without_a_loop_gets_an_error(sqlite_url: str) -> None:
    """A tracker that nobody started reaches no database from a thread."""
    tracker = Tracker(sqlite_url)
    with pytest.raises(StoreUnavailable, match="event loop"):
        await asyncio.to_thread(tracker.last_checkpoint_sync, task_id="x")


# ── who gets it ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("retry", [SimpleRetryMiddleware, SmartRetryMiddleware])
async def test_a_retry_goes_on_where_the_last_attempt_stood(tracker: Tracker, retry: Any) -> None:
    """Each attempt finds the state of the one before."""
    found: list[Any] = []
    async with bench(tracker, after=[retry(default_retry_count=3)]) as b:

        @b.task("shop.import", retry_on_error=True, delay=0)
        async def load() -> int:
            row = await tracker.last_checkpoint() or 0
            found.append(row)
            await tracker.checkpoint(row + 10)
            if row < 20:
                raise ConnectionError(f"at row {row}")
            return int(row)

        record = await b.run(load)

    assert (TaskStatus.SUCCESS, 20, 3) == (record.status, record.result, record.attempt)
    assert [0, 10, 20] == found


async def test_a_forgotten_run_does_not_overwrite_its_successor(tracker: Tracker) -> None:
    """The broker delivered again while the first run still works: its word comes too late."""
    first_may_go_on = asyncio.Event()
    first_began = asyncio.Event()
    told: list[bool] = []

    async def first() -> None:
        async with tracker.track("shop.import", task_id="x"):
            told.append(await tracker.checkpoint("first"))
            first_began.set()
            await first_may_go_on.wait()
            told.append(await tracker.checkpoint("first again"))

    async def second() -> tuple[Any, bool, Any]:
        async with tracker.track("shop.import", task_id="x"):
            found = await tracker.last_checkpoint()
            kept = await tracker.checkpoint("second")
            first_may_go_on.set()
            await zombie
            return found, kept, await tracker.last_checkpoint()

    zombie = asyncio.create_task(first())
    await first_began.wait()
    found, kept, last = await second()

    assert ("first", True, "second") == (found, kept, last)
    assert [True, False] == told


async def test_a_rerun_goes_on_from_what_it_repeats(tracker: Tracker) -> None:
    """Through reruns of reruns that stored nothing; its own state comes first; rings end."""
    seen: dict[str, Any] = {}
    async with bench(tracker) as b:

        @b.task("shop.import")
        async def load(*, store: bool) -> None:
            found = await tracker.last_checkpoint()
            if store:
                await tracker.checkpoint([found])
            seen[name] = (found, await tracker.last_checkpoint())

        kicker = load.kicker
        name = "a"
        await b.run(kicker().with_task_id("a"), store=True)
        for name, of in (("b", "a"), ("c", "b"), ("ring", "ring")):
            labelled = kicker().with_task_id(name).with_labels(**{RERUN_OF: of})
            await b.run(labelled, store=False)
        name = "d"
        await b.run(kicker().with_task_id("d").with_labels(**{RERUN_OF: "c"}), store=True)
        from_outside = await tracker.last_checkpoint(task_id="c")
        record = await tracker.get("c")

    assert "b" == record.rerun_of
    assert {
        "a": (None, [None]),
        "b": ([None], [None]),
        "c": ([None], [None]),
        "ring": (None, None),
        "d": ([None], [[None]]),
    } == seen
    assert [None] == from_outside


async def test_strange_ids_have_checkpoints_too(tracker: Tracker) -> None:
    """Ids are stored as those of records are, in rerun chains as well."""
    for task_id in ("a\x00b%", "é" * 300, "\ud800"):
        async with tracker.track("shop.import", task_id=task_id):
            await tracker.checkpoint(task_id)
        assert task_id == await tracker.last_checkpoint(task_id=task_id)


# ── a database that is away ─────────────────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
@pytest.mark.parametrize("fault", ["killed", "paused"])
async def test_without_a_database_the_user_decides(
    own_postgres: PostgresServer, fault: str
) -> None:
    """StoreUnavailable after the budget; the run goes on, and its own record comes out right."""
    async with Tracker(own_postgres.url) as tracker, bench(tracker) as b:

        @b.task("shop.import")
        async def load() -> float:
            await tracker.checkpoint("before")
            await asyncio.to_thread(own_postgres.kill if fault == "killed" else own_postgres.pause)
            begun = time.monotonic()
            for call in (tracker.checkpoint("after"), tracker.last_checkpoint()):
                with pytest.raises(StoreUnavailable):
                    await call
            return time.monotonic() - begun

        task = await load.kiq()
        await b.settle()
        if fault == "killed":
            await asyncio.to_thread(own_postgres.start)
        else:
            own_postgres.resume()
        await tracker.flush(20)
        record = await tracker.get(task.task_id)
        last = await tracker.last_checkpoint(task_id=task.task_id)
    budget = tracker.options.commit_budget

    assert TaskStatus.SUCCESS is record.status
    assert 2 * budget <= record.result < 2 * budget + 1
    assert "before" == last or (fault == "paused" and "after" == last)


async def test_a_connection_that_was_cut_is_no_reason_to_fail(postgres_url: str) -> None:
    """Every connection to the database is ended: the next call opens new ones."""
    engine = create_async_engine(postgres_url, isolation_level="AUTOCOMMIT")
    cut = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with Tracker(postgres_url) as tracker, tracker.track("shop.import"):
        await tracker.checkpoint(1)
        await tracker.last_checkpoint()
        async with engine.connect() as connection:
            await connection.execute(cut)
        kept = await tracker.checkpoint(2)
        async with engine.connect() as connection:
            await connection.execute(cut)
        last = await tracker.last_checkpoint()
    await engine.dispose()

    assert (True, 2) == (kept, last)


async def test_a_commit_waits_for_the_disk_on_any_engine(postgres_url: str) -> None:
    """An engine whose sessions do not wait at a commit: a checkpoint does, all the same."""
    engine = create_async_engine(
        postgres_url, connect_args={"server_settings": {"synchronous_commit": "off"}}
    )
    async with Tracker(engine) as tracker, tracker.track("shop.import"):
        kept = await tracker.checkpoint({"row": 1})
        last = await tracker.last_checkpoint()
    await engine.dispose()

    assert (True, {"row": 1}) == (kept, last)


async def test_a_run_that_is_cancelled_while_it_stores_ends_cleanly(tracker: Tracker) -> None:
    """The cancellation goes through at once; the connection stays whole."""
    has_three = asyncio.Event()

    async def work() -> None:
        async with tracker.track("shop.import", task_id="x"):
            for number in range(10_000):
                await tracker.checkpoint(number)
                if number == 3:
                    has_three.set()

    for _ in range(10):
        task = asyncio.create_task(work())
        await has_three.wait()
        has_three.clear()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    last = await tracker.last_checkpoint(task_id="x")

    assert last >= 3


async def test_two_loops_share_one_tracker(tracker: Tracker) -> None:
    """A run in a loop of another thread stores through its own loop."""
    found: list[Any] = []

    async def work() -> None:
        async with tracker.track("shop.import", task_id="other"):
            await tracker.checkpoint("there")
            found.append(await asyncio.to_thread(tracker.last_checkpoint_sync))
        await tracker.shutdown()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    await asyncio.to_thread(thread.join)

    assert ["there"] == found
    assert "there" == await tracker.last_checkpoint(task_id="other")
