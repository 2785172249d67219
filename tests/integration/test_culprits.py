"""A row, or a size of groups, that the database does not take: all others are recorded."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aiotrack import TaskStatus, Tracker
from aiotrack.journal import Journal
from aiotrack.recorder import Recorder
from aiotrack.report import Report, Witness
from tests.integration.load import BUDGET, run_report
from tests.waits import until

SLOWLY = """
    CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.002); RETURN new; END';
    CREATE TRIGGER slowly BEFORE INSERT ON aiotrack_executions
        FOR EACH ROW EXECUTE FUNCTION slowly();
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET statement_timeout = 200', current_database());
    END $$
"""
"""A hundred rows at most in one statement."""


@contextlib.asynccontextmanager
async def user(url: str, *statements: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect as somebody else does, and say some *statements* first."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        for statement in statements:
            await connection.execute(statement)
        yield connection
    finally:
        await connection.close()


# ── the journal's pieces ────────────────────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
@pytest.mark.parametrize("whose", ["own", "another's"])
async def test_a_journal_is_replayed_by_a_database_that_takes_little_at_once(
    postgres_url: str, tmp_path: Path, whose: str
) -> None:
    """An audit trigger and a limit of time: pieces are halved until they are taken."""
    reports = [run_report(f"task {number}") for number in range(600)]
    settings = {"journal_dir": str(tmp_path)}
    async with user(postgres_url, SLOWLY) as raw:
        tracker = Tracker(postgres_url, settings=settings)
        keeper = tracker.core().keeper
        if whose == "own":
            await keeper.keep_all(reports)
        else:
            left = Journal(keeper._journal._folder)
            left.append(reports)
            left.close()
        await tracker.startup()
        await until("the journal is replayed", lambda: not keeper.has_work, 30)
        found = await raw.fetchval("SELECT count(*) FROM aiotrack_executions")
        fresh = await tracker.recorder().commit(run_report("fresh"), at_once=True)
        await tracker.shutdown()

    assert (600, True) == (found, fresh)


# ── one that gets no answer ─────────────────────────────────────────────────────────────────────
HELD = "SELECT 1 FROM aiotrack_executions WHERE task_id = 'held' FOR UPDATE"

UNSEEN = """
    CREATE TEMP TABLE copied AS SELECT * FROM aiotrack_executions WHERE task_id = 'other';
    UPDATE copied SET task_id = 'held', id = id + 1000000;
    INSERT INTO aiotrack_executions OVERRIDING SYSTEM VALUE SELECT * FROM copied;
"""
"""A row that nobody sees before it is committed."""


async def tell(recorder: Recorder, number: int, *, pause: float = 0.01) -> list[bool]:
    """Report so many ends of other tasks, each at its own time; give which were committed."""
    told = []
    for count in range(number):
        told.append(asyncio.create_task(recorder.commit(run_report(f"{pause:g} {count}"))))
        await asyncio.sleep(pause)
    return await asyncio.gather(*told)


async def count(raw: asyncpg.Connection, where: str = "true") -> int:
    """Count what others see."""
    return int(await raw.fetchval(f"SELECT count(*) FROM aiotrack_executions WHERE {where}"))


async def seen(raw: asyncpg.Connection, where: str, number: int) -> None:
    """Wait until others see so many."""

    async def is_so() -> bool:
        return await count(raw, where) == number

    await until(f"{number} with {where}", is_so, 60)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("how", "journal"), [("row", "journal"), ("unseen", "memory")])
async def test_a_row_that_somebody_forgot_to_unlock_stops_no_other(
    postgres_url: str, tmp_path: Path, how: str, journal: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its task waits apart, nothing of it is lost, and it is told when the lock is gone."""
    settings = {"journal_dir": str(tmp_path / "journal")}
    async with (
        Tracker(postgres_url, settings=settings) as tracker,
        user(postgres_url) as raw,
        user(postgres_url) as forgotten,
    ):
        recorder, keeper = tracker.recorder(), tracker.core().keeper
        if journal == "memory":
            (tmp_path / "journal").touch()  # no folder: nothing can be kept in it
        known = run_report("held" if how == "row" else "other", witness=Witness.STARTED)
        await recorder.commit(known, at_once=True)
        transaction = forgotten.transaction()
        await transaction.start()
        await forgotten.execute(HELD if how == "row" else UNSEEN)
        ends = asyncio.create_task(recorder.commit(run_report("held")))
        early = await tell(recorder, 50)
        await until("its task is known", lambda: "does not take task held" in caplog.text, 60)
        await until("the rest is recorded", lambda: not tracker.core().recorder.is_stalled, 30)
        begun = recorder.counters["failures"]
        later = await tell(recorder, 300, pause=0.02)
        asked = asyncio.get_running_loop().time()
        await asyncio.gather(*(tracker.get("0.02 1") for _ in range(5)))
        asked = asyncio.get_running_loop().time() - asked
        failures = recorder.counters["failures"] - begun
        seen = await count(raw, "status = 'SUCCESS'")
        is_held = await count(raw, "task_id = 'held' AND status = 'SUCCESS'")
        second = await recorder.commit(run_report("held", attempt=2), at_once=True)
        await transaction.rollback()
        is_flushed = await recorder.flush(60)
        record = await tracker.get("held")
        attempts = await tracker.attempts("held")

    assert len(early) == 50
    assert not await ends
    assert ([True] * 300, 0) == (later, failures), "nobody waits for what is held"
    assert (350, 0, False) == (seen, is_held, second)
    assert BUDGET / 2 > asked, "who reads does not wait for it"
    assert is_flushed
    assert (TaskStatus.SUCCESS, 2, 2) == (record.status, record.runs, len(attempts))
    assert 0 == recorder.counters["dropped"]
    assert recorder.counters["journaled"] if journal == "journal" else True
    assert not keeper.has_work or keeper.is_due
    assert "task held is recorded again" in caplog.text


