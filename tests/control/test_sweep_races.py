"""R30: the sweep races the workers' own words thousands of times, and none is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from aiotrack import TaskStatus, Tracker
from aiotrack.clock import to_micros
from aiotrack.report import Origin, Report, Witness
from aiotrack.sweeps import mark_timed_out

SHORT, LONG = 600, 10_000
WORDS = (
    (TaskStatus.SUCCESS, Witness.ENDED),
    (TaskStatus.FAILURE, Witness.ENDED),
    (TaskStatus.REVOKED, Witness.ENDED),
    (TaskStatus.RETRY, Witness.HANDED_BACK),
)


def start(number: int, at: int) -> Report:
    """Report the start of a run, long ago."""
    origin = Origin(f"race {number}", "shop.pay", "shop", at)
    return Report(
        origin, Witness.STARTED, TaskStatus.STARTED, uuid4().hex, worker="w", started_at=at
    )


def end(run: Report, number: int, now: int) -> Report:
    """Report its true end."""
    status, witness = WORDS[number % len(WORDS)]
    assert run.started_at is not None
    return Report(
        run.origin,
        witness,
        status,
        run.run_id,
        worker="w",
        started_at=run.started_at,
        finished_at=now,
        duration=(now - run.started_at) / 1e6,
        result=str(number) if status is TaskStatus.SUCCESS else None,
        error=None if status is TaskStatus.SUCCESS else "the worker's own word",
    )


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "races", [SHORT, pytest.param(LONG, marks=[pytest.mark.chaos, pytest.mark.timeout(900)])]
)
async def test_no_word_of_a_worker_is_lost_to_a_verdict(
    database_url: str, monkeypatch: pytest.MonkeyPatch, races: int
) -> None:
    """Before, between and after reading and writing; with two sweeps at once, clocks an hour off.

    Each execution ends once by its worker, while two trackers presume all that is not over. What
    the record shows then is what the worker said; each verdict was given once.
    """
    monkeypatch.setattr(mark_timed_out, "PAGE", 150)
    async with Tracker(database_url) as worker, Tracker(database_url) as one:
        two = Tracker(database_url)
        async with two:
            at = to_micros(datetime.now(UTC) - timedelta(minutes=30))
            runs = [start(number, at) for number in range(races)]
            repository = worker.core().repository
            for first in range(0, races, 500):
                await repository.write(runs[first : first + 500])
            ends = [end(run, number, worker.clock.now()) for number, run in enumerate(runs)]
            random.shuffle(ends)
            verdicts = [0, 0]

            async def sweep(which: int, tracker: Tracker) -> None:
                while not is_done.is_set():
                    verdicts[which] += await tracker.mark_timed_out()

            async def work() -> None:
                left = iter(ends)
                while batch := [*itertools.islice(left, random.randint(1, 20))]:
                    await repository.write(batch)
                    await asyncio.sleep(random.choice((0, 0, 0.001, 0.01)))
                is_done.set()

            is_done = asyncio.Event()
            await asyncio.gather(sweep(0, one), sweep(1, two), work())
            again = await one.mark_timed_out(timeout_minutes=-1)
            found = {}
            for status in TaskStatus:
                page = await one.list(status=status, limit=500)
                while True:
                    found |= {it.task_id: it for it in page.items}
                    if page.next is None:
                        break
                    page = await one.list(status=status, limit=500, after=page.next)

    assert 0 == again
    assert races == len(found)
    wrong = []
    for number in range(races):
        it = found[f"race {number}"]
        status, _ = WORDS[number % len(WORDS)]
        if (it.status, it.presumed) != (status, False) or (
            it.result != number if status is TaskStatus.SUCCESS else it.error is None
        ):
            wrong.append((it.task_id, it.status, it.presumed))
    assert [] == wrong
    assert sum(verdicts) > races / 100, "they never met"


@pytest.mark.slow
async def test_two_sweeps_give_each_verdict_once(database_url: str) -> None:
    """However they interleave: together they count what there was."""
    async with Tracker(database_url) as one, Tracker(database_url) as two:
        at = to_micros(datetime.now(UTC) - timedelta(minutes=30))
        await one.core().repository.write([start(number, at) for number in range(400)])
        done = await asyncio.gather(*(it.mark_timed_out() for it in (one, two, one, two)))
        stats = await one.stats()

    assert 400 == sum(done)
    assert 400 == stats.failure


async def test_a_clean_up_beside_late_words(database_url: str) -> None:
    """Whoever is deleted while its worker tells more is there whole, or not at all."""
    async with Tracker(database_url) as worker, Tracker(database_url) as other:
        at = to_micros(datetime.now(UTC) - timedelta(days=40))
        runs = [start(number, at) for number in range(300)]
        failed = [end(run, 1, at + 1_000_000) for run in runs]
        repository = worker.core().repository
        await repository.write(failed)
        again = [start(number, worker.clock.now()) for number in range(300)]
        cleaning = asyncio.ensure_future(other.cleanup())
        for report in random.sample(again, len(again)):
            report.origin.created_at = at
            await repository.write([report])
        gone = await cleaning
        stats = await other.stats()
        attempts = [len(await other.attempts(f"race {number}")) for number in range(300)]

    assert (300, 300) == (stats.total, stats.started)
    assert 0 <= gone <= 300
    assert 600 - gone == sum(attempts)
