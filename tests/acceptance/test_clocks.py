"""Hosts an hour apart: every time of every record is the database's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from redis.asyncio import Redis

from aiotrack import Attempt, Execution, Tracker
from aiotrack.testing.servers import PostgresServer
from tests.acceptance.conftest import ROOT, Workers, forget
from tests.acceptance.hosts import QUEUE_VARIABLE, SHIFT_VARIABLE
from tests.integration.proxy import proxied
from tests.waits import until

pytestmark = pytest.mark.timeout(120)

APP = "tests.acceptance.hosts"
HOUR = 3600
NEAR = 5.0
"""Seconds by which a recorded time may be off on a busy machine; a host's is off by thousands."""

LATE = 1.0
"""Seconds that a busy worker may need between a hook and the body."""

COUNT = 20
Host = Callable[[str, int], Workers]


@pytest.fixture
def host(
    redis_url: str, queue_name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Host]:
    """A host whose clock is wrong by so many seconds, with a database; its journals are shared."""
    made: list[Workers] = []

    def host(database: str, shift: int) -> Workers:
        environment = {
            "AIOTRACK_DATABASE_URL": database,
            "AIOTRACK_JOURNAL_DIR": str(tmp_path / "journals"),
            "ACCEPTANCE_REDIS_URL": redis_url,
            QUEUE_VARIABLE: queue_name,
            SHIFT_VARIABLE: str(shift),
        }
        made.append(Workers(environment, tmp_path / "workers.log"))
        return made[-1]

    yield host
    for workers in made:
        workers.stop()
    asyncio.run(forget(redis_url, queue_name))
    if made:
        request.node.add_report_section("call", "workers", made[-1].told()[-6000:])


def work(workers: Workers) -> subprocess.Popen[bytes]:
    """Start a worker on a host."""
    return workers.start(
        *("-m", "taskiq", "worker", f"{APP}:broker", "--log-level", "WARNING"),
        *("--workers", "1", "--wait-tasks-timeout", "5"),
    )


async def send(workers: Workers) -> dict[str, list[float]]:
    """Send from a host; give what was true before and after each send, by task_id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", APP, str(COUNT)),
        cwd=ROOT,
        env=workers.environment,
        stdout=subprocess.PIPE,
    )
    told, _ = await process.communicate()
    found: dict[str, list[float]] = json.loads(told)
    return found


async def acknowledged(redis_url: str, queue: str) -> None:
    """Wait until no message waits."""
    async with Redis.from_url(redis_url) as redis:

        async def done() -> bool:
            groups = await redis.xinfo_groups(queue)
            return all(int(one["pending"]) + int(one["lag"]) == 0 for one in groups)

        await until("all acknowledged", done, 40)


async def settled(tracker: Tracker, sent: dict[str, list[float]]) -> list[str]:
    """Wait until all is recorded, and give what is wrong."""

    async def done() -> bool:
        return (await tracker.stats()).success == len(sent)

    await until("all recorded", done, 30)
    wrong = []
    for record in (await tracker.list(limit=COUNT)).items:
        attempts = await tracker.attempts(record.task_id)
        wrong += time_faults(record, attempts, *sent[record.task_id])
    return wrong


def time_faults(
    record: Execution, attempts: list[Attempt], before: float, after: float
) -> Iterator[str]:
    """Compare the times of a record with the true ones; give what is wrong in words."""
    name = record.args[0]
    begun, ended = record.result
    if not before - NEAR <= seconds(record.created_at) <= after + NEAR:
        yield f"{name} was sent at {before}, not at {seconds(record.created_at)}"
    if not begun - LATE <= seconds(record.started_at) <= begun + NEAR:
        yield f"{name} began at {begun}, not at {seconds(record.started_at)}"
    if not ended - NEAR <= seconds(record.finished_at) <= ended + LATE:
        yield f"{name} ended at {ended}, not at {seconds(record.finished_at)}"
    starts = [seconds(one.started_at) for one in attempts]  # a retry is sent before its cause ends
    moments = [seconds(record.created_at), *starts]
    if moments != sorted(moments) or record.wait is None or record.wait < 0:
        yield f"{name} is out of order: {moments}"
    if any(seconds(one.finished_at) < seconds(one.started_at) for one in attempts):
        yield f"{name} ended before it began"
    if len(attempts) != (2 if name % 5 == 4 else 1):
        yield f"{name} has {len(attempts)} attempts"


def seconds(moment: datetime | None) -> float:
    """Give a recorded time as seconds since 1970."""
    return 0.0 if moment is None else moment.timestamp()


async def test_hosts_an_hour_apart_tell_one_time(
    host: Host, postgres_url: str, redis_url: str, queue_name: str
) -> None:
    """Sender an hour ahead, worker an hour behind: all times are right, and in order."""
    work(host(postgres_url, -HOUR))
    sent = await send(host(postgres_url, HOUR))
    await acknowledged(redis_url, queue_name)
    async with Tracker(postgres_url) as tracker:
        wrong = await settled(tracker, sent)

    assert COUNT == len(sent)
    assert [] == wrong[:5]


@pytest.mark.parametrize("is_killed", [False, True])
async def test_times_are_right_though_the_database_was_away_at_the_start(
    host: Host, own_postgres: PostgresServer, redis_url: str, queue_name: str, is_killed: bool
) -> None:
    """Nobody knew the time: what was in memory, and what a third host's worker found, is right."""
    async with Tracker(own_postgres.url):
        pass  # makes the schema
    await asyncio.to_thread(own_postgres.kill)
    main = work(host(own_postgres.url, -HOUR))
    sent = await send(host(own_postgres.url, HOUR))
    await acknowledged(redis_url, queue_name)
    if is_killed:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(main.pid, signal.SIGKILL)
        main.wait()
    await asyncio.to_thread(own_postgres.start)
    if is_killed:
        work(host(own_postgres.url, 2 * HOUR))
    async with Tracker(own_postgres.url) as tracker:
        wrong = await settled(tracker, sent)

    assert COUNT == len(sent)
    assert [] == wrong[:5]


async def test_a_sender_that_did_not_know_the_time_told_none(
    host: Host, postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """Only the sender was cut off: its messages carry no time, and its journal brings the true."""
    async with proxied(postgres_url) as (proxy, url):
        proxy.is_black_hole = True
        work(host(postgres_url, -HOUR))
        sent = await send(host(url, HOUR))
        await acknowledged(redis_url, queue_name)
        async with Tracker(postgres_url) as tracker:
            early = [one.wait for one in (await tracker.list(limit=COUNT)).items]
            proxy.is_black_hole = False
            proxy.cut()
            settings = {"journal_dir": str(tmp_path / "journals")}
            async with Tracker(url, settings=settings) as heir:
                await until("replayed", lambda: is_replayed(heir), 20)
            wrong = await settled(tracker, sent)

    assert COUNT == len(sent)
    assert [] == wrong[:5]
    assert [] == [wait for wait in early if wait is None or not 0 <= wait < 1]


async def is_replayed(tracker: Tracker) -> bool:
    """Tell whether no journal is left."""
    await tracker.flush(1)
    keeper = tracker.recorder()._keeper
    return keeper is not None and not keeper.has_work
