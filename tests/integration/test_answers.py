"""Answers that are lost, late, or never come: one row each, and a second's wait at most."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from taskiq import InMemoryBroker

from aiotrack import TaskStatus, Tracker, TrackerMiddleware
from tests.integration.bench import Bench, bench
from tests.integration.load import (
    BUDGET,
    QUICK,
    Load,
    everything,
    run_report,
    send_report,
    until_settled,
)
from tests.integration.proxy import Proxy, proxied


# ── R18: lost replies ───────────────────────────────────────────────────────────────────────────
async def test_a_lost_reply_leaves_one_row(postgres_url: str) -> None:
    """R18: the reply of any statement, COMMIT among them, is lost: stored once."""
    chance = random.Random(18)
    async with proxied(postgres_url) as (proxy, url), Tracker(url) as tracker:
        recorder = tracker.recorder()
        for number in range(50):
            task_id = f"task {number}"
            proxy.lose_reply(chance.randint(1, 8) if number % 2 else 1)
            reports = [send_report(task_id), run_report(task_id)]
            if number % 2:
                reports.append(run_report(task_id, attempt=2))
            await asyncio.gather(*(recorder.commit(one, at_once=True) for one in reports))
        flushed = await tracker.flush(20)  # the journal may have been quicker than a new connection
        records = await everything(tracker)
        attempts = [len(await tracker.attempts(f"task {number}")) for number in range(50)]

    assert flushed
    assert 45 <= proxy.lost
    assert Counter({f"task {n}": 1 for n in range(50)}) == Counter(r.task_id for r in records)
    assert [1, 2] * 25 == attempts
    assert {TaskStatus.SUCCESS} == {one.status for one in records}


PLAIN, FOLDED = b"INSERT 0 1\x00", b"COMMIT\x00"
"""What PostgreSQL's reply names when a plain report, or a retry, is committed."""


async def lose_commits(postgres_url: str, count: int) -> tuple[Proxy, bool, list[str]]:
    """Lose the reply of so many commits, plain and folded in turn; give what is wrong."""
    wrong, flushed = [], False
    async with proxied(postgres_url) as (proxy, url), Tracker(url) as tracker:
        recorder = tracker.recorder()
        for number in range(count):
            is_fold = number % 2 == 1
            proxy.lose_reply_with(FOLDED if is_fold else PLAIN)
            report = run_report(f"task {number // 2}", attempt=1 + is_fold)
            await recorder.commit(report, at_once=True)
            flushed = await tracker.flush(60)  # else the journal may take the next one
        records = {one.task_id: one for one in await everything(tracker)}
        for number in range(count // 2):
            record = records.pop(f"task {number}")
            runs = [one.attempt for one in await tracker.attempts(record.task_id)]
            if (runs, record.runs, record.duplicates) != ([1, 2], 2, 0):
                wrong.append(f"{record.task_id} has runs {runs}, says {record.runs}")
    return proxy, flushed, wrong + [f"{task_id} is too many" for task_id in records]


async def test_a_lost_reply_of_a_commit_leaves_one_row(postgres_url: str) -> None:
    """R18: it is the COMMIT's own reply that is lost: exactly one row of each run."""
    proxy, flushed, wrong = await lose_commits(postgres_url, 20)

    assert [] == wrong
    assert flushed
    assert 20 == proxy.lost


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_a_thousand_lost_replies_leave_one_row_each(postgres_url: str) -> None:
    """R18: 500 plain commits and 500 of folded runs, each reply lost."""
    begun = time.perf_counter()
    proxy, flushed, wrong = await lose_commits(postgres_url, 1000)
    took = time.perf_counter() - begun
    print(f"R18: {proxy.lost} lost replies, {len(wrong)} wrong, {took / 1000:.3f} s each")

    assert [] == wrong[:5]
    assert flushed
    assert 1000 == proxy.lost


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
@pytest.mark.parametrize("is_started", [True, False])
async def test_a_database_that_never_answered_costs_a_second_once(
    postgres_url: str, tmp_path: Path, is_started: bool
) -> None:
    """R19: away from the start: all hooks of the first task together wait for one budget."""
    settings = {"journal_dir": str(tmp_path / "journals")}
    async with proxied(postgres_url) as (proxy, url):
        proxy.is_black_hole = True
        tracker = Tracker(url, settings=settings)
        broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
        begun = time.perf_counter()
        if is_started:
            await broker.startup()
        start = time.perf_counter() - begun
        load = Load(Bench(tracker, broker))
        first = await load.batch(1)
        later = [await load.batch(1) for _ in range(20)]
        begun = time.perf_counter()
        await broker.shutdown()
        stop = time.perf_counter() - begun
        proxy.is_black_hole = False
        proxy.cut()
        async with Tracker(url, settings=settings) as heir:
            await until_settled(heir, len(load.sent))
            wrong = load.faults(await everything(heir))
    print(f"R19: start {start:.3f} s, first {first:.3f} s, later {shown(later)}, stop {stop:.3f} s")

    assert [] == wrong[:5]
    assert 1.5 * BUDGET > first
    assert QUICK > sorted(later)[10]
    assert 6 > start
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
    took, wrong = await slowly(postgres_url, 1)

    assert [] == wrong[:5]
    assert 2 * BUDGET + QUICK > max(took)


async def slowly(postgres_url: str, seconds: float) -> tuple[list[float], list[str]]:
    """Send for so long with every reply half a second late; give what batches took, and faults."""
    async with proxied(postgres_url) as (proxy, url), Tracker(url) as tracker, bench(tracker) as b:
        load = Load(b)
        await load.batch()
        proxy.delay = 0.5
        load.took.clear()
        async with load.all_the_time():
            await asyncio.sleep(seconds)
        proxy.delay = 0.0
        await tracker.flush(10)
        return load.took, load.faults(await everything(tracker))


def shown(seconds: list[float]) -> str:
    """Give the median and the worst in milliseconds."""
    found = sorted(seconds)
    return f"p50 {found[len(found) // 2] * 1e3:.2f} ms, worst {found[-1] * 1e3:.2f} ms"


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_what_a_database_without_answers_costs(postgres_url: str, tmp_path: Path) -> None:
    """R19: the figures: no answer from now on."""
    plain = Load(Bench(Tracker("sqlite://"), InMemoryBroker()))
    untracked = [await plain.batch(1) for _ in range(500)]
    settings = {"journal_dir": str(tmp_path / "journals")}
    async with (
        proxied(postgres_url) as (proxy, url),
        Tracker(url, settings=settings) as tracker,
        bench(tracker) as b,
    ):
        load = Load(b)
        await load.batch(1)
        proxy.is_black_hole = True
        first = await load.batch(1)
        later = [await load.batch(1) for _ in range(500)]
        proxy.is_black_hole = False
        proxy.cut()
        await tracker.flush(10)
        wrong = load.faults(await everything(tracker))
    print(f"R19: a task untracked: {shown(untracked)}")
    print(f"R19: no answer: the first task {first:.3f} s, 500 later ones {shown(later)}")

    assert [] == wrong[:5]
    assert 1.5 * BUDGET > first
    assert QUICK > sorted(later)[250]


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_what_a_slow_database_costs(postgres_url: str) -> None:
    """R19: the figures: every answer late by half a second, for twenty seconds."""
    took, wrong = await slowly(postgres_url, 20)
    print(f"R19: answers 500 ms late: {len(took)} times 20 tasks at once, each in {shown(took)}")

    assert [] == wrong[:5]
    assert 2 * BUDGET + QUICK > max(took)
