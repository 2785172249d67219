"""Answers that are lost, late, or never come: one row each, and a second's wait at most."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from aiotrack import TaskStatus, Tracker
from tests.integration.bench import bench
from tests.integration.load import (
    BUDGET,
    QUICK,
    Load,
    everything,
    run_report,
    send_report,
    until_settled,
)
from tests.integration.proxy import proxied


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
