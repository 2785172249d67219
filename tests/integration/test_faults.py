"""The database in every kind of trouble: tasks go on, nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from aiotrack import Execution, TaskStatus, Tracker
from aiotrack.clock import Clock
from aiotrack.errors import StoreUnavailable
from aiotrack.recorder import Recorder
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository import Repository
from aiotrack.testing.servers import PostgresServer
from tests.integration.bench import Bench, bench
from tests.integration.proxy import proxied
from tests.unit.poison import POISON

BUDGET = 1.0
"""Seconds that a hook waits for its commit at most: the default of ``commit_budget``."""

QUICK = 0.05
"""Seconds, far below the budget, that a task may take while the database is known to be away."""


async def double(value: int) -> int:
    """Do what a task does."""
    if value % 10 == 9:
        raise ValueError(f"no {value}")
    return value * 2


def run_report(task_id: str, attempt: int = 1, witness: Witness = Witness.ENDED) -> Report:
    """Give a report of a run."""
    origin = Origin(task_id=task_id, task_name="shop.rows", module="shop", created_at=1_000_000)
    status = TaskStatus.SUCCESS if witness is Witness.ENDED else TaskStatus.STARTED
    report = Report(origin, witness, status, run_id=f"run {attempt}", attempt=attempt)
    report.started_at = 2_000_000 * attempt
    if witness is Witness.ENDED:
        report.finished_at, report.duration, report.result = 3_000_000 * attempt, 1.0, "1"
    return report


def send_report(task_id: str) -> Report:
    """Give the report of a send."""
    origin = Origin(task_id=task_id, task_name="shop.rows", module="shop", created_at=1_000_000)
    return Report(origin, Witness.SENT, TaskStatus.PENDING)


async def everything(tracker: Tracker) -> list[Execution]:
    """Read every record."""
    found: list[Execution] = []
    after = None
    while True:
        page = await tracker.list(limit=500, after=after)
        found += page.items
        after = page.next
        if after is None:
            return found


async def until_settled(tracker: Tracker, count: int) -> None:
    """Wait until so many records are final: journals that others left are replayed."""
    while True:
        stats = await tracker.stats()
        if stats.success + stats.failure >= count:
            return
        await asyncio.sleep(0.05)


class Load:
    """Sends tasks without a pause, and remembers what each has to leave."""

    def __init__(self, b: Bench) -> None:
        self._bench = b
        self._task = b.task("shop.double")(double)
        self._numbers = itertools.count()
        self.sent: dict[str, int] = {}
        self.took: list[float] = []

    async def batch(self, count: int = 20) -> float:
        """Run so many tasks at once; give the seconds that all took."""
        begun = time.perf_counter()
        numbers = list(itertools.islice(self._numbers, count))
        told = await asyncio.gather(*(self._task.kiq(number) for number in numbers))
        self.sent |= {one.task_id: number for one, number in zip(told, numbers, strict=True)}
        await self._bench.settle()
        self.took.append(time.perf_counter() - begun)
        return self.took[-1]

    @contextlib.asynccontextmanager
    async def all_the_time(self) -> AsyncIterator[None]:
        """Send while the block runs."""
        is_over = asyncio.Event()

        async def go() -> None:
            while not is_over.is_set():
                await self.batch()
                await asyncio.sleep(0.01)

        task = asyncio.create_task(go())
        try:
            yield
        finally:
            is_over.set()
            await task

    def faults(self, records: Sequence[Execution]) -> list[str]:
        """Compare what was sent with its records; give what is wrong."""
        found = {one.task_id: one for one in records}
        wrong = [f"phantom {one}" for one in found.keys() - self.sent.keys()]
        wrong += [f"{one} is missing" for one in self.sent.keys() - found.keys()]
        for task_id, number in self.sent.items():
            record = found.get(task_id)
            if record is None:
                continue
            fails = number % 10 == 9
            expected = (
                TaskStatus.FAILURE if fails else TaskStatus.SUCCESS,
                None if fails else number * 2,
                [number],
                1,
                0,
            )
            got = (record.status, record.result, record.args, record.runs, record.duplicates)
            if expected != got:
                wrong.append(f"{number}: expected {expected}, got {got}")
        return wrong


# ── R14: faults everywhere ──────────────────────────────────────────────────────────────────────
class FaultyWrite:
    """Every third write fails or hangs; a failing one may have stored its reports."""

    def __init__(self, write: Callable[[Sequence[Report]], Awaitable[None]]) -> None:
        self._write = write
        self._calls = itertools.count()
        self._chance = random.Random(14)

    async def __call__(self, reports: Sequence[Report]) -> None:
        if next(self._calls) % 3:
            await self._write(reports)
            return
        fault = self._chance.choice(["fails", "hangs", "loses", "breaks"])
        if fault == "hangs":
            await asyncio.sleep(0.2)
        if fault == "loses":
            await self._write(reports)
        if fault == "breaks":
            raise KeyError("a fault of ours")
        raise StoreUnavailable(fault)


async def test_tasks_run_as_without_a_tracker_when_a_third_of_the_writes_fails(
    database_url: str,
) -> None:
    """R14: the same results for their senders, and every record right in the end."""
    async with Tracker(database_url) as tracker, bench(tracker) as b:
        core = tracker._core()
        core.recorder = Recorder(FaultyWrite(core.repository.write), budget=0.1)
        task = b.task("shop.double")(double)
        load = Load(b)
        results = []
        for first in range(0, 300, 50):
            told = await asyncio.gather(*(task.kiq(n) for n in range(first, first + 50)))
            load.sent |= {one.task_id: first + n for n, one in enumerate(told)}
            results += [await one.wait_result(timeout=5) for one in told]
        await tracker.flush(10)
        wrong = load.faults(await everything(tracker))

    assert [None if n % 10 == 9 else n * 2 for n in range(300)] == [
        one.return_value for one in results
    ]
    assert [] == wrong[:5]


# ── R17: killed under load ──────────────────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
async def test_a_database_that_is_killed_under_load_loses_nothing(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """R17: Postgres dies twice like in a power cut; every record is there, once."""
    async with Tracker(own_postgres.url) as tracker, bench(tracker) as b:
        load = Load(b)
        async with load.all_the_time():
            for _ in range(2):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(own_postgres.kill)
                await asyncio.sleep(1.5)
                await asyncio.to_thread(own_postgres.start)
                await asyncio.sleep(1)
        begun = time.perf_counter()
        flushed = await tracker.flush(30)
        took = time.perf_counter() - begun
        records = await everything(tracker)
        counters = tracker.recorder().counters

    assert flushed
    assert [] == load.faults(records)[:5]
    assert 0 == counters["dropped"]
    assert 10 > took
    assert 3 >= sum(took > 0.5 for took in load.took), "a wait for each outage, and no more"


# ── R18: lost replies ───────────────────────────────────────────────────────────────────────────
async def test_a_lost_reply_leaves_one_row(postgres_url: str) -> None:
    """R18: the reply of any statement, COMMIT among them, is lost: stored once, told as stored."""
    chance = random.Random(18)
    async with proxied(postgres_url) as (proxy, url), Tracker(url) as tracker:
        recorder = tracker.recorder()
        told = []
        for number in range(50):
            task_id = f"task {number}"
            proxy.lose_reply(chance.randint(1, 8) if number % 2 else 1)
            reports = [send_report(task_id), run_report(task_id)]
            if number % 2:
                reports.append(run_report(task_id, attempt=2))
            told += await asyncio.gather(*(recorder.commit(one, at_once=True) for one in reports))
        records = await everything(tracker)
        attempts = [len(await tracker.attempts(f"task {number}")) for number in range(50)]

    assert [True] * 125 == told
    assert 45 <= proxy.lost
    assert Counter({f"task {n}": 1 for n in range(50)}) == Counter(r.task_id for r in records)
    assert [1, 2] * 25 == attempts
    assert {TaskStatus.SUCCESS} == {one.status for one in records}


# ── R19: no answer, a slow answer ───────────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
async def test_a_database_that_never_answers_costs_a_second_once(
    postgres_url: str, tmp_path: Path
) -> None:
    """R19: tasks in flight wait for the budget, later ones not; the end is within 5 s."""
    settings = {"journal_dir": str(tmp_path / "journals")}
    async with proxied(postgres_url) as (proxy, url):
        tracker = Tracker(url, settings=settings)
        async with bench(tracker) as b:
            load = Load(b)
            await load.batch()
            proxy.is_black_hole = True
            first = await load.batch()
            later = [await load.batch() for _ in range(20)]
            begun = time.perf_counter()
        stop = time.perf_counter() - begun
        proxy.is_black_hole = False
        proxy.cut()
        async with Tracker(url, settings=settings) as heir:
            await heir.flush(5)
            await until_settled(heir, len(load.sent))
            wrong = load.faults(await everything(heir))
    print(f"first {first:.3f} s, later {max(later):.4f} s for 20 tasks, stop {stop:.3f} s")

    assert [] == wrong[:5]
    assert 2 * BUDGET + QUICK > first, "a send and its task, a budget each at most"
    assert QUICK > sorted(later)[10]
    assert 5 > stop


@pytest.mark.timeout(60)
async def test_an_engine_without_limits_is_given_up(postgres_url: str) -> None:
    """R19: an engine of the user's has no limits: a COMMIT without an answer ends all the same."""
    async with proxied(postgres_url) as (proxy, url):
        engine = create_async_engine(url)
        async with Tracker(engine) as tracker:
            recorder = tracker.recorder()
            for attempt in range(1, 3):
                await recorder.commit(run_report("a", attempt=attempt), at_once=True)
            proxy.swallow_reply(7)  # BEGIN, five statements, COMMIT
            told = await recorder.commit(run_report("a", attempt=3), at_once=True)
            flushed = await tracker.flush(15)
            runs = (await tracker.get("a")).runs
        await engine.dispose()

    assert (False, True, 3) == (told, flushed, runs)
    assert 1 == proxy.swallowed


