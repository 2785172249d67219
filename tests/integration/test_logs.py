"""What tasks log: to whose attempt it goes, in which order it is read, what is not kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from taskiq import SimpleRetryMiddleware

from aiotrack import (
    ExecutionNotFound,
    InvalidQuery,
    InvalidSetting,
    InvalidValue,
    LogLine,
    Settings,
    TaskLogCollector,
    Tracker,
    TrackerNotFound,
)
from aiotrack.logs import Logs
from tests.integration.bench import bench

log = logging.getLogger("shop.rows")
INPLACE = pytest.mark.parametrize("inplace", [False, True], ids=["plain", "inplace"])


@pytest.fixture(autouse=True)
def _levels() -> Any:
    """As under ``taskiq worker``: INFO is logged."""
    log.setLevel(logging.DEBUG)
    yield
    log.setLevel(logging.NOTSET)


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


async def messages(tracker: Tracker, task_id: str, **filters: Any) -> list[str]:
    """Give the messages of an execution."""
    return [line.message for line in (await tracker.logs(task_id, **filters)).items]


# ── whose line it is ────────────────────────────────────────────────────────────────────────────
@INPLACE
async def test_a_task_and_what_it_begins_log_to_its_record(tracker: Tracker, inplace: bool) -> None:
    """Its own lines, those of tasks and threads that it begins, and no framework's."""

    async def child() -> None:
        log.info("child")

    async with bench(tracker, inplace=inplace) as b:

        @b.task("shop.rows")
        async def work(value: int) -> int:
            log.info("got %d", value)
            await asyncio.create_task(child())
            await asyncio.to_thread(log.warning, "thread")
            logging.getLogger("aiotrack.x").error("ours")
            logging.getLogger("taskiq.receiver").error("theirs")
            return value

        record = await b.run(work, 7)
        page = await tracker.logs(record.task_id)

    told = [(line.level, line.logger, line.message, line.attempt) for line in page.items]
    assert told == [
        ("INFO", "shop.rows", "got 7", 1),
        ("INFO", "shop.rows", "child", 1),
        ("WARNING", "shop.rows", "thread", 1),
    ]
    assert record.started_at is not None
    assert record.finished_at is not None
    assert all(record.started_at <= line.at <= record.finished_at for line in page.items)
    assert page.next is None


async def test_a_sync_task_logs_to_its_record(tracker: Tracker) -> None:
    """TaskIQ runs it in a thread of its pool, with its context."""
    async with bench(tracker) as b:

        @b.task("shop.rows")
        def work(value: int) -> None:
            log.info("in %s", threading.current_thread() is not threading.main_thread())

        record = await b.run(work, 7)

        assert ["in True"] == await messages(tracker, record.task_id)


async def test_two_hundred_tasks_at_once_never_mix(tracker: Tracker) -> None:
    """Each has its own lines, whole and in order: async ones, sync ones, and their children."""
    count, lines = 200, 12

    async with bench(tracker) as b:

        @b.task("shop.async")
        async def slow(name: int) -> None:
            for number in range(lines):
                log.info("%d: %d", name, number)
                await asyncio.sleep(random.random() / 100)

        @b.task("shop.sync")
        def quick(name: int) -> None:
            for number in range(lines):
                log.info("%d: %d", name, number)

        sent = [await (quick if n % 10 == 0 else slow).kiq(n) for n in range(count)]
        await b.settle()
        found = [await messages(tracker, task.task_id) for task in sent]

    assert [[f"{name}: {n}" for n in range(lines)] for name in range(count)] == found


async def test_every_attempt_has_its_own_lines(tracker: Tracker) -> None:
    """In the order of the attempts; one can be asked for alone."""
    async with bench(tracker, before=[SimpleRetryMiddleware(default_retry_count=3)]) as b:
        tries = iter(range(1, 9))

        @b.task("shop.rows", retry_on_error=True)
        async def work() -> None:
            number = next(tries)
            log.info("try %d", number)
            if number < 3:
                raise ValueError(number)

        record = await b.run(work)
        page = await tracker.logs(record.task_id)

        assert [(1, "try 1"), (2, "try 2"), (3, "try 3")] == [
            (line.attempt, line.message) for line in page.items
        ]
        assert ["try 2"] == await messages(tracker, record.task_id, attempt=2)


