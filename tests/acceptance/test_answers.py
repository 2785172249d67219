"""A worker whose database never answers, or answers late: it works, and it ends in time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from aiotrack import Tracker
from tests.acceptance.conftest import Workers
from tests.acceptance.feed import ACKS_VARIABLE, COUNT
from tests.integration.proxy import proxied
from tests.waits import until


@pytest.mark.timeout(90)
@pytest.mark.parametrize("fault", ["no answer", "no answer from the start", "slow"])
async def test_a_worker_whose_database_does_not_answer_ends_in_time(
    postgres_url: str, tmp_path: Path, fault: str
) -> None:
    """R19: tasks are acknowledged, SIGTERM ends the worker within 5 s, and nothing is lost."""
    acks, journals = tmp_path / "acks", tmp_path / "journals"
    async with proxied(postgres_url) as (proxy, url):
        proxy.is_black_hole = fault == "no answer from the start"
        proxy.delay = 0.5 if fault == "slow" else 0.0
        environment = {
            "AIOTRACK_DATABASE_URL": url,
            "AIOTRACK_JOURNAL_DIR": str(journals),
            ACKS_VARIABLE: str(acks),
        }
        workers = Workers(environment, tmp_path / "workers.log")
        try:
            main = workers.start(
                *("-m", "taskiq", "worker", "tests.acceptance.feed:broker"),
                *("--workers", "1", "--log-level", "WARNING"),
            )

            await until("it works", lambda: has_acknowledged(acks, 2), 30)
            proxy.is_black_hole |= fault == "no answer"
            await until("all acknowledged", lambda: has_acknowledged(acks, COUNT), 30)
            children = psutil.Process(main.pid).children()
            begun = time.perf_counter()
            main.terminate()
            await asyncio.to_thread(psutil.wait_procs, children, 20)
            took = time.perf_counter() - begun
        finally:
            await asyncio.to_thread(workers.stop)
        proxy.is_black_hole, proxy.delay = False, 0.0
        proxy.cut()
        async with Tracker(url, settings={"journal_dir": str(journals)}) as heir:
            await until("all recorded", lambda: is_recorded(heir), 20)
            records = (await heir.list(limit=2 * COUNT)).items
    print(f"R19: {fault}: the worker ended {took:.2f} s after SIGTERM")

    assert {f"task {n}": n * 2 for n in range(COUNT)} == {r.task_id: r.result for r in records}
    assert 5 > took


async def has_acknowledged(acks: Path, count: int) -> bool:
    """Tell whether so many messages are acknowledged."""
    return lines(acks) >= count


def lines(path: Path) -> int:
    """Count what a file says; one that is not there says nothing."""
    return len(path.read_text().splitlines()) if path.exists() else 0


async def is_recorded(tracker: Tracker) -> bool:
    """Tell whether every success is there."""
    return (await tracker.stats()).success == COUNT