async def test_a_slow_database_is_waited_for(postgres_url: str) -> None:
    """R19: replies half a second late: each send and each end waits for its own, none is lost."""
    async with proxied(postgres_url) as (proxy, url), Tracker(url) as tracker, bench(tracker) as b:
        load = Load(b)
        await load.batch()
        proxy.delay = 0.5
        took = [await load.batch() for _ in range(2)]
        proxy.delay = 0.0
        await tracker.flush(10)
        wrong = load.faults(await everything(tracker))

    assert [] == wrong[:5]
    assert 2 * BUDGET + QUICK > max(took)


# ── R20: refusals ───────────────────────────────────────────────────────────────────────────────
@contextlib.asynccontextmanager
async def no_connections(server: PostgresServer) -> AsyncIterator[None]:
    """53300: others hold every connection, and ours are ended."""
    held = []
    try:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            while len(held) < 100:
                held.append(await asyncpg.connect(server.dsn))
        query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
        await held[0].execute(f"{query} application_name = 'aiotrack'")
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


CAUSES: dict[str, Callable[[PostgresServer], Any]] = {
    "53300 too many connections": no_connections,
    "25006 read only": lambda server: setting(server, "default_transaction_read_only = on"),
    "55P03 lock timeout": lambda server: locked(server, "lock_timeout = 200"),
    "57014 statement timeout": lambda server: locked(server, "statement_timeout = 300"),
    "a lock for ever": locked,
}