async def test_nested_runs_have_each_their_own_lines(tracker: Tracker) -> None:
    """A task that runs inside another's body logs to itself."""
    async with bench(tracker, inplace=True) as b:

        @b.task("shop.inner")
        async def inner() -> None:
            log.info("inner")

        @b.task("shop.outer")
        async def outer() -> str:
            log.info("before")
            sent = await inner.kiq()
            log.info("after")
            return sent.task_id

        record = await b.run(outer)

        assert ["before", "after"] == await messages(tracker, record.task_id)
        assert ["inner"] == await messages(tracker, record.result)


async def test_what_comes_after_the_end_belongs_to_nobody(small: Tracker) -> None:
    """A task that outlives its run logs to no record."""
    over = asyncio.Event()

    async def late() -> None:
        await over.wait()
        log.info("late")

    async with small.track("shop.block") as run:
        log.info("in time")
        task = asyncio.create_task(late())
    over.set()
    await task
    log.info("outside")

    assert ["in time"] == await messages(small, run.task_id)


async def test_two_trackers_do_not_share_lines(small: Tracker, tmp_path: Any) -> None:
    """A line goes to the tracker whose run it is."""
    async with Tracker(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}") as other:
        async with small.track("shop.one", task_id="x"):
            log.info("one")
        async with other.track("shop.two", task_id="x"):
            log.info("two")

        assert (["one"], ["two"]) == (await messages(small, "x"), await messages(other, "x"))


async def test_a_task_that_is_not_tracked_has_no_lines(small: Tracker) -> None:
    """``track=False``: nothing is written anywhere."""
    async with bench(small) as b:

        @b.task("shop.rows", track=False)
        async def work() -> None:
            log.info("hello")

        await work.kiq()
        await b.settle()

        assert not small.core().feature(Logs).counters


async def test_our_own_statements_are_not_collected(tracker: Tracker) -> None:
    """The writers of reports and lines run in no run's context, whatever else logs there."""
    noisy = [logging.getLogger(name) for name in ("sqlalchemy.engine", "asyncio", "aiosqlite")]
    for one in noisy:
        one.setLevel(logging.DEBUG)
    try:
        async with bench(tracker) as b:

            @b.task("shop.rows")
            async def work() -> None:
                for number in range(30):
                    log.info("%d", number)
                    await tracker.progress(number)
                    await asyncio.sleep(0.02)

            record = await b.run(work)
            found = await messages(tracker, record.task_id)
    finally:
        for one in noisy:
            one.setLevel(logging.NOTSET)

    assert [str(number) for number in range(30)] == found


# ── reading ─────────────────────────────────────────────────────────────────────────────────────
async def test_pages_follow_one_another(tracker: Tracker) -> None:
    """No line is lost or repeated, whatever the size of a page; a cursor keeps its filters."""
    for number in range(2):
        await tracker.register("x", "shop.x")
        with TaskLogCollector("x"):
            for line in range(25):
                log.info("%d/%d", number, line)
    found, after = [], None
    while True:
        page = await tracker.logs("x", limit=7, after=after)
        found += page.items
        after = page.next
        if after is None:
            break
    first = await tracker.logs("x", limit=7)

    assert [f"{number}/{line}" for number in range(2) for line in range(25)] == [
        line.message for line in found
    ]
    with pytest.raises(InvalidQuery, match="another execution"):
        await tracker.logs("x", level="ERROR", after=first.next)


async def test_another_process_reads_the_last_lines_right_after_the_end(tracker: Tracker) -> None:
    """The writer gathers for a fifth of a second; who waited for the end asks only once."""
    async with Tracker(tracker.database) as elsewhere, bench(tracker) as b:

        @b.task("shop.rows")
        async def rows() -> None:
            log.info("last words")

        for number in range(3):
            await rows.kicker().with_task_id(f"rows-{number}").kiq()
            await elsewhere.wait(f"rows-{number}", 30)
            assert ["last words"] == await messages(elsewhere, f"rows-{number}")


