"""What each mode loses when a process is killed: exactly what docs/explanation says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from aiotrack import Execution, TaskStatus
from aiotrack.testing.servers import PostgresServer
from tests.acceptance.conftest import Open, Workers
from tests.acceptance.kills import IDLE, Kills
from tests.waits import until

COUNT = 30

SENDER = """
import asyncio, os, signal, sys
from tests.acceptance.kills import broker
from aiotrack import tracking

async def main():
    await broker.startup()
    task = broker.find_task("kills.work")
    with tracking(durability=sys.argv[1]):
        await task.kiq(0)
        await asyncio.sleep(0.5)
        for number in range(1, {count}):
            await task.kiq(number)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def start_worker(workers: Workers, *options: str) -> subprocess.Popen[bytes]:
    """Start a worker of one process."""
    app = ("-m", "taskiq", "worker", "tests.acceptance.kills:broker", "--workers", "1")
    return workers.start(*app, "--log-level", "WARNING", *options)


def kill(main: subprocess.Popen[bytes]) -> None:
    """Kill a worker with all of its processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(main.pid, signal.SIGKILL)
    main.wait()


async def records(project: Kills) -> list[Execution]:
    """Read every record."""
    return (await project.tracker.list(limit=500)).items


async def is_acknowledged(project: Kills) -> bool:
    """Tell whether every message is acknowledged."""
    return await project.pending() == 0


async def has_begun(project: Kills, count: int) -> bool:
    """Tell whether so many bodies have begun."""
    return len(await project.told("begun")) >= count


async def all_succeed(project: Kills) -> bool:
    """Tell whether every record is there and final."""
    return (await project.tracker.stats()).success == COUNT


@pytest.mark.timeout(90)
@pytest.mark.parametrize("durability", ["commit", "async"])
async def test_a_killed_sender_loses_what_it_did_not_wait_for(
    open_project: Open, postgres_url: str, durability: str
) -> None:
    """With "async" the PENDING of the last moment; a worker makes the records whole."""
    async with open_project(Kills, postgres_url) as (project, workers):
        sender = workers.start("-c", SENDER.format(count=COUNT), durability)
        code = await asyncio.to_thread(sender.wait, 30)
        found = await records(project)
        start_worker(workers)
        await until("all recorded", lambda: all_succeed(project), 40)

    assert -signal.SIGKILL == code
    assert {TaskStatus.PENDING} == {one.status for one in found}
    if durability == "commit":
        assert COUNT == len(found)
    else:
        assert 1 <= len(found) < COUNT


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["drop", "block_ack"])
async def test_a_worker_killed_without_database_and_journal(
    open_project: Open, own_postgres: PostgresServer, tmp_path: Path, mode: str
) -> None:
    """Mode drop loses final statuses that it acknowledged; block_ack acknowledges nothing."""
    nowhere = tmp_path / "no folder"
    nowhere.write_text("a file where the journals should be")
    more = {"AIOTRACK_JOURNAL_DIR": str(nowhere), "AIOTRACK_ON_STORE_FAILURE": mode}
    async with open_project(Kills, own_postgres.url, **more) as (project, workers):
        main = start_worker(workers)
        for number in range(10):
            await project.work.kiq(number)
        await until("the worker is there", lambda: is_acknowledged(project), 30)
        await asyncio.to_thread(own_postgres.kill)
        await asyncio.gather(*(project.work.kiq(number) for number in range(10, COUNT)))
        await until("all have begun", lambda: has_begun(project, COUNT), 30)
        if mode == "drop":
            await until("all acknowledged", lambda: is_acknowledged(project), 30)
        else:
            await asyncio.sleep(2.5)  # longer than a hook waits, in vain
        pending = await project.pending()
        await asyncio.to_thread(kill, main)
        await asyncio.to_thread(own_postgres.start)
        assert await project.tracker.flush(20)  # what this process sent
        lost = [one for one in await records(project) if one.status is not TaskStatus.SUCCESS]
        if mode == "block_ack":
            start_worker(workers)
            await asyncio.sleep(IDLE)
            await project.work.kicker().with_labels(track=False).kiq(0)  # a stream looks for
            await until("all run again", lambda: all_succeed(project), 60)  # orphans when one comes

    assert COUNT - 10 == len(lost), "no journal, no database: no final status yet"
    assert (0 if mode == "drop" else COUNT - 10) == pending


@pytest.mark.timeout(90)
async def test_a_worker_that_acknowledges_early_says_what_it_loses(
    open_project: Open, postgres_url: str
) -> None:
    """--ack-type when_received: killed in the body, the message is gone, the record unfinished."""
    async with open_project(Kills, postgres_url, ACCEPTANCE_SLOWER="3000") as (project, workers):
        main = start_worker(workers, "--ack-type", "when_received")
        sent = await project.work.kiq(1)
        await until("it has begun", lambda: has_begun(project, 1), 30)
        await until("acknowledged", lambda: is_acknowledged(project), 10)

        async def is_started() -> bool:
            return (await project.tracker.get(sent.task_id)).status is TaskStatus.STARTED

        await until("its start is recorded", is_started, 10)
        await asyncio.to_thread(kill, main)
        record = await project.tracker.get(sent.task_id)
        said = [line for line in workers.told().splitlines() if "[aiotrack.acks]" in line]

    assert TaskStatus.STARTED is record.status
    assert 1 == len(said)
    assert "RedisStreamBroker with --ack-type when_received" in said[0]
    assert "when_saved" in said[0]