@pytest.mark.timeout(100)
async def test_every_refusal_is_recovered_from_without_a_restart(tmp_path: Path) -> None:
    """R20: whatever the database says, tasks go on; within 10 s after its cause all is stored."""
    limits = {"max_connections": "14", "superuser_reserved_connections": "0"}
    recovery = {}
    with PostgresServer(settings=limits) as server:
        async with Tracker(server.url) as tracker, bench(tracker) as b:
            load = Load(b)
            for name, cause in CAUSES.items():
                await load.batch()
                async with cause(server):
                    await load.batch()
                    await asyncio.sleep(BUDGET)
                    quick = await load.batch()
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


# ── R21: away from the start ────────────────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
@pytest.mark.parametrize("is_writable", [True, False])
async def test_a_database_that_is_away_from_the_start(
    own_postgres: PostgresServer, tmp_path: Path, is_writable: bool
) -> None:
    """R21: 20,000 reports wait in bounded memory and a bounded journal; the rest is counted."""
    folder = tmp_path / "journals"
    if not is_writable:
        folder.write_text("a file where the folder should be")
    await asyncio.to_thread(own_postgres.kill)
    settings = {"journal_dir": str(folder), "max_backlog": 5000}
    tracker = Tracker(own_postgres.url, settings=settings)
    await tracker.startup(wait=False)
    recorder = tracker.recorder()
    await recorder.commit(send_report("first"), at_once=True)
    begun = time.perf_counter()
    for first in range(0, 10_000, 100):
        numbers = range(first, first + 100)
        await asyncio.gather(*(recorder.commit(send_report(f"sent {n}")) for n in numbers))
        await asyncio.gather(*(recorder.commit(run_report(f"ended {n}")) for n in numbers))
    took = time.perf_counter() - begun
    backlog = recorder.backlog
    await asyncio.to_thread(own_postgres.start)
    flushed = await tracker.flush(30)
    names = Counter(one.task_id.partition(" ")[0] for one in await everything(tracker))
    counters = recorder.counters
    await tracker.shutdown()
    print(f"{took / 20_000 * 1e6:.0f} us for each report while the database was away")

    assert flushed
    assert 5000 >= backlog
    assert 20_001 == counters["reports"]
    assert 20_001 == names.total() + counters["dropped"]
    assert (10_000 if is_writable else 5000 - 250) <= names["ended"]
    assert counters["dropped_ended"] == 10_000 - names["ended"]