@pytest.mark.timeout(120)
async def test_what_waits_apart_survives_its_process(postgres_url: str, tmp_path: Path) -> None:
    """The journal keeps it until it is written: a later process tells it."""
    settings = {"journal_dir": str(tmp_path)}
    reports = [run_report("held"), *(run_report(f"task {number}") for number in range(200))]
    async with user(postgres_url) as raw, user(postgres_url) as forgotten:
        async with Tracker(postgres_url, settings=settings) as tracker:
            await tracker.recorder().commit(run_report("held", witness=Witness.STARTED))
            folder = tracker.core().keeper._journal._folder
        left = Journal(folder)
        left.append(reports)
        left.close()
        async with forgotten.transaction():
            await forgotten.execute(HELD)
            async with Tracker(postgres_url, settings=settings) as tracker:
                await seen(raw, "true", 201)
                fresh = await tracker.recorder().commit(run_report("fresh"), at_once=True)
                sizes = [path.stat().st_size for path in folder.iterdir()]
            kept = [path.stat().st_size for path in folder.iterdir()]
        async with Tracker(postgres_url, settings=settings) as tracker:
            await seen(raw, "status = 'SUCCESS'", len(reports) + 1)
            await tracker.recorder().flush(30)
            record = await tracker.get("held")
        empty = [path.stat().st_size for path in folder.iterdir()]

    assert fresh
    assert sum(sizes) > 0
    assert sum(kept) > 0
    assert (TaskStatus.SUCCESS, 1) == (record.status, record.runs)
    assert 0 == sum(empty)


# ── one that is refused ─────────────────────────────────────────────────────────────────────────
REFUSE = """
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.task_id LIKE '{pattern}' THEN RAISE EXCEPTION 'not with us' {using}; END IF;
        RETURN new; END $$;
    CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON aiotrack_executions
        FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("state", ["P0001", "38000", "42501", "U0001", "27000", "23514", "XX001"])
async def test_a_record_that_a_trigger_refuses_is_counted_and_stops_no_other(
    postgres_url: str, tmp_path: Path, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even without its values: it is lost, and the counters and the log say so."""
    settings = {"journal_dir": str(tmp_path)}
    async with Tracker(postgres_url, settings=settings) as tracker, user(postgres_url) as raw:
        recorder = tracker.recorder()
        await recorder.commit(run_report("first"), at_once=True)
        await raw.execute(REFUSE.format(pattern="bad%", using=f"USING ERRCODE = '{state}'"))
        told = await asyncio.gather(
            *(recorder.commit(run_report(f"{kind} {n}")) for n in range(40) for kind in ("a", "b")),
            recorder.commit(run_report("bad")),
        )
        alone = await recorder.commit(run_report("bad alone"), at_once=True)
        after = await recorder.commit(run_report("after"), at_once=True)
        is_flushed = await recorder.flush(30)
        found = await count(raw)

    assert (80, 82) == (sum(told[:-1]), found)
    assert is_flushed
    assert (False, 2) == (alone, recorder.counters["dropped"])
    assert 2 == recorder.counters["dropped_ended"]
    assert 82 <= recorder.counters["flushed"] + recorder.counters["journaled"]
    assert after or recorder.counters["journaled"]
    assert "the record of task bad cannot be stored" in caplog.text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("witness", [Witness.ENDED, Witness.STARTED])
