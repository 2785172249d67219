"""An hour of work in which the database and the workers die in turn: memory stays flat."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from aiotrack.testing.servers import PostgresServer, ValkeyServer
from tests.acceptance.conftest import Open
from tests.acceptance.measure import kept, settle, start_worker
from tests.acceptance.outage import IDLE, KINDS, Outage, during
from tests.acceptance.soak import AWAY, EVERY, GROWTH, MINUTES, RATE, Memory
from tests.waits import until


async def feed(project: Outage, end: float) -> None:
    """Send the mix at a steady rate."""
    begun = time.monotonic()
    while time.monotonic() < end:
        number = len(project.sent)
        await asyncio.sleep(begun + number / RATE - time.monotonic())
        await project.send(number, KINDS.get(number % 20, "work"))


async def kill_in_turn(server: PostgresServer, memory: Memory, end: float) -> list[str]:
    """Kill the database and the youngest worker in turn; the oldest lives through everything."""
    killed = []
    while time.monotonic() + EVERY + AWAY + 2 * IDLE < end:
        await asyncio.sleep(EVERY)
        if len(killed) % 2:
            youngest = memory.processes()[-1]
            youngest.kill()
            killed.append(f"worker {youngest.pid}")
        else:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(AWAY)
            await asyncio.to_thread(server.start)
            killed.append("database")
    return killed


async def ask(project: Outage) -> list[list[int]]:
    """Ask the workers: process id, reports that wait in memory, reports that were dropped."""
    first = len(project.sent)
    first += -first % 20 + 4  # numbers that only work: they are checked as such
    for number in range(first, first + 16):
        await project.send(number, "tell")
    await until("all told", project.is_done, 30)
    await asyncio.sleep(0.5)
    lines = await project.redis.lrange(f"{project.queue}-told", 0, -1)
    return [[int(word) for word in line.split()] for line in lines]


@pytest.mark.chaos
@pytest.mark.timeout(60 * MINUTES + 900)
async def test_memory_stays_flat_for_an_hour(
    own_postgres: PostgresServer, own_valkey: ValkeyServer, open_project: Open, tmp_path: Path
) -> None:
    """Failures, retries, progress, big results; Postgres and a worker killed in turn."""
    journals = tmp_path / "journals"
    async with open_project(Outage, own_postgres.url, own_valkey.url) as (
        project,
        workers,
    ):
        memory = Memory(start_worker(workers, processes=2, at_once=20))
        end = time.monotonic() + 60 * MINUTES
        async with during(memory.run()):
            feeding = asyncio.create_task(feed(project, end))
            killed = await kill_in_turn(own_postgres, memory, end)
            await feeding
            settled = await settle(project, journals, 120)
            told = await ask(project)
            await settle(project, journals, 30)
            await asyncio.sleep(30)
            grown = memory.growth()
        wrong = await project.faults(is_exact=False, kinds=KINDS)
        ran = len(await project.begun())
    print(
        f"{MINUTES:g} minutes, {len(project.sent)} tasks at {RATE}/s, killed {killed}, "
        f"settled in {settled:.1f} s, growth {[f'{one / 2**20:.1f} MB' for one in grown.values()]}"
    )

    assert [] == wrong[:10]
    assert len(project.sent) == ran
    assert 0 == kept(journals)
    assert 2 == len({pid for pid, _, _ in told})
    assert 16 >= max(backlog for _, backlog, _ in told), "only their own starts"
    assert {0} == {dropped for _, _, dropped in told}
    assert {} == {pid: one for pid, one in grown.items() if one > GROWTH}
    assert grown
