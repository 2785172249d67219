"""A clock that is learned late, or corrected while work runs: times and their order stay right."""

from __future__ import annotations

import asyncio
import time

import pytest

from aiotrack import Tracker
from tests.integration.bench import bench
from tests.integration.proxy import proxied

HOUR = 3600
NEAR = 0.1
"""Seconds by which a recorded time may be off."""


def set_clock(tracker: Tracker, ahead: float) -> None:
    """Let the database tell another time, so many seconds from the true one."""
    tracker.clock.learn(int((time.time() + ahead) * 1e6), 0.0)


@pytest.mark.parametrize("ahead", [-HOUR, HOUR])
async def test_a_clock_that_is_set_while_work_runs_harms_no_record(
    tracker: Tracker, ahead: float
) -> None:
    """The database's clock jumps by an hour: no end before its start, every duration true."""
    async with tracker.track("shop.rows", task_id="a"):
        await tracker.progress(10)
        await tracker.flush()
        await asyncio.sleep(0.2)
        set_clock(tracker, ahead)
        await tracker.progress(90)
    record = await tracker.get("a")

    assert record.started_at is not None
    assert record.finished_at is not None
    assert record.duration is not None
    assert 0.2 <= record.duration < 5
    assert record.created_at <= record.started_at
    assert (record.finished_at - record.started_at).total_seconds() >= record.duration - 1e-6
    assert 90 == record.metadata["progress_percent"], "the later word, whatever time it was"


async def test_the_clock_is_looked_at_again(tracker: Tracker) -> None:
    """A clock that went off is put right by the next write that comes a minute later."""
    set_clock(tracker, HOUR)
    repository = tracker.core().repository
    repository._learn_at = time.monotonic()  # the minute is over
    async with tracker.track("shop.rows", task_id="off"):
        pass
    if repository._apart:
        await asyncio.wait(repository._apart)
    async with tracker.track("shop.rows", task_id="right"):
        pass
    off, right = await tracker.get("off"), await tracker.get("right")

    assert HOUR - NEAR - 5 < off.created_at.timestamp() - time.time() < HOUR + NEAR
    assert -5 < right.created_at.timestamp() - time.time() < NEAR


async def test_work_that_began_before_the_clock_was_known_ends_right(postgres_url: str) -> None:
    """A run, its child and its progress: begun without a database, ended with one."""
    async with proxied(postgres_url) as (proxy, url):
        await proxy.stop()
        tracker = Tracker(url)
        async with bench(tracker) as b:

            @b.task("shop.child")
            async def child() -> None:
                """Do nothing."""

            @b.task("shop.parent")
            async def parent() -> list[float]:
                begun = time.time()
                await tracker.progress(10)
                await child.kiq()
                await asyncio.sleep(0.5)  # longer than progress lies in memory
                await proxy.start()
                await tracker.flush(10)
                await tracker.progress(20)
                return [begun, time.time()]

            before = time.time()
            record = await b.run(parent)
            ended = time.time()
            (inner,) = (await tracker.list(task_name="shop.child")).items

    assert record.started_at is not None
    assert record.finished_at is not None
    begun, done = record.result
    assert before - NEAR < record.started_at.timestamp() < begun + NEAR
    assert done - NEAR < record.finished_at.timestamp() < ended + NEAR
    assert record.started_at <= inner.created_at <= record.finished_at
    assert 20 == record.metadata["progress_percent"]