BAD_CURSORS = ["", "x", "!!!", "bnVsbA", "W10", "WzEsMiwzLDRd", "é", "x" * 5000, 7]


@pytest.mark.parametrize("after", BAD_CURSORS)
async def test_what_is_no_cursor_is_refused(small: Tracker, after: Any) -> None:
    """With a message that says what to pass."""
    await small.register("x", "shop.x")
    with pytest.raises(InvalidQuery, match="no cursor"):
        await small.logs("x", after=after)


async def test_levels_are_names_or_numbers(tracker: Tracker) -> None:
    """A level means itself and what is above it."""
    async with tracker.track("shop.x", task_id="x"):
        for level in (10, 20, 25, 30, 40, 50):
            log.log(level, "%d", level)

    assert ["20", "25", "30", "40", "50"] == await messages(tracker, "x")
    assert ["30", "40", "50"] == await messages(tracker, "x", level="warning")
    assert ["25", "30", "40", "50"] == await messages(tracker, "x", level=21)
    assert ["50"] == await messages(tracker, "x", level="50")
    with pytest.raises(InvalidQuery, match="LOUD"):
        await tracker.logs("x", level="LOUD")


@pytest.mark.parametrize("filters", [{"limit": 0}, {"limit": 10_001}, {"attempt": "x"}])
async def test_bad_questions_are_refused(small: Tracker, filters: dict[str, Any]) -> None:
    """As in lists."""
    await small.register("x", "shop.x")
    with pytest.raises(InvalidQuery):
        await small.logs("x", **filters)


async def test_an_unknown_execution_is_not_found(tracker: Tracker) -> None:
    """By pages and live; one that logged nothing has an empty page."""
    await tracker.register("quiet %\0", "shop.x")

    assert [] == await messages(tracker, "quiet %\0")
    with pytest.raises(ExecutionNotFound):
        await tracker.logs("nobody")
    with pytest.raises(ExecutionNotFound):
        await anext(aiter(tracker.tail("nobody")))


async def test_odd_lines_are_stored(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """NUL, surrogates, emoji, empty messages, levels of any size."""
    monkeypatch.setattr(logging.root, "handlers", [])  # no report of a test can hold a surrogate
    async with tracker.track("shop.x", task_id="x"):
        for message in ("a\0b", "\udc80", "\U0001f600", "", "'\"\\"):
            log.info(message)
        log.log(10**20, "huge")
        logging.getLogger("shop\0rows").error("name")

    assert ["a␀b", "�", "\U0001f600", "", "'\"\\", "huge", "name"] == await messages(tracker, "x")


# ── settings ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("logs", "sometimes"), ("log_level", "LOUD"), ("log_level", True)),
        *(("log_max_bytes", 100), ("log_max_bytes", "many")),
    ],
)
def test_settings_that_cannot_be_used_are_named(name: str, value: Any) -> None:
    """At the start, by keyword and by variable."""
    with pytest.raises(InvalidSetting, match=name):
        Settings(**{name: value})
    with pytest.raises(InvalidSetting, match=f"(?i){name}"):
        Settings.load(environment={f"AIOTRACK_{name.upper()}": str(value)})


def test_settings_come_from_the_environment() -> None:
    """Words in any case."""
    given = {"AIOTRACK_LOGS": "On_Failure_Only", "AIOTRACK_LOG_LEVEL": "warning"}
    settings = Settings.load(environment=given | {"AIOTRACK_LOG_MAX_BYTES": "2048"})

    assert ("on_failure_only", "warning", 2048) == (
        *(settings.logs, settings.log_level, settings.log_max_bytes),
    )