async def test_a_record_that_is_refused_alone_stops_none_that_comes_later(
    postgres_url: str, tmp_path: Path, witness: Witness
) -> None:
    """Nobody knows whose fault it is, until others are tried: they are, though it was first."""
    settings = {"journal_dir": str(tmp_path)}
    async with Tracker(postgres_url, settings=settings) as tracker, user(postgres_url) as raw:
        recorder = tracker.recorder()
        await recorder.commit(run_report("first"), at_once=True)
        await raw.execute(REFUSE.format(pattern="bad%", using=""))
        bad = await recorder.commit(run_report("bad", witness=witness), at_once=True)
        await asyncio.sleep(2)
        told = []
        for number in range(40):
            told.append(await recorder.commit(run_report(f"good {number}"), at_once=True))
            await asyncio.sleep(0.1)
        is_flushed = await recorder.flush(20)
        found = await count(raw)

    assert (False, 41, True) == (bad, found, is_flushed)
    assert told[-10:] == [True] * 10
    assert 1 == recorder.counters["dropped"]


@pytest.mark.timeout(60)
async def test_a_trigger_that_refuses_all_is_an_outage(postgres_url: str, tmp_path: Path) -> None:
    """It is nobody's fault: nothing is lost, and nothing is stored without its values."""
    settings = {"journal_dir": str(tmp_path)}
    async with Tracker(postgres_url, settings=settings) as tracker, user(postgres_url) as raw:
        recorder = tracker.recorder()
        await recorder.commit(run_report("first"), at_once=True)
        await raw.execute(REFUSE.format(pattern="%", using=""))
        told = await asyncio.gather(
            *(recorder.commit(run_report(f"task {number}")) for number in range(600))
        )
        await asyncio.sleep(3)
        told += await tell(recorder, 50)
        before = await count(raw)
        await raw.execute("DROP TRIGGER refuse ON aiotrack_executions")
        is_flushed = await recorder.flush(40)
        found = await count(raw, "status = 'SUCCESS' AND result = '1'")

    assert (1, True) == (before, is_flushed)
    assert not any(told)
    assert (651, 0) == (found, recorder.counters["dropped"])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("change", ["made", "dropped"])
