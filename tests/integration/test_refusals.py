"""A database that refuses, and writers that meet on the same rows: every group goes in."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from aiotrack import Tracker
from aiotrack.clock import Clock
from aiotrack.errors import StoreUnavailable
from aiotrack.report import Witness
from aiotrack.repository import Repository, postgres, session
from aiotrack.repository.read import Reader
from aiotrack.testing.servers import PostgresServer
from tests.integration.bench import bench
from tests.integration.load import BUDGET, QUICK, Load, everything, run_report
from tests.waits import until


# ── R20: refusals ───────────────────────────────────────────────────────────────────────────────
@contextlib.asynccontextmanager
async def no_connections(server: PostgresServer) -> AsyncIterator[None]:
    """53300: others hold every connection, and ours are ended."""
    held = []
    try:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            while len(held) < 100:
                held.append(await asyncpg.connect(server.dsn))
        await end_ours(held[0])
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            while len(held) < 100:
                held.append(await asyncpg.connect(server.dsn))
        yield
    finally:
        for one in held:
            await one.close()


@contextlib.asynccontextmanager
async def setting(server: PostgresServer, *words: str) -> AsyncIterator[None]:
    """Change the server's settings for every session."""
    for word in words:
        await asyncio.to_thread(server.psql, f"ALTER SYSTEM SET {word}")
    await asyncio.to_thread(server.psql, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        for word in words:
            name = word.partition(" ")[0]
            await asyncio.to_thread(server.psql, f"ALTER SYSTEM RESET {name}")
        await asyncio.to_thread(server.psql, "SELECT pg_reload_conf()")


@contextlib.asynccontextmanager
async def locked(server: PostgresServer, *words: str) -> AsyncIterator[None]:
    """55P03, 57014, or no answer at all: somebody locks the table."""
    async with setting(server, *words):
        holder = await asyncpg.connect(server.dsn)
        try:
            async with holder.transaction():
                await holder.execute("LOCK TABLE aiotrack_executions IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await holder.close()


@contextlib.asynccontextmanager
async def shutting_down(server: PostgresServer) -> AsyncIterator[None]:
    """57P03: it ends when its last session does, and takes no new one; then it starts again."""
    holder = await asyncpg.connect(server.dsn)
    os.kill(server.pid, signal.SIGTERM)  # 'smart'
    await end_ours(holder)
    try:
        yield
    finally:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        holder.terminate()


async def end_ours(connection: asyncpg.Connection) -> None:
    """End every session of the tracker."""
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
    await connection.execute(f"{query} application_name = 'aiotrack'")


CAUSES: dict[str, Callable[[PostgresServer], Any]] = {
    "53300 too many connections": no_connections,
    "25006 read only": lambda server: setting(server, "default_transaction_read_only = on"),
    "55P03 lock timeout": lambda server: locked(server, "lock_timeout = 200"),
    "57014 statement timeout": lambda server: locked(server, "statement_timeout = 300"),
    "57P03 cannot connect now": shutting_down,
    "a lock for ever": locked,
}


LIMITS = {"max_connections": "14", "superuser_reserved_connections": "0"}


async def is_recording(tracker: Tracker) -> bool:
    """Tell whether the writer's last try went well."""
    return tracker.recorder()._outage.since is None


@pytest.mark.timeout(100)
async def test_every_refusal_is_recovered_from_without_a_restart() -> None:
    """R20: whatever the database says, tasks go on; within 10 s after its cause all is stored."""
    recovery = {}
    with PostgresServer(settings=LIMITS) as server:
        async with Tracker(server.url) as tracker, bench(tracker) as b:
            load = Load(b)
            for name, cause in CAUSES.items():
                await load.batch()
                async with cause(server):
                    await load.batch()
                    await asyncio.sleep(BUDGET)
                    quick = min([await load.batch() for _ in range(3)])
                    failures = tracker.recorder().counters["failures"]
                begun = time.perf_counter()
                flushed = await tracker.flush(15)
                recovery[name] = (flushed, time.perf_counter() - begun)

                assert 0 < failures, name
                assert QUICK > quick, name
                tracker.recorder().counters["failures"] = 0
            wrong = load.faults(await everything(tracker))
            dropped = tracker.recorder().counters["dropped"]
    print({name: round(took, 2) for name, (_, took) in recovery.items()})

    assert [] == wrong[:5]
    assert 0 == dropped
    assert {} == {name: one for name, one in recovery.items() if not one[0] or one[1] > 10}


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_every_refusal_under_load_for_long() -> None:
    """R20: each cause for five seconds under load, three times: nothing lost, back within 10 s."""
    recovery: dict[str, list[float]] = {}
    with PostgresServer(settings=LIMITS) as server:
        async with Tracker(server.url) as tracker, bench(tracker) as b:
            load = Load(b)
            for name, cause in list(CAUSES.items()) * 3:
                async with load.all_the_time():
                    async with cause(server):
                        await asyncio.sleep(5)
                    begun = time.perf_counter()
                    await until("recording goes on", lambda: is_recording(tracker), pause=0.005)
                    recovery.setdefault(name, []).append(time.perf_counter() - begun)

                assert await tracker.flush(30), name
            wrong = load.faults(await everything(tracker))
            counters = tracker.recorder().counters
    for name, took in recovery.items():
        print(f"R20: {name}: back after {max(took):.2f} s at worst")
    print(f"R20: {len(load.sent)} tasks, {counters['dropped']} dropped, {len(wrong)} wrong")

    assert [] == wrong[:5]
    assert 0 == counters["dropped"]
    assert 10 > max(max(took) for took in recovery.values())


# ── R23: the same rows from everywhere ──────────────────────────────────────────────────────────
ROWS = 200


async def meet(postgres_url: str, groups: int) -> tuple[int, int]:
    """Let four writers tell of the same rows in any order while sweeps change and delete them.

    Returns:
        How many batches the sweeps did, and how many deadlocks the server saw.
    """
    stores = [Repository(postgres_url, clock=Clock()) for _ in range(4)]
    raw = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    is_over = asyncio.Event()

    async def write(number: int, store: Repository) -> None:
        chance = random.Random(number)
        writer = store._make_writer()
        for round_ in range(groups // len(stores)):
            reports = [
                run_report(f"task {n}", attempt=1 + (n + round_) % 3 // 2, witness=witness)
                for n in range(ROWS)
                for witness in chance.choices([Witness.STARTED, Witness.ENDED])
            ]
            chance.shuffle(reports)
            await writer.write(reports)
        await writer.release()

    async def sweep() -> int:
        for number in itertools.count():
            if is_over.is_set():
                return number
            await raw.execute(SWEEP_DELETE if number % 2 else SWEEP_UPDATE)
            await asyncio.sleep(0.005)
        return 0

    sweeping = asyncio.create_task(sweep())
    await asyncio.gather(*(write(number, store) for number, store in enumerate(stores)))
    is_over.set()
    swept = await sweeping
    deadlocks = await raw.fetchval(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    await stores[0].connect()
    await stores[0].write([run_report(f"task {n}", attempt=3) for n in range(ROWS)])
    await raw.close()
    for store in stores:
        await store.close()
    return swept, deadlocks


SOME = (
    "(SELECT task_id FROM aiotrack_executions WHERE status = '{}' "
    "ORDER BY task_id LIMIT 50 FOR UPDATE SKIP LOCKED)"
)
SWEEP_UPDATE = "UPDATE aiotrack_executions SET presumed = true WHERE task_id IN " + SOME.format(
    "STARTED"
)
SWEEP_DELETE = (
    "WITH gone AS (DELETE FROM aiotrack_executions WHERE task_id IN "
    + SOME.format("SUCCESS")
    + " RETURNING task_id) DELETE FROM aiotrack_attempts t USING gone "
    "WHERE t.task_id = gone.task_id"
)


@pytest.mark.timeout(60)
async def test_writers_and_sweeps_that_meet_on_the_same_rows_never_fail(postgres_url: str) -> None:
    """R23: four writers, the same 200 tasks in any order, 60 groups: none fails."""
    swept, deadlocks = await meet(postgres_url, 60)
    async with Tracker(postgres_url) as tracker:
        stats = await tracker.stats()

    assert (ROWS, ROWS) == (stats.total, stats.success)
    assert 0 == deadlocks
    assert 0 < swept


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_a_thousand_groups_that_meet_on_the_same_rows(postgres_url: str) -> None:
    """R23: 1,000 groups of 200 reports from four writers beside sweeps: none fails."""
    begun = time.perf_counter()
    swept, deadlocks = await meet(postgres_url, 1000)
    took = time.perf_counter() - begun
    async with Tracker(postgres_url) as tracker:
        stats = await tracker.stats()
    print(f"R23: 1,000 groups, 0 failed, {deadlocks} deadlocks, {swept} sweeps, {took:.0f} s")

    assert (ROWS, ROWS) == (stats.total, stats.success)
    assert 0 == deadlocks
    assert 100 < swept


async def test_runs_that_outlived_their_execution_are_no_obstacle(postgres_url: str) -> None:
    """Somebody deletes an execution and leaves its attempts: reports that come again go in."""
    raw = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    async with Tracker(postgres_url) as tracker:
        recorder = tracker.recorder()
        reports = [run_report("a"), run_report("a", attempt=2)]
        for one in reports:
            await recorder.commit(one, at_once=True)
        await raw.execute("DELETE FROM aiotrack_executions")
        told = [await recorder.commit(one, at_once=True) for one in reports]
        attempts = [one.attempt for one in await tracker.attempts("a")]
        record = await tracker.get("a")
    await raw.close()

    assert [True, True] == told
    assert [1, 2] == attempts
    assert (2, "1") == (record.runs, str(record.result))


async def test_nothing_is_one_kind_of_nothing(postgres_url: str) -> None:
    """A result that is JSON's null, told alone and in company: IS NULL finds all of them."""
    raw = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    ends = [run_report(name) for name in "abc"]
    for one in ends:
        one.result = "null"
    async with Tracker(postgres_url) as tracker:
        for group in (ends[:1], ends[1:]):
            await tracker.core().repository.write(group)
    found = await raw.fetchval("SELECT count(*) FROM aiotrack_executions WHERE result IS NULL")
    await raw.close()

    assert 3 == found


@pytest.mark.parametrize("way", ["one statement", "one after the other", "a transaction"])
async def test_a_whole_write_is_over_in_time(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Whatever the driver waits for without a limit of its own; the next write is as any."""
    monkeypatch.setattr(session, "LIMIT", 0.5)
    monkeypatch.setattr(postgres, "COMMAND_TIMEOUT", 20.0)
    repository = Repository(postgres_url, clock=Clock())
    await repository.write([run_report("before")])
    writer = repository._writer
    assert isinstance(writer, postgres.PostgresWriter)

    async def slowly(connection: Any) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if way == "a transaction":
                await stack.enter_async_context(writer._transaction(connection))
            for _ in range(1 if way == "one statement" else 20):
                seconds = 20 if way == "one statement" else 0.2
                await connection.fetch("SELECT pg_sleep($1)", seconds)

    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match="did not take a write"):
        await writer._connected(slowly)
    took = time.monotonic() - begun
    monkeypatch.undo()
    await repository.write([run_report("after")])
    await asyncio.sleep(0.6)  # the timer of the write before ends none that came later
    await repository.write([run_report("later")])
    reader = Reader(repository)
    known = [(await reader.get(name)).task_id for name in ("before", "after", "later")]
    await repository.close()

    assert ["before", "after", "later"] == known
    assert 0.5 <= took < 2.5