# ── R23: the same rows from everywhere ──────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
async def test_writers_that_meet_on_the_same_rows_never_fail(postgres_url: str) -> None:
    """R23: four writers, the same 200 tasks in any order, 50 rounds: no group fails."""
    stores = [Repository(postgres_url, clock=Clock()) for _ in range(4)]

    async def write(number: int, store: Repository) -> None:
        chance = random.Random(number)
        writer = store._make_writer()
        for round_ in range(50):
            reports = [
                run_report(f"task {n}", attempt=1 + (n + round_) % 3 // 2, witness=witness)
                for n in range(200)
                for witness in chance.choices([Witness.STARTED, Witness.ENDED])
            ]
            chance.shuffle(reports)
            await writer.write(reports)
        await writer.release()

    await asyncio.gather(*(write(number, store) for number, store in enumerate(stores)))
    async with Tracker(postgres_url) as tracker:
        stats = await tracker.stats()
    for store in stores:
        await store.close()

    assert (200, 200) == (stats.total, stats.success)


# ── R28: poison ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.timeout(120)
@pytest.mark.parametrize("is_alone", [True, False])
async def test_no_value_costs_more_than_itself(database_url: str, is_alone: bool) -> None:
    """R28: each poison as argument and as result, alone or among others: all can be read."""
    names = list(POISON)
    async with Tracker(database_url) as tracker, bench(tracker) as b:

        @b.task("shop.poison")
        async def poison(number: int) -> Any:
            async with tracker.track("shop.inner", args=[POISON[names[number]]()]):
                return [POISON[names[number]]()]  # TaskIQ itself stumbles over some when bare

        task = b.task("shop.double")(double)
        load = Load(b)
        told = {}
        for number in range(len(names)):
            told[names[number]] = (await poison.kiq(number)).task_id
            if not is_alone:
                sent = await asyncio.gather(*(task.kiq(number) for _ in range(5)))
                load.sent |= {one.task_id: number for one in sent}
            else:
                await b.settle()
        await b.settle()
        await tracker.flush(10)
        records = {one.task_id: one for one in await everything(tracker)}

    missing = [
        name
        for name, task_id in told.items()
        if records[task_id].status is not TaskStatus.SUCCESS
        or "record_error" in records[task_id].metadata
    ]
    inner = [one for one in records.values() if one.task_name == "shop.inner"]
    neighbours = [one for one in records.values() if one.task_name == "shop.double"]

    assert [] == missing
    assert (len(names), len(names)) == (len(told), len(inner))
    assert {TaskStatus.SUCCESS} == {one.status for one in inner}
    assert [] == load.faults(neighbours)[:5]
