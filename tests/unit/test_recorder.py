"""Group commit, with a database that does as it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from aiotrack.errors import StoreUnavailable
from aiotrack.model import TaskStatus
from aiotrack.recorder import GROUP, Recorder
from aiotrack.report import Origin, Report, Witness


def report(number: int) -> Report:
    """Give the report of the *number*-th send."""
    origin = Origin(task_id=str(number), task_name="shop.rows", module="shop", created_at=1)
    return Report(origin, Witness.SENT, TaskStatus.PENDING)


class Database:
    """Keeps what is written; fails with the given errors first; waits for a word where asked."""

    def __init__(self, *errors: Exception, gated: bool = False) -> None:
        self.errors = list(errors)
        self.stored: set[str] = set()
        self.gate = asyncio.Semaphore(0 if gated else 1_000_000)

    async def write(self, reports: Sequence[Report]) -> None:
        await self.gate.acquire()
        await asyncio.sleep(0)  # as a real write: others go on meanwhile
        if self.errors:
            raise self.errors.pop(0)
        self.stored |= {one.origin.task_id for one in reports}


async def test_nobody_is_told_of_a_commit_before_it() -> None:
    """More waiting reports than one write takes: each waiter goes on after its own write."""
    database = Database()
    recorder = Recorder(database.write, budget=30)
    early = []

    async def commit(number: int) -> None:
        assert await recorder.commit(report(number), at_once=True)
        if str(number) not in database.stored:
            early.append(number)

    await asyncio.gather(*(commit(number) for number in range(3 * GROUP)))
    await recorder.close()

    assert [] == early
    assert 3 * GROUP == len(database.stored)
    assert 3 <= recorder.counters["groups"]


@pytest.mark.parametrize("error", [StoreUnavailable("away"), KeyError("a fault of ours")])
async def test_the_writer_outlives_any_error(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """What a write raises is told once, and the group is written again."""
    caplog.set_level(logging.ERROR)
    database = Database(error)
    recorder = Recorder(database.write, budget=30)
    committed = await recorder.commit(report(1), at_once=True)
    again = await recorder.commit(report(2), at_once=True)
    await recorder.close()

    assert (True, True, {"1", "2"}) == (committed, again, database.stored)
    assert 1 == recorder.counters["failures"]
    assert 1 == len(caplog.records)


async def test_a_wait_ends_with_its_budget_and_the_report_stays() -> None:
    """A database that does not answer holds a hook for its budget; the report is written later."""
    database = Database(gated=True)
    recorder = Recorder(database.write, budget=0.02)
    committed = await recorder.commit(report(1), at_once=True)
    left = recorder.backlog
    database.gate.release()
    flushed = await recorder.flush(5)
    await recorder.close()

    assert (False, 1, True) == (committed, left, flushed)
    assert {"1"} == database.stored
    assert 1 == recorder.counters["late"]


async def test_a_cancelled_waiter_harms_nobody() -> None:
    """One sender that gives up: its report and its neighbours' are written all the same."""
    database = Database(gated=True)
    recorder = Recorder(database.write, budget=30)
    tasks = [
        asyncio.create_task(recorder.commit(report(number), at_once=True)) for number in range(3)
    ]
    await asyncio.wait(tasks, timeout=0)
    tasks[1].cancel()
    database.gate.release()
    database.gate.release()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    await recorder.close()

    assert [True, True] == [told[0], told[2]]
    assert tasks[1].cancelled()
    assert {"0", "1", "2"} == database.stored


async def test_a_full_backlog_lets_starts_go_before_ends() -> None:
    """While the database is away memory is bounded; what is least important is dropped first."""
    database = Database(gated=True)
    recorder = Recorder(database.write, max_backlog=100)
    for number in range(150):
        one = report(number)
        if number % 2:
            one.witness, one.run_id, one.status = Witness.ENDED, "r", TaskStatus.SUCCESS
        recorder.add(one)
    dropped = dict(recorder.counters)
    left = await recorder.close(0.0)

    assert 100 >= len(left)
    assert 150 == len(left) + dropped["dropped"]
    assert dropped["dropped"] == dropped["dropped_sent"]
