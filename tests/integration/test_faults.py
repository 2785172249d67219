"""The database in every kind of trouble: tasks go on, nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aiotrack import TaskStatus, Tracker
from aiotrack.errors import StoreUnavailable
from aiotrack.recorder import Recorder
from aiotrack.report import Report
from aiotrack.repository import Repository
from aiotrack.testing.servers import PostgresServer
from tests.integration.bench import bench
from tests.integration.load import Load, double, everything, run_report, send_report
from tests.unit.poison import POISON


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
        core = tracker.core()
        core.recorder = Recorder(FaultyWrite(core.repository.write), budget=0.1)
        task = b.task("shop.double")(double)
        load = Load(b)
        results = []
        for first in range(0, 300, 50):
            told = await asyncio.gather(*(task.kiq(n) for n in range(first, first + 50)))
            load.sent |= {one.task_id: first + n for n, one in enumerate(told)}
            results += [await one.wait_result(timeout=30) for one in told]
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
    assert 6 >= sum(took > 0.5 for took in load.took), "a wait for each outage, not for each task"


# ── R21: away from the start ────────────────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
@pytest.mark.parametrize("is_writable", [True, False])
async def test_a_database_that_is_away_from_the_start(
    own_postgres: PostgresServer, tmp_path: Path, is_writable: bool
) -> None:
    """R21: 8,000 reports wait in bounded memory and a bounded journal; the rest is counted."""
    folder = tmp_path / "journals"
    if not is_writable:
        folder.write_text("a file where the folder should be")
    await asyncio.to_thread(own_postgres.kill)
    settings = {"journal_dir": str(folder), "max_backlog": 2000}
    tracker = Tracker(own_postgres.url, settings=settings)
    await tracker.startup(wait=False)
    recorder = tracker.recorder()
    await recorder.commit(send_report("first"), at_once=True)
    begun = time.perf_counter()
    for first in range(0, 4_000, 100):
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
    print(f"{took / 8_000 * 1e6:.0f} us for each report while the database was away")

    assert flushed
    assert 2000 >= backlog
    assert 8_001 == counters["reports"]
    assert 8_001 == names.total() + counters["dropped"]
    assert (4_000 if is_writable else 2000 - 250) <= names["ended"]
    assert counters["dropped_ended"] == 4_000 - names["ended"]


async def test_a_fault_after_a_commit_is_no_fault_of_its_reports(database_url: str) -> None:
    """Who is told of what is durable fails: the record stays as it was written."""

    def fail(_: Sequence[Report]) -> None:
        raise RuntimeError("a hook of ours")

    async with Tracker(database_url) as tracker:
        repository = Repository(database_url, clock=tracker.clock, on_commit=fail)
        with pytest.raises(RuntimeError):
            await repository.write([run_report("ended")])
        await repository.close()
        (record,) = await everything(tracker)

    assert {} == record.metadata
    assert (run_report("ended").result or "null") == json.dumps(record.result)


# ── R28: poison ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.no_cover
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "is_alone", [False, pytest.param(True, marks=[pytest.mark.chaos, pytest.mark.timeout(300)])]
)
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
