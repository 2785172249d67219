"""PostgreSQL away under load: tasks go on as fast as before, and all is recorded in the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiotrack.testing.servers import PostgresServer
from tests.acceptance.conftest import Open
from tests.acceptance.measure import Meter, kept, settle, start_worker
from tests.acceptance.outage import Outage, during
from tests.waits import until

SHARE = 0.95
"""Of the throughput without an outage, that must be left."""

MINUTES = float(os.environ.get("AIOTRACK_DYING_MINUTES", "3"))
"""How long the database keeps dying; ten in a full run."""

CONVERGED = 30.0
"""Seconds from the last start of the database until every record is there."""


@contextlib.asynccontextmanager
async def away(server: PostgresServer, fault: str) -> AsyncIterator[None]:
    """Take the database away for as long as the block runs: killed, or mute."""
    await asyncio.to_thread(server.kill if fault == "refused" else server.pause)
    try:
        yield
    finally:
        if fault == "refused":
            await asyncio.to_thread(server.start)
        else:
            server.resume()


async def run_through(
    project: Outage, server: PostgresServer, meter: Meter, *, calm: float, outage: float
) -> None:
    """Have each kind of outage once, with calm before, between and after."""
    for fault in ("refused", "mute"):
        with meter.stretch("calm"):
            await asyncio.sleep(calm)
        with meter.stretch(fault):
            async with away(server, fault):
                await asyncio.sleep(outage)
        with meter.stretch(f"{fault}, after"):
            await asyncio.sleep(min(calm, 10))
    with meter.stretch("calm"):
        await asyncio.sleep(calm)


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_a_minute_without_a_database_slows_no_task(
    open_project: Open, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """A worker under full load, Postgres killed for a minute and mute for another one."""
    async with open_project(Outage, own_postgres.url) as (project, workers):
        meter = Meter(project.acknowledged)
        start_worker(workers)
        async with project.fed():
            await until("the worker works", lambda: has_acknowledged(project, 1000), 60)
            async with during(meter.run()):
                await run_through(project, own_postgres, meter, calm=30, outage=60)
        converged = await settle(project, tmp_path / "journals", 120)
        wrong = await project.faults(is_exact=True)
    shares = {fault: meter.compare(fault) for fault in ("refused", "mute")}
    for fault in shares:
        meter.compare(f"{fault}, after")
    print(f"{len(project.sent)} tasks, settled in {converged:.1f} s")

    assert [] == wrong[:10]
    assert CONVERGED >= converged
    assert {} == {fault: one for fault, one in shares.items() if min(one) < SHARE}


async def has_acknowledged(project: Outage, count: int) -> bool:
    """Tell whether so many messages are acknowledged."""
    return await project.acknowledged() >= count


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", ["refused", "mute"])
async def test_tasks_go_on_while_the_database_is_away(
    open_project: Open, own_postgres: PostgresServer, tmp_path: Path, fault: str
) -> None:
    """Postgres killed or mute for three seconds: acknowledgements go on, and nothing is lost."""
    async with open_project(Outage, own_postgres.url) as (project, workers):
        start_worker(workers)
        async with project.fed():
            await until("the worker works", lambda: has_acknowledged(project, 100), 60)
            async with away(own_postgres, fault):
                await asyncio.sleep(1.5)
                before = await project.acknowledged()
                await asyncio.sleep(1.5)
                after = await project.acknowledged()
                size = kept(tmp_path / "journals")
        await settle(project, tmp_path / "journals", 60)
        wrong = await project.faults(is_exact=True)

    assert [] == wrong[:10]
    assert before < after, "no task was acknowledged while the database was away"
    assert 0 < size


async def keep_dying(server: PostgresServer, meter: Meter, minutes: float) -> int:
    """Kill the database and start it again every 5 to 20 s; give how often.

    Calm is what begins four seconds after a start: beside the outages, for machines whose other
    load comes and goes.
    """
    chance = random.Random(17)
    kills = 0
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        kills += 1
        await asyncio.sleep(4)
        with meter.stretch("calm"):
            await asyncio.sleep(chance.uniform(1, 16))
    return kills


@pytest.mark.chaos
@pytest.mark.timeout(60 * MINUTES + 600)
async def test_a_database_that_keeps_dying_slows_no_task(
    open_project: Open, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """R17: Postgres killed and started again every 5 to 20 s: all is recorded, nothing twice."""
    async with open_project(Outage, own_postgres.url) as (project, workers):
        meter = Meter(project.acknowledged)
        start_worker(workers)
        async with project.fed():
            await until("the worker works", lambda: has_acknowledged(project, 1000), 60)
            async with during(meter.run()):
                with meter.stretch("dying"):
                    kills = await keep_dying(own_postgres, meter, MINUTES)
        converged = await settle(project, tmp_path / "journals", 120)
        wrong = await project.faults(is_exact=True)
    _, share = meter.compare("dying")
    print(f"{kills} kills, {len(project.sent)} tasks, settled in {converged:.1f} s")

    assert [] == wrong[:10]
    assert CONVERGED >= converged
    assert share >= SHARE
