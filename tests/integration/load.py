"""What the tests of faults send, and how they find what is wrong with its records."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence

from aiotrack import Execution, TaskStatus, Tracker
from aiotrack.report import Origin, Report, Witness
from tests.integration.bench import Bench

BUDGET = 1.0
"""Seconds that a hook waits for its commit at most: the default of ``commit_budget``."""

QUICK = 0.25
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
