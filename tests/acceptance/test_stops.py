"""Workers that are asked to end, once and again, whatever the database does meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import Workers, forget
from tests.acceptance.stops import BUFFERED, FOLDER_VARIABLE, QUEUE_VARIABLE, Stops
from tests.integration.proxy import Proxy, proxied
from tests.waits import until

APP = "tests.acceptance.stops:broker"
SENT = 20
PROCESSES = 2
HARD = 4
"""Signals, and one of their parent's, at which TaskIQ breaks off whatever a process does."""

PLAIN = "import sys; sys.modules['uvloop'] = None; from taskiq.__main__ import main; main()"
"""Runs TaskIQ on asyncio's own loop where uvloop is installed."""


class Site:
    """A project, its workers, and the proxy before its database."""

    def __init__(self, project: Stops, workers: Workers, proxy: Proxy) -> None:
        self.project = project
        self.workers = workers
        self.proxy = proxy

    async def start(self, *options: str, uvloop: bool = True) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until each of its processes works."""
        main = self.workers.start(
            *(("-m", "taskiq") if uvloop else ("-c", PLAIN)),
            *("worker", APP, "--log-level", "WARNING", "--workers", str(PROCESSES), *options),
        )

        async def is_at_work() -> bool:
            await asyncio.gather(*(self.project.work.kiq(number) for number in range(SENT)))
            page = await self.project.tracker.list(task_name="stops.work", limit=500)
            at_work = {str(one.worker).split(":")[1] for one in page.items if one.worker}
            expected = {str(one.pid) for one in self.children(main)}
            return len(expected) == PROCESSES and expected <= at_work

        async def is_idle() -> bool:  # else a run's hook may see the fault before the stop does
            stats = await self.project.tracker.stats(task_name="stops.work")
            return stats.success == stats.total

        await until("every process works", is_at_work, 30)
        await until("all is done", is_idle, 10)
        return main

    def children(self, main: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """Give the processes in which tasks run."""
        found = psutil.Process(main.pid).children()
        return [one for one in found if "resource_tracker" not in " ".join(one.cmdline())]

    async def fail(self, fault: str) -> None:
        """Let the workers' database be away in this way."""
        self.proxy.is_black_hole = fault == "blackholed"
        if fault == "refused":
            await self.proxy.stop()

    async def recover(self, fault: str) -> None:
        """End that."""
        self.proxy.is_black_hole = False
        self.proxy.cut()
        if fault == "refused":
            await self.proxy.start()

    async def stop(self, main: subprocess.Popen[bytes], *signals: int) -> float:
        """Send each signal to all processes, a while apart; give the seconds until none is left."""
        children = self.children(main)
        begun = time.perf_counter()
        for sign in signals:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(main.pid, sign)
            await asyncio.sleep(0.15)
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, 15)
        took = time.perf_counter() - begun
        await asyncio.to_thread(main.wait, 5)
        assert [] == alive
        return took

    def filled(self) -> int:
        """Give how many reports all processes had put into their buffers at their ends."""
        folder = Path(self.workers.environment[FOLDER_VARIABLE])
        return sum(int(path.read_text()) for path in folder.iterdir())

    async def buffered(self) -> int:
        """Give how many of the reports that were in a buffer are in the database."""
        return (await self.project.tracker.stats(task_name="stops.buffered")).total


@pytest.fixture
async def site(
    redis_url: str,
    postgres_url: str,
    queue_name: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Site]:
    """A project whose workers reach Postgres through a proxy."""
    async with proxied(postgres_url) as (proxy, url):
        environment = {
            "AIOTRACK_DATABASE_URL": url,
            "AIOTRACK_JOURNAL_DIR": str(tmp_path / "journals"),
            "ACCEPTANCE_REDIS_URL": redis_url,
            QUEUE_VARIABLE: queue_name,
            FOLDER_VARIABLE: str(tmp_path / "filled"),
        }
        (tmp_path / "filled").mkdir()
        workers = Workers(environment, tmp_path / "workers.log")
        project = Stops(database=postgres_url, redis=redis_url, queue=queue_name)
        await project.broker.startup()
        try:
            yield Site(project, workers, proxy)
        finally:
            await asyncio.to_thread(workers.stop)
            await project.broker.shutdown()
            await forget(redis_url, queue_name)
            request.node.add_report_section("call", "workers", workers.told()[-6000:])


async def outlive(
    site: Site, fault: str, signals: tuple[int, ...], *options: str, uvloop: bool = True
) -> tuple[float, list[str]]:
    """Stop a worker under *fault*, start another, and give how long it took and what is wrong."""
    main = await site.start(*options, uvloop=uvloop)
    before = site.filled()
    await site.fail(fault)
    took = await site.stop(main, *signals)
    await site.recover(fault)
    filled = site.filled()
    heir = await site.start(uvloop=uvloop)

    async def is_replayed() -> bool:
        return await site.buffered() >= filled

    with contextlib.suppress(pytest.fail.Exception):
        await until("every report is there", is_replayed, 15)
    found = await site.buffered()
    await site.stop(heir, signal.SIGTERM)
    wrong = [f"{found} of {filled}"] if found < filled else []
    if len(signals) < HARD and filled - before != PROCESSES * BUFFERED:
        wrong.append(f"{filled - before} reported")
    return took, wrong


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fault", "signals", "uvloop"),
    [
        ("up", (signal.SIGINT,), False),
        ("refused", (signal.SIGTERM, signal.SIGTERM), True),
        ("blackholed", (signal.SIGTERM, signal.SIGINT), False),
    ],
)
async def test_a_stop_loses_nothing_that_is_buffered(
    site: Site, fault: str, signals: tuple[int, ...], uvloop: bool
) -> None:
    """R27: a thousand reports in each buffer at one signal or two: all come, inside 5 s."""
    took, wrong = await outlive(site, fault, signals, uvloop=uvloop)
    print(f"{fault}: {took:.2f} s until the last process was gone")

    assert [] == wrong
    assert "cannot be completed" not in site.workers.told()
    assert 8 > took


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("signals", "options", "word"),
    [
        (1, ("--shutdown-timeout", "0.5"), "cannot be completed in 0.5 seconds"),
        (6, (), "Hard kill. Exiting."),
    ],
)
async def test_a_stop_that_is_cut_short_loses_nothing(
    site: Site, signals: int, options: tuple[str, ...], word: str
) -> None:
    """R27: TaskIQ breaks the broker's shutdown off: what is buffered is journaled at the exit."""
    took, wrong = await outlive(site, "blackholed", (signal.SIGTERM,) * signals, *options)
    print(f"{took:.2f} s until the last process was gone")

    assert [] == wrong
    assert word in site.workers.told()
    assert 8 > took


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_no_stop_loses_what_is_buffered(site: Site) -> None:
    """R27: every fault, one signal to six, both loops, with and without time: 30 stops."""
    chance = random.Random(27)
    longest: dict[str, float] = {}
    for turn in range(30):
        fault = ("up", "refused", "blackholed")[turn % 3]
        signals = [chance.choice((signal.SIGTERM, signal.SIGINT)) for _ in range(1 + turn % 6)]
        options = ("--shutdown-timeout", "0.7") if chance.random() < 0.2 else ()
        uvloop = chance.random() < 0.5
        took, wrong = await outlive(site, fault, tuple(signals), *options, uvloop=uvloop)
        longest[fault] = max(longest.get(fault, 0.0), took)

        assert [] == wrong, (turn, fault, signals, options, uvloop)
    print({fault: f"{took:.2f} s" for fault, took in longest.items()})

    assert 8 > max(longest.values())