async def test_off_keeps_nothing(sqlite_url: str) -> None:
    """Nobody listens; a collector collects nothing; reading works."""
    async with Tracker(sqlite_url, settings={"logs": "off"}) as tracker:
        async with tracker.track("shop.x", task_id="x"):
            log.error("hello")
            with TaskLogCollector("x"):
                log.error("hello")

        assert logging.root.parent is None
        assert [] == await messages(tracker, "x")


async def test_on_failure_only_forgets_successes(database_url: str) -> None:
    """Attempts that fail or are tried again keep their lines, the one that succeeds does not."""
    settings = {"logs": "on_failure_only"}
    async with (
        Tracker(database_url, settings=settings) as tracker,
        bench(tracker, before=[SimpleRetryMiddleware(default_retry_count=3)]) as b,
    ):
        fails = iter([True, False, False])

        @b.task("shop.rows", retry_on_error=True)
        async def work() -> None:
            log.info("begin")
            if next(fails):
                log.warning("fail")
                raise ValueError

        retried, succeeded = await b.run(work), await b.run(work)

        @b.task("shop.fails")
        async def fail() -> None:
            log.info("begin")
            raise ValueError

        failed = await b.run(fail)
        found = [await tracker.logs(one.task_id) for one in (retried, succeeded, failed)]
        logs = tracker.core().feature(Logs)

    assert [[(1, "begin"), (1, "fail")], [], [(1, "begin")]] == [
        [(line.attempt, line.message) for line in page.items] for page in found
    ]
    assert (0, {}, {}) == (logs._memory, logs._held, logs._waiting)


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────
async def check_flood(url: str, count: int) -> None:
    """Log so many lines in one attempt, and look at what is kept, and what it took."""
    async with Tracker(url, settings={"log_max_bytes": 8192}) as tracker:
        logs, most = tracker.core().feature(Logs), 0
        async with tracker.track("shop.x", task_id="x"):
            for number in range(count):
                log.info("%07d", number)
                if number % 100 == 0:
                    most = max(most, logs._memory)
                    await asyncio.sleep(0)
        page = await tracker.logs("x", limit=10_000)
        errors = await tracker.logs("x", level="ERROR")
        async with tracker.core().repository.connection() as connection:
            rows = (await connection.execute(text("SELECT count(*) FROM aiotrack_logs"))).scalar()

    kept = 4096 // 23
    marker = page.items[kept]
    left = count - 2 * kept
    told = [line.message for line in page.items]
    assert [f"{number:07d}" for number in range(kept)] == told[:kept]
    assert [f"{number:07d}" for number in range(count - kept, count)] == told[kept + 1 :]
    assert ("WARNING", "aiotrack") == (marker.level, marker.logger)
    assert f"[... {left} lines, {7 * left} bytes left out ...]" == marker.message
    assert [marker] == errors.items, "nobody knows whether an error was among them"
    assert 2 * kept + 1 == rows
    assert most < 100_000
    assert logs.counters["writes"] < 40
    assert logs.counters["written"] < 40 * kept


