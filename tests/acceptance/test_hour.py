"""An hour in which database, broker and workers die in turn, beside somebody at the API."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from pathlib import Path

import httpx
import pytest

from aiotrack.testing.servers import PostgresServer, ValkeyServer
from tests.acceptance.conftest import Open
from tests.acceptance.hour import TOLD_VARIABLE, Hour
from tests.acceptance.measure import kept, start_worker
from tests.acceptance.outage import during
from tests.acceptance.soak import AWAY, EVERY, GROWTH, MINUTES, RATE, Memory
from tests.acceptance.test_serve import Served
from tests.waits import until

APP = "tests.acceptance.hour:broker"

PATHS = (
    "executions/?limit=20",
    "executions/by-task-id/hour-0/",
    "executions/stats/",
    "workers/",
    "health/live",
)
"""What is asked; none of it needs Redis."""


class Asker:
    """Somebody who looks through the API, four times a second, and what he was answered.

    Args:
        url: Of the server.
        away: When the database was dead: begin and end of each time.
    """

    def __init__(self, url: str, away: list[tuple[float, float]]) -> None:
        self._url, self._away = f"{url}/api/v1/", away
        self.answers: list[tuple[float, str, int]] = []

    async def run(self) -> None:
        """Ask until cancelled."""
        async with httpx.AsyncClient(base_url=self._url, timeout=15) as client:
            for path in itertools.cycle(PATHS):
                begun = time.monotonic()
                answer = await client.get(path)
                self.answers.append((begun, path, answer.status_code))
                await asyncio.sleep(0.25)

    def faults(self) -> list[tuple[str, int]]:
        """Give the answers that are no success, and that no dead database explains."""
        return [
            (path, status)
            for at, path, status in self.answers
            if status != 200 and not any(begun - 1 <= at <= end for begun, end in self._away)
        ]


class Reaper:
    """Kills the database, the youngest worker and the broker's server in turn."""

    def __init__(self, postgres: PostgresServer, valkey: ValkeyServer, memory: Memory) -> None:
        self._postgres, self._valkey, self._memory = postgres, valkey, memory
        self.killed: list[str] = []
        self.away: list[tuple[float, float]] = []
        """When the database was dead, and two seconds more: pools are made anew."""

    async def run(self, end: float) -> None:
        """Kill every few minutes until shortly before the end."""
        deeds = itertools.cycle((self._kill_postgres, self._kill_worker, self._kill_valkey))
        while time.monotonic() + EVERY + 2 * AWAY < end:
            await asyncio.sleep(EVERY)
            await next(deeds)()

    async def _kill_postgres(self) -> None:
        begun = time.monotonic()
        await self._restart(self._postgres)
        self.away.append((begun, time.monotonic() + 2))
        self.killed.append("database")

    async def _kill_worker(self) -> None:
        self._memory.processes()[-1].kill()
        self.killed.append("worker")

    async def _kill_valkey(self) -> None:
        await self._restart(self._valkey)
        self.killed.append("valkey")

    async def _restart(self, server: PostgresServer | ValkeyServer) -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(AWAY)
        await asyncio.to_thread(server.start)


async def feed(project: Hour, end: float) -> None:
    """Send the mix at a steady rate; what could not be sent is not sent again."""
    begun = time.monotonic()
    for number in itertools.count(1):
        await asyncio.sleep(begun + number / RATE - time.monotonic())
        if time.monotonic() >= end:
            return
        await project.send(number)


@pytest.mark.chaos
@pytest.mark.timeout(60 * MINUTES + 900)
async def test_an_hour_in_which_everything_dies_in_turn(
    own_postgres: PostgresServer, own_valkey: ValkeyServer, open_project: Open, tmp_path: Path
) -> None:
    """Our broker, all features: what was sent ran and is recorded, and the API answers."""
    told = tmp_path / "told"
    make = functools.partial(Hour, told=told)
    served = Served(tmp_path, own_postgres.url)
    async with open_project(
        *(make, own_postgres.url, own_valkey.url), **{TOLD_VARIABLE: str(told)}
    ) as (project, workers):
        memory = Memory(start_worker(workers, app=APP, processes=2, at_once=20))
        await project.send(0)
        await until("the first one ran", project.is_drained)
        reaper = Reaper(own_postgres, own_valkey, memory)
        server = served.start("--port", "0", AIOTRACK_REDIS_URL=own_valkey.url)
        asker = Asker(await asyncio.to_thread(served.address, server), reaper.away)
        end = time.monotonic() + 60 * MINUTES
        try:
            async with during(memory.run()), during(asker.run()):
                feeding = asyncio.create_task(feed(project, end))
                await reaper.run(end)
                await feeding
                await until("all are acknowledged", project.is_drained, 120)
                await asyncio.sleep(5)
                grown = memory.growth()
        finally:
            await asyncio.to_thread(served.stop)
        await project.tracker.flush(30)
        await until("no journal is left", lambda: kept(tmp_path) == 0, 60)
        wrong = await project.faults()
        ran = project.begun().keys()
    faults = asker.faults()
    print(
        f"{MINUTES:g} minutes, {len(project.sent)} tasks sent, {len(project.unsure)} not for sure, "
        f"{len(ran)} ran; killed {reaper.killed}; {len(asker.answers)} answers of the API, "
        f"{len(faults)} faults; growth {[f'{one / 2**20:.1f} MB' for one in grown.values()]}"
    )

    assert [] == wrong[:10]
    assert set() == project.sent - ran
    assert len(project.unsure) < len(project.sent) / 4, "most was not sent: it shows nothing"
    assert len(faults) <= len(asker.answers) / 1000, faults[:10]
    assert {} == {pid: one for pid, one in grown.items() if one > GROWTH}
    assert grown
