"""Workers that are killed and asked to end, with and without a database: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from aiotrack import Execution, TaskStatus
from aiotrack.testing.servers import PostgresServer
from tests.acceptance.conftest import Open, Workers
from tests.acceptance.killing import kill_at_random
from tests.acceptance.kills import IDLE, Kills
from tests.waits import until

APP = "tests.acceptance.kills:broker"


def start_worker(workers: Workers, processes: int) -> subprocess.Popen[bytes]:
    """Start a worker of the project."""
    return workers.start(
        *("-m", "taskiq", "worker", APP, "--log-level", "WARNING"),
        *("--workers", str(processes), "--wait-tasks-timeout", "5"),
    )


def end(main: subprocess.Popen[bytes], sign: int) -> None:
    """End a worker with all of its processes, as an orchestrator does: SIGKILL for who stays.

    Who is asked has a second until its parent hears of it, and TaskIQ's five. On Python 3.11
    redis-py may swallow the cancellation of TaskIQ's own listener (by `asyncio.wait_for`), which
    then listens for ever: nearly always on asyncio's loop, rarely on uvloop.
    """
    if sign == signal.SIGTERM:
        main.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            main.wait(8)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(main.pid, signal.SIGKILL)
    main.wait()


def kept(folder: Path) -> int:
    """Give the bytes of all journals."""
    return sum(path.stat().st_size for path in folder.rglob("*.journal"))


async def send(project: Kills, numbers: range, sent: dict[int, str], pause: float = 0.0) -> None:
    """Send the task with each number, with *pause* seconds between two."""
    for number in numbers:
        sent[number] = (await project.work.kiq(number)).task_id
        await asyncio.sleep(pause)


async def everything(project: Kills) -> dict[str, Execution]:
    """Read every record."""
    found: dict[str, Execution] = {}
    after = None
    while True:
        page = await project.tracker.list(limit=500, after=after, order="created_at")
        found |= {one.task_id: one for one in page.items}
        after = page.next
        if after is None:
            return found


async def faults(project: Kills, sent: dict[int, str]) -> list[str]:
    """Compare what was sent and what the bodies told with the records; give what is wrong."""
    records = await everything(project)
    begun, done = await project.told("begun"), await project.told("done")
    wrong = [f"phantom record {one}" for one in set(records) - set(sent.values())]
    for number, task_id in sent.items():
        record = records.get(task_id)
        if record is None:
            wrong.append(f"no record of {number}")
        elif record.status is not TaskStatus.SUCCESS:
            wrong.append(f"{number} is acknowledged and its record says {record.status}")
        elif record.result not in done.get(number, set()):
            wrong.append(f"{number} has a result of no body: {record.result}")
        elif record.runs > len(begun[number]):
            wrong.append(f"{number} ran {len(begun[number])} times, not {record.runs}")
        else:
            attempts = await project.tracker.attempts(task_id) if record.runs > 1 else []
            ended = sum(one.status is TaskStatus.SUCCESS for one in attempts)
            if ended > len(done[number]):
                wrong.append(f"{number} ended {len(done[number])} times, not {ended}")
    return wrong


async def outlive_kills(
    project: Kills, workers: Workers, *, count: int, processes: int, pause: float, deadline: float
) -> tuple[dict[int, str], int]:
    """Kill workers while *count* tasks run; give what was sent, and how many bodies died."""
    sent: dict[int, str] = {}
    chance = random.Random(count)
    main = start_worker(workers, processes)
    await send(project, range(1), sent)
    await until("a body began", lambda: project.told("begun"), deadline)  # no kill would hit any
    killer = asyncio.create_task(kill_at_random(main, chance, (1.0, 3.0)))
    await send(project, range(1, count), sent, pause)
    killer.cancel()
    trickle = asyncio.create_task(send(project, range(count, 2 * count), sent, 0.2))

    async def is_acknowledged() -> bool:
        return await project.pending() <= 1

    await asyncio.sleep(IDLE)
    await until("all acknowledged", is_acknowledged, deadline)
    trickle.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await trickle
    await until("the last acknowledged", lambda: none_pending(project), deadline)
    begun, done = await project.told("begun"), await project.told("done")
    died = sum(len(bodies) - len(done.get(n, ())) for n, bodies in begun.items())
    return {n: task_id for n, task_id in sent.items() if n in begun}, died


async def none_pending(project: Kills) -> bool:
    """Tell whether every message is acknowledged."""
    return await project.pending() == 0


@pytest.mark.timeout(120)
async def test_every_acknowledged_task_has_its_final_record(
    open_project: Open, postgres_url: str
) -> None:
    """Two processes killed every one to three seconds: no final record missing, no phantom."""
    async with open_project(Kills, postgres_url) as (project, workers):
        sent, died = await outlive_kills(
            project, workers, count=600, processes=2, pause=0.015, deadline=60
        )
        wrong = await faults(project, sent)

    assert [] == wrong[:10]
    assert 600 <= len(sent)
    assert 0 < died, "no kill hit a body: the test shows nothing"


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_every_acknowledged_task_has_its_final_record_for_long(
    open_project: Open, postgres_url: str
) -> None:
    """R16: four processes killed every one to three seconds while 20,000 tasks run."""
    async with open_project(Kills, postgres_url) as (project, workers):
        sent, died = await outlive_kills(
            project, workers, count=20_000, processes=4, pause=0.004, deadline=900
        )
        wrong = await faults(project, sent)

    assert [] == wrong[:10]
    assert 20_000 <= len(sent)
    assert 0 < died


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("fault", ["killed", "paused"])
async def test_an_end_without_a_database_loses_nothing(
    open_project: Open, own_postgres: PostgresServer, tmp_path: Path, sign: int, fault: str
) -> None:
    """R27: acknowledged while Postgres is away: in the journal, and the next worker replays it."""
    sent: dict[int, str] = {}
    journals = tmp_path / "journals"
    async with open_project(Kills, own_postgres.url) as (project, workers):
        main = start_worker(workers, 2)
        await send(project, range(20), sent)
        await until("the worker is there", lambda: none_pending(project), 30)
        await asyncio.to_thread(own_postgres.kill if fault == "killed" else own_postgres.pause)
        try:
            await asyncio.gather(*(send(project, range(n, 300, 10), sent) for n in range(20, 30)))
            await until("all acknowledged", lambda: none_pending(project), 30)
            await asyncio.to_thread(end, main, sign)
            size = kept(journals)
        finally:
            if fault == "killed":
                await asyncio.to_thread(own_postgres.start)
            else:
                own_postgres.resume()
        start_worker(workers, 1)

        async def is_replayed() -> bool:
            return (await project.tracker.stats()).success == len(sent)

        await until("all replayed", is_replayed, 30)
        wrong = await faults(project, sent)
        await asyncio.to_thread(workers.stop)

    assert [] == wrong[:10]
    assert 300 == len(sent)
    assert 0 < size
    assert 0 == kept(journals)