async def test_a_flood_is_cut(database_url: str) -> None:
    """Head and tail stay, with a marker between; few writes made them."""
    await check_flood(database_url, 20_000)


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_million_lines_are_cut(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They fill neither the table nor the memory."""
    monkeypatch.setattr(logging.root, "handlers", [logging.NullHandler()])
    await check_flood(postgres_url, 1_000_000)


async def test_lines_of_many_floods_share_a_bounded_memory(
    small: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest tails give way first, then heads; every record says how much it lacks."""
    monkeypatch.setattr("aiotrack.logs.writer.MEMORY", 300_000)
    logs = small.core().feature(Logs)
    count, lines, most = 40, 500, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_wake", lambda: None)  # nobody writes
        for number in range(count):
            async with small.track("shop.x", task_id=str(number)):
                for line in range(lines):
                    log.info("%d: %d %s", number, line, "x" * 50)
                    most = max(most, logs._memory)
    logs._wake()
    found = [await small.logs(str(number), limit=10_000) for number in range(count)]

    assert most < 302_000
    for number, page in enumerate(found):
        told = [line for line in page.items if line.logger != "aiotrack"]
        left = [line for line in page.items if line.logger == "aiotrack"]
        missing = sum(int(line.message.split()[1]) for line in left)
        assert len(told) + missing in {0, lines}, number
        assert all(line.message.startswith(f"{number}: ") for line in told)
    assert (0, {}) == (logs._memory, logs._waiting)
    assert len(found[-1].items) == lines


async def test_threads_that_log_at_once_lose_nothing(small: Tracker) -> None:
    """Eight threads in one run: each one's lines are in its order, and all are counted."""
    threads, lines = 8, 300

    def work(name: int) -> None:
        for number in range(lines):
            log.info("%d: %03d", name, number)

    async with small.track("shop.x", task_id="x"):
        await asyncio.gather(*(asyncio.to_thread(work, name) for name in range(threads)))
    found = await messages(small, "x", limit=10_000)
    told = [message for message in found if not message.startswith("[")]

    assert threads * lines == len(told) + sum(
        int(message.split()[1]) for message in found if message.startswith("[")
    )
    for name in range(threads):
        own = [message for message in told if message.startswith(f"{name}:")]
        assert sorted(own) == own


def odd_records() -> list[dict[str, Any]]:
    """What no logger makes, but a program may hand to one."""
    return [{"name": None}, {"levelname": None}, {"levelno": "x"}, {"args": 7}, {"msg": None}]


async def test_an_odd_record_harms_nobody(small: Tracker) -> None:
    """The task goes on, and later lines are kept."""
    async with small.track("shop.x", task_id="x"):
        for odd in odd_records():
            record = logging.makeLogRecord({"name": "shop.rows", "levelno": 20, "msg": "x"} | odd)
            with contextlib.suppress(Exception):
                logging.root.parent.callHandlers(record)  # type: ignore[union-attr]
        log.info("after")

    assert "after" == (await messages(small, "x"))[-1]


async def test_finalizers_and_signals_may_log_while_a_line_is_taken(small: Tracker) -> None:
    """Whoever logs in the midst of a line never waits for it; nothing is lost."""
    logs = small.core().feature(Logs)
    async with small.track("shop.x", task_id="x"):
        log.info("one")
        with logs._lock:  # as a finalizer that runs while the lock is held
            log.info("two")
        log.info("three")

    assert ["one", "two", "three"] == await messages(small, "x")


async def test_what_the_database_refuses_costs_only_itself(tracker: Tracker) -> None:
    """The lines of other attempts in the same write are stored."""
    refusals = {
        "sqlite": [
            """CREATE TRIGGER refuse BEFORE INSERT ON aiotrack_logs WHEN NEW.message = 'bad'
            BEGIN SELECT RAISE(ABORT, 'refused'); END"""
        ],
        "postgresql": ["ALTER TABLE aiotrack_logs ADD CHECK (message <> 'bad')"],
    }
    repository = tracker.core().repository
    async with repository.engine.begin() as connection:
        for statement in refusals[repository.dialect]:
            await connection.execute(text(statement))
    for name, message in (("x", "good"), ("y", "bad"), ("z", "good")):
        async with tracker.track("shop.x", task_id=name):
            log.info(message)

    assert [["good"], [], ["good"]] == [await messages(tracker, name) for name in "xyz"]
    logs = tracker.core().feature(Logs)
    assert (1, 0) == (logs.counters["dropped"], logs._memory)


def test_the_end_of_a_loop_writes_what_is_left(sqlite_url: str) -> None:
    """Also of a program that never stops its tracker, and in the midst of a write."""

    async def work() -> None:
        tracker = Tracker(sqlite_url)
        async with tracker.track("shop.x", task_id="x"):
            for number in range(1000):
                log.info("%d", number)
        await asyncio.sleep(0.21)  # the writer is at work, or just done

    async def read() -> list[str]:
        async with Tracker(sqlite_url) as tracker:
            return await messages(tracker, "x", limit=10_000)

    asyncio.run(work())

    assert [str(number) for number in range(1000)] == asyncio.run(read())
    assert logging.root.parent is None


# ── live ────────────────────────────────────────────────────────────────────────────────────────
async def test_a_tail_gives_what_is_there_then_what_comes(tracker: Tracker) -> None:
    """It ends with the execution, and has every line of every attempt."""
    go_on = asyncio.Event()
    fails = iter([True, False])
    async with bench(tracker, before=[SimpleRetryMiddleware(default_retry_count=3)]) as b:

        @b.task("shop.rows", retry_on_error=True)
        async def work() -> None:
            log.info("begin")
            await go_on.wait()
            log.info("end")
            if next(fails):
                raise ValueError

        sent = await work.kiq()
        seen: list[LogLine] = []
        async for line in tracker.tail(sent.task_id):
            seen.append(line)
            go_on.set()
        await b.settle()

    assert [(1, "begin"), (1, "end"), (2, "begin"), (2, "end")] == [
        (line.attempt, line.message) for line in seen
    ]


async def test_a_tail_does_not_hurry_the_writer(small: Tracker) -> None:
    """Followed in the process that logs, lines are written as seldom as without it."""
    logs = small.core().feature(Logs)
    seen = []

    async def follow() -> None:
        seen.extend([line.message async for line in small.tail("x")])

    async with small.track("shop.x", task_id="x"):
        log.info("first")
        following = asyncio.create_task(follow())
        for number in range(200):
            log.info("%d", number)
            await asyncio.sleep(0.005)
    await following

    assert ["first", *map(str, range(200))] == seen
    assert logs.counters["writes"] < 15


async def test_a_tail_tells_of_nothing_left_out_where_nothing_is(small: Tracker) -> None:
    """More lines than a head holds, fewer than are kept: live, afterwards, and by pages."""
    sent = [f"{number:02d} {'a' * 60}" for number in range(10)]
    tracker = Tracker(small.database, settings={"log_max_bytes": 1024})
    live: list[str] = []
    async with tracker:

        async def follow() -> None:
            live.extend([line.message async for line in tracker.tail("x")])

        async with tracker.track("shop.x", task_id="x"):
            following = asyncio.create_task(follow())
            for line in sent:
                log.info(line)
                await tracker.core().feature(Logs).flush()
        await following
        later = [line.message async for line in tracker.tail("x")]
        page = await tracker.logs("x")

    assert sent == [line.message for line in page.items]
    assert sent == later
    assert sent == live


async def test_a_tail_tells_what_rolled_away(small: Tracker) -> None:
    """A follower that is slower than a flood sees a line for what it missed."""
    total = 0
    tracker = Tracker(small.database, settings={"log_max_bytes": 1024})
    async with tracker, tracker.track("shop.x", task_id="x"):
        lines = tracker.tail("x")
        for _ in range(5):
            for number in range(100):
                log.info("%d", number)
            await tracker.core().feature(Logs).flush()
            for _ in range(20):
                line = await anext(lines)
                total += int(line.message.split()[1]) if line.logger == "aiotrack" else 1
        await lines.aclose()

    assert total > 100


# ── collectors ──────────────────────────────────────────────────────────────────────────────────
async def test_a_collector_keeps_what_no_worker_runs(tracker: Tracker) -> None:
    """By task_id, of its logger and level alone, also in a thread; its attempt is the record's."""
    await tracker.register("x", "ops.backup", status="started")

    def work() -> None:
        with TaskLogCollector("x", level="WARNING", logger="shop"):
            log.info("too low")
            log.warning("kept")
            logging.getLogger("shopping").error("another")
            logging.getLogger("shop").error("kept, too")

    work()
    await asyncio.to_thread(work)
    await tracker.logs("x")  # written: they are the first attempt's
    await tracker.update("x", "retry")
    with TaskLogCollector("x"):
        log.info("again")
    log.error("after")
    page = await tracker.logs("x")

    assert [
        *[(1, "kept"), (1, "kept, too")] * 2,
        (2, "again"),
    ] == [(line.attempt, line.message) for line in page.items]


async def test_a_collectors_lines_are_of_the_attempt_that_it_was(tracker: Tracker) -> None:
    """Also where the next one begins at once, and in a block around both."""
    await tracker.register("x", "ops.backup", status="started")
    with TaskLogCollector("x"):
        log.info("first")
    with TaskLogCollector("x"):
        log.info("first, too")
        await tracker.update("x", "retry", error="e")
        await tracker.update("x", "started")
        log.info("second")
        await tracker.update("x", "success")
    page = await tracker.logs("x")

    assert [(1, "first"), (1, "first, too"), (2, "second")] == [
        (line.attempt, line.message) for line in page.items
    ]


async def test_lines_of_what_has_no_record_are_given(tracker: Tracker) -> None:
    """To the last page, and a filter that leaves none is an empty page; a tail needs a record."""
    with TaskLogCollector("x"):
        log.info("one")
        log.info("two")
    first = await tracker.logs("x", limit=1)
    last = await tracker.logs("x", limit=1, after=first.next)
    errors = await tracker.logs("x", level="ERROR")

    assert ["one"] == [line.message for line in first.items]
    assert ["two"] == [line.message for line in last.items]
    assert last.next is None
    assert ["one", "two"] == await messages(tracker, "x")
    assert ([], None) == (list(errors.items), errors.next)
    with pytest.raises(ExecutionNotFound):
        await anext(tracker.tail("x"))
    with pytest.raises(ExecutionNotFound):
        await tracker.logs("y")


async def test_a_collector_in_a_run_adds_to_it(small: Tracker) -> None:
    """What the tracker keeps anyway is kept once; another record's collector takes its own."""
    await small.register("y", "ops.backup")
    async with small.track("shop.x", task_id="x"):
        log.debug("no")
        with TaskLogCollector(level="DEBUG", logger=log):
            log.debug("debug")
            log.info("info")
            logging.getLogger("other").warning("other")
            with TaskLogCollector("y", level="ERROR"):
                log.info("mine")
                log.error("yours")

    assert ["debug", "info", "other", "mine"] == await messages(small, "x")
    assert ["yours"] == await messages(small, "y")


async def test_on_failure_only_a_collector_keeps_what_raises(sqlite_url: str) -> None:
    """Its block is the attempt."""
    async with Tracker(sqlite_url, settings={"logs": "on_failure_only"}) as tracker:
        await tracker.register("x", "ops.backup")
        with TaskLogCollector("x"):
            log.info("well")
        with contextlib.suppress(ValueError), TaskLogCollector("x"):
            log.info("badly")
            raise ValueError

        assert ["badly"] == await messages(tracker, "x")


async def test_a_collector_needs_one_tracker_and_one_execution(
    small: Tracker, tmp_path: Any
) -> None:
    """What cannot be meant is an error that says what to do."""
    with pytest.raises(InvalidValue, match="needs a task_id"), TaskLogCollector():
        pass
    with pytest.raises(InvalidValue, match="LOUD"):
        TaskLogCollector("x", level="LOUD")
    async with Tracker(f"sqlite+aiosqlite:///{tmp_path / 'two.db'}") as other:
        with pytest.raises(TrackerNotFound, match=r"two\.db.*name the one"), TaskLogCollector("x"):
            pass
        with TaskLogCollector("x", tracker=other):
            log.info("x")
        await other.register("x", "ops.backup")

        assert ["x"] == await messages(other, "x")
    await small.shutdown()
    with pytest.raises(TrackerNotFound, match="no tracker is running"), TaskLogCollector("x"):
        pass


async def test_the_last_tracker_leaves_nothing_behind(sqlite_url: str) -> None:
    """After a shutdown logging is as it was; what was logged before is written."""
    tracker = Tracker(sqlite_url)
    await tracker.startup()
    async with tracker.track("shop.x", task_id="x"):
        log.info("last words")
    await tracker.shutdown()
    after = logging.root.parent
    async with Tracker(sqlite_url) as reader:
        found = await messages(reader, "x")

    assert after is None
    assert ["last words"] == found