async def test_a_trigger_that_changes_within_a_write_loses_nothing(
    postgres_url: str, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of a group are refused and others taken, and neither is anybody's fault."""
    settings = {"journal_dir": str(tmp_path)}
    make, drop = REFUSE.format(pattern="%", using=""), "DROP TRIGGER refuse ON aiotrack_executions"
    async with Tracker(postgres_url, settings=settings) as tracker, user(postgres_url) as raw:
        recorder, writer = tracker.recorder(), tracker.core().repository._writer
        await recorder.commit(run_report("first"), at_once=True)
        await raw.execute(REFUSE.format(pattern="bad", using="") if change == "made" else make)
        written: list[int] = []
        write = writer.write

        async def counted(reports: Sequence[Report]) -> None:
            try:
                await write(reports)
            finally:
                written.append(len(reports))
                if len(written) == 8:  # the first halves of the first halves
                    await raw.execute(make if change == "made" else drop)

        monkeypatch.setattr(writer, "write", counted)
        names = [*(f"task {number}" for number in range(63)), "bad"]
        told = [asyncio.create_task(recorder.commit(run_report(name))) for name in names]
        await until("it has changed", lambda: len(written) > 8, 20)
        if change == "made":
            await until("all are refused", lambda: recorder.counters["failures"] > 0, 20)
            await raw.execute(drop)
        await asyncio.wait(told)
        is_flushed = await recorder.flush(40)
        found = await count(raw, "status = 'SUCCESS' AND result = '1'")

    assert (True, 0) == (is_flushed, recorder.counters["dropped"])
    assert 65 == found


SLOWLY_REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.result = '1' THEN PERFORM pg_sleep(0.5); END IF;
        RAISE EXCEPTION 'not with us'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON aiotrack_executions
        FOR EACH ROW EXECUTE FUNCTION refuse();
"""
"""It takes its time for what has its values."""

ASLEEP = """
    SELECT query_start FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event = 'PgSleep'
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_trigger_that_is_dropped_leaves_no_record_without_its_values(
    postgres_url: str, tmp_path: Path, number: int
) -> None:
    """Who drops it waits for a write that it refuses, and goes before the next one."""
    settings = {"journal_dir": str(tmp_path)}
    tries = set()
    async with Tracker(postgres_url, settings=settings) as tracker, user(postgres_url) as raw:
        recorder = tracker.recorder()
        await recorder.commit(run_report("first"), at_once=True)
        await raw.execute(SLOWLY_REFUSE)
        told = asyncio.create_task(recorder.commit(run_report("task"), at_once=True))

        async def is_tried() -> bool:
            tries.add(await raw.fetchval(ASLEEP))
            return len(tries - {None}) == number

        await until(f"it is tried, try {number}", is_tried, 30)
        await raw.execute("DROP TRIGGER refuse ON aiotrack_executions")
        await told
        is_flushed = await recorder.flush(30)
        found = await count(raw, "status = 'SUCCESS' AND result = '1'")

    assert (True, 2, 0) == (is_flushed, found, recorder.counters["dropped"])


LATE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.task_id = 'bad' AND new.result = '1' THEN RAISE EXCEPTION 'not with us'; END IF;
        RETURN new; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON aiotrack_executions
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
"""


async def test_a_trigger_that_waits_for_the_commit_costs_only_the_values(
    postgres_url: str, tmp_path: Path
) -> None:
    """It is asked before the values are taken for stored."""
    settings = {"journal_dir": str(tmp_path)}
    async with Tracker(postgres_url, settings=settings) as tracker, user(postgres_url, LATE) as raw:
        recorder = tracker.recorder()
        names = ["bad", "one", "two"]
        told = await asyncio.gather(*(recorder.commit(run_report(name)) for name in names))
        is_flushed = await recorder.flush(20)
        whole = await count(raw, "result = '1'")
        record = await tracker.get("bad")

    assert (True, [True] * 3, 2) == (is_flushed, told, whole)
    assert ({"$refused": True}, 0) == (record.result, recorder.counters["dropped"])


async def test_a_fault_of_ours_costs_only_the_values(database_url: str, tmp_path: Path) -> None:
    """No database was asked: it says nothing of what is left of the report."""
    settings = {"journal_dir": str(tmp_path / "journal")}
    bad: Any = {"color": 7}  # neither a stamp nor a text
    async with Tracker(database_url, settings=settings) as tracker:
        recorder = tracker.recorder()
        reports = [replace(run_report("bad"), patch=bad), run_report("one"), run_report("two")]
        told = await asyncio.gather(*map(recorder.commit, reports))
        is_flushed = await recorder.flush(20)
        results = {one.task_id: one.result for one in (await tracker.list()).items}

    assert (True, [True] * 3, 0) == (is_flushed, told, recorder.counters["dropped"])
    assert {"bad": {"$refused": True}, "one": 1, "two": 1} == results


@pytest.mark.parametrize("how", ["ABORT", "ROLLBACK"])
@pytest.mark.parametrize(("when", "lost"), [("new.result = '1'", 0), ("true", 1)])
async def test_a_trigger_of_sqlite_costs_only_what_it_refuses(
    sqlite_url: str, how: str, when: str, lost: int
) -> None:
    """The values, or the record; also where it ends the transaction."""
    async with Tracker(sqlite_url) as tracker:
        recorder = tracker.recorder()
        await recorder.commit(run_report("first"), at_once=True)
        with contextlib.closing(sqlite3.connect(sqlite_url.partition("///")[2])) as raw:
            raw.execute(f"""
                CREATE TRIGGER refuse BEFORE INSERT ON aiotrack_executions
                    WHEN new.task_id = 'bad' AND {when}
                    BEGIN SELECT RAISE({how}, 'not with us'); END""")
        names = [f"task {number}" for number in range(20)]
        told = await asyncio.gather(*(recorder.commit(run_report(it)) for it in [*names, "bad"]))
        is_flushed = await recorder.flush(10)
        page = await tracker.list(limit=100)

    results = {record.task_id: record.result for record in page.items}
    assert ([True] * 21, True) == (told, is_flushed)
    assert lost == recorder.counters["dropped"]
    assert lost == ("bad" not in results)
    assert results.pop("bad", {"$refused": True}) == {"$refused": True}
    assert dict.fromkeys(["first", *names], 1) == results
