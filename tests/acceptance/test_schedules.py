"""Real `taskiq scheduler` and `taskiq worker` processes: every due run is sent once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from aiotrack import Execution, TaskDefinition
from aiotrack.redis.keys import schedule_keys
from aiotrack.testing.servers import ValkeyServer
from tests.acceptance.conftest import Workers, forget
from tests.acceptance.ticks import KIND_VARIABLE, QUEUE_VARIABLE, Ticks
from tests.waits import until

APP = "tests.acceptance.ticks"
MINUTES = float(os.environ.get("AIOTRACK_SCHEDULE_MINUTES", "10"))
"""How long the long form takes; ``AIOTRACK_SCHEDULE_MINUTES`` sets it."""


class Fleet:
    """The project as its client, its processes, and what its definitions sent."""

    def __init__(self, project: Ticks, workers: Workers, redis: str, queue: str) -> None:
        self.project, self.workers, self.tracker = project, workers, project.tracker
        self.redis, self.queue = redis, queue

    def worker(self) -> None:
        """Start a worker."""
        self.workers.start(
            *("-m", "taskiq", "worker", f"{APP}:broker", "--log-level", "WARNING"),
            *("--workers", "1", "--wait-tasks-timeout", "5"),
        )

    def scheduler(self, *options: str) -> Any:
        """Start a scheduler; its lists are read once a minute, unless it is told otherwise."""
        return self.workers.start(
            *("-m", "taskiq", "scheduler", f"{APP}:scheduler", "--log-level", "WARNING"), *options
        )

    async def define(self, name: str, kind: str, **schedule: Any) -> TaskDefinition:
        """Make a definition of a tick."""
        return await self.tracker.definitions.create(
            name=name,
            task_type="ticks.tick",
            schedule_kind=kind,
            schedule=schedule,
            parameters={"number": 1},
        )

    async def sent(self, definition: TaskDefinition) -> list[Execution]:
        """Give the executions of a definition, by their due times."""
        found: list[Execution] = []
        after: str | None = None
        while True:
            page = await self.tracker.list(config_id=definition.id, limit=500, after=after)
            found += page.items
            after = page.next
            if after is None:
                return sorted(found, key=due_of)

    async def being_sent(self) -> set[bytes]:
        """Give the due times that somebody has taken and not sent yet."""
        async with Redis.from_url(self.redis) as redis:
            return set(await redis.zrange(schedule_keys(self.queue)[3], 0, -1))

    async def until_over(self) -> None:
        """Wait until all that was sent is done."""

        async def is_over() -> bool:
            left = await self.tracker.list(status=["pending", "started"], limit=1)
            return not left.items

        await until("all runs are over", is_over, 60)


@contextlib.asynccontextmanager
async def fleet(
    database: str, redis: str, queue: str, output: Path, kind: str = "stream"
) -> AsyncIterator[tuple[Fleet, Workers]]:
    """Give a started project, and stop what it started."""
    environment = {
        "AIOTRACK_DATABASE_URL": database,
        "ACCEPTANCE_REDIS_URL": redis,
        QUEUE_VARIABLE: queue,
        KIND_VARIABLE: kind,
    }
    workers = Workers(environment, output)
    project = Ticks(database=database, redis=redis, queue=queue, kind=kind)
    await project.broker.startup()
    try:
        yield Fleet(project, workers, redis, queue), workers
    finally:
        await asyncio.to_thread(workers.stop)
        await project.broker.shutdown()
        await forget(redis, queue)


def due_of(execution: Execution) -> datetime:
    """Read when it was due from its task_id."""
    return datetime.fromisoformat(execution.task_id.partition(":")[2])


def gaps(executions: Sequence[Execution], seconds: float) -> list[tuple[datetime, datetime]]:
    """Give where a due time is missing between two neighbours."""
    dues = [due_of(one) for one in executions]
    return [
        (one, two)
        for one, two in itertools.pairwise(dues)
        if abs((two - one).total_seconds() - seconds) > 0.001
    ]


def lateness(executions: Sequence[Execution]) -> list[float]:
    """Give the seconds from each due time to its send."""
    return [(one.created_at - due_of(one)).total_seconds() for one in executions]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_scheduler_is_killed_and_nothing_is_missed(
    postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """Two schedulers, twenty definitions, a pause: each due time has one execution and one run."""
    async with fleet(postgres_url, redis_url, queue_name, tmp_path / "out.log") as (site, workers):
        made = [
            await site.define(f"n{number}", "interval", seconds=1 + number % 2)
            for number in range(20)
        ]
        verbs = site.tracker.schedules
        for one in made:
            await verbs.start(one.id)
        await verbs.pause("n0")
        site.worker()
        first, _ = site.scheduler(), site.scheduler()

        async def have_run(count: int = 3) -> bool:
            return min([len(await site.sent(one)) for one in made[1:]]) >= count

        await until("three of each", have_run, 60)
        first.send_signal(signal.SIGKILL)
        await asyncio.to_thread(first.wait)
        owed = await site.being_sent()
        begun = time.monotonic()
        await verbs.resume("n0")

        async def is_resumed() -> bool:
            return bool(await site.sent(made[0]))

        await until("the resumed one", is_resumed, 20)
        took = time.monotonic() - begun

        async def is_paid() -> bool:  # ten seconds later, if there is anything
            return not owed & await site.being_sent()

        async def have_run_more() -> bool:
            return await have_run(6)

        await until("six of each", have_run_more, 60)
        await until("what the killed one had taken is sent", is_paid, 40)
        for one in made:
            await verbs.stop(one.id)

        await site.until_over()
        sent = [await site.sent(one) for one in made]

    for number, executions in enumerate(sent):
        assert {1} == {one.runs for one in executions}
        assert [] == gaps(executions, 1 + number % 2)
    assert took < 15, "two seconds, on a machine that has nothing else to do"
    assert [] == workers.trouble()


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("data", ["kept", "lost"])
async def test_redis_restarts_below_schedulers_and_workers(
    postgres_url: str, own_valkey: ValkeyServer, queue_name: str, tmp_path: Path, data: str
) -> None:
    """R34: all goes on by itself, on the same grid; what rested rests; nothing is sent twice."""
    place = (postgres_url, own_valkey.url, queue_name, tmp_path / "out.log", "priority")
    async with fleet(*place) as (site, _):
        made = [
            await site.define(f"n{number}", "interval", seconds=1 + number % 2)
            for number in range(10)
        ]
        verbs = site.tracker.schedules
        for one in made:
            await verbs.start(one.id)
        await verbs.pause("n0")
        site.worker()
        site.scheduler()
        site.scheduler()

        async def have_run(since: datetime | None = None) -> bool:
            each = [await site.sent(one) for one in made[1:]]
            return all(
                len([one for one in runs if since is None or due_of(one) > since]) >= 4
                for runs in each
            )

        await until("four of each", have_run, 60)
        await asyncio.to_thread(own_valkey.stop)
        gone = datetime.now(UTC)
        if data == "lost":
            await asyncio.to_thread(shutil.rmtree, own_valkey.data_dir)
            own_valkey.data_dir.mkdir()
        await asyncio.sleep(1.5)
        await asyncio.to_thread(own_valkey.start)
        back = datetime.now(UTC)

        async def go_on() -> bool:
            return await have_run(back)

        await until("four more of each", go_on, 60)
        states = await verbs.statuses()
        for one in made:
            await verbs.stop(one.id)
        if data == "kept":
            await site.until_over()
        sent = [await site.sent(one) for one in made]

    assert [[]] == sent[:1]
    assert ["paused", *["active"] * 9] == [states[one.id] for one in made]
    for number, executions in enumerate(sent[1:], 1):
        seconds = 1 + number % 2
        assert {0} == {
            round((due_of(one).timestamp() - due_of(executions[0]).timestamp()) * 1000)
            % (seconds * 1000)
            for one in executions
        }
        for one, two in gaps(executions, seconds):
            assert one < back
            assert two > gone
        for one in executions:
            apart = due_of(one) < gone - timedelta(seconds=2) or due_of(one) > back
            assert one.runs == 1 if apart or data == "kept" else one.runs <= 1
    print(f"{data}: the first due time after {lateness_after(sent[1:], back):.1f} s")


def lateness_after(sent: Sequence[Sequence[Execution]], back: datetime) -> float:
    """Give the seconds until the first due time after a moment."""
    dues = [due_of(one) for each in sent for one in each]
    return min((due - back).total_seconds() for due in dues if due > back)


@pytest.mark.chaos
@pytest.mark.timeout(MINUTES * 60 + 300)
async def test_two_hundred_definitions_for_ten_minutes(
    postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """Two schedulers that refresh every second: every due run once, and a pause keeps the phase."""
    periods = [*[1] * 40, *[2, 3, 5] * 20, *[10, 30] * 20]  # and sixty crontabs
    async with fleet(postgres_url, redis_url, queue_name, tmp_path / "out.log") as (site, workers):
        made = {
            name: await site.define(name, "interval", seconds=seconds)
            for name, seconds in ((f"i{n}", one) for n, one in enumerate(periods))
        }
        for number in range(60):
            zone = ("UTC", "Europe/Berlin", "Asia/Kathmandu")[number % 3]
            made[f"c{number}"] = await site.define(f"c{number}", "cron", cron="* * * * *", tz=zone)
        assert 200 == len(made)
        verbs = site.tracker.schedules
        site.worker()
        site.scheduler("--update-interval", "1")
        site.scheduler("--update-interval", "1")
        for name in made:
            await verbs.start(name)
        begun = datetime.now(UTC)
        await asyncio.sleep(MINUTES * 20)
        resting = [name for name in made if name.startswith("i")][::10]
        for name in resting:
            await verbs.pause(name)
        rested = datetime.now(UTC)
        await asyncio.sleep(13.4)
        for name in resting:
            await verbs.resume(name)
        await asyncio.sleep(MINUTES * 40 - 13.4)
        last = {name: await verbs.next_run(name) for name in made}
        for name in made:
            await verbs.stop(name)
        ended = datetime.now(UTC)
        await asyncio.sleep(15)
        await site.until_over()
        sent = {name: await site.sent(one) for name, one in made.items()}
        trouble = workers.trouble()

    late = sorted(itertools.chain.from_iterable(lateness(one) for one in sent.values()))
    total, runs = len(late), sum(one.runs for each in sent.values() for one in each)
    print(
        f"{total} due times in {(ended - begun).total_seconds():.0f} s, {runs} runs; sent after "
        f"p50 {statistics.median(late):.3f} s, p99 {late[int(total * 0.99)]:.3f} s, "
        f"max {late[-1]:.3f} s"
    )
    for name, executions in sent.items():
        seconds = periods[int(name[1:])] if name.startswith("i") else 60
        missing = gaps(executions, seconds)
        if name in resting:  # one gap, over the pause, on the same grid
            assert len(missing) <= 1
            for one, two in missing:
                assert 0 == round((two - one).total_seconds() * 1000) % (seconds * 1000)
                assert (two - one).total_seconds() < 14 + 2 * seconds
                assert one < rested < two
        else:
            assert [] == missing, name
        assert (executions[0].created_at - begun).total_seconds() < seconds + 5
        following = last[name]
        assert following is not None
        assert (following - due_of(executions[-1])).total_seconds() <= seconds + 0.001
    assert total == runs
    assert [] == trouble
