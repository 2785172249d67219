"""Priorities and leases with real workers that are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections import Counter

import pytest

from tests.acceptance.conftest import Open, Workers
from tests.acceptance.killing import kill_at_random
from tests.acceptance.levels import LEASE, Body, Levels
from tests.waits import until

APP = "tests.acceptance.levels:broker"


def start_worker(workers: Workers, processes: int, at_once: int) -> subprocess.Popen[bytes]:
    """Start a worker of the project."""
    return workers.start(
        *("-m", "taskiq", "worker", APP, "--log-level", "WARNING"),
        *("--workers", str(processes), "--max-async-tasks", str(at_once)),
        *("--wait-tasks-timeout", "5"),
    )


def overtaken(begun: list[Body], room: int) -> float:
    """Give the share of tasks that began although more urgent ones waited.

    All were sent before the first began. Who began is told a moment later, and a killed worker's
    come a lease later: so many as all workers can hold, twice, are no fault.
    """
    first: dict[int, Body] = {}
    for body in begun:
        first.setdefault(body.number, body)
    order = list(first.values())
    waiting = Counter(body.level for body in order)
    wrong = 0
    for body in order:
        waiting[body.level] -= 1
        more_urgent = sum(count for level, count in waiting.items() if level > body.level)
        wrong += more_urgent > 2 * room
    return wrong / len(order)


async def outlive_kills(
    project: Levels, workers: Workers, *, count: int, processes: int, at_once: int, deadline: float
) -> list[Body]:
    """Send *count* tasks, kill workers until all are taken; give what began."""
    chance = random.Random(count)
    for number in range(count):
        level = chance.randint(1, 10)
        sent = project.work.kicker().with_labels(priority=level)
        await sent.kiq(number, level, chance.uniform(0.03, 0.09))
    main = start_worker(workers, processes, at_once)

    async def has_begun() -> bool:
        return bool(await project.told("begun"))

    await until("the first one begins", has_begun, 30)
    killer = asyncio.create_task(kill_at_random(main, chance, (1.0, 2.5)))

    async def are_taken() -> bool:
        return not (await project.broker.queue_states())[0].depth

    try:
        await until("all are taken", are_taken, deadline)
    finally:
        killer.cancel()
    await until("all are acknowledged", project.is_drained, deadline)
    return await project.told("begun")


async def check(project: Levels, begun: list[Body], count: int, room: int) -> None:
    """Look at what happened: nothing lost, nothing recorded wrong, order within the promise."""
    done = {body.number for body in await project.told("done")}
    stats = await project.tracker.stats()
    (state,) = await project.broker.queue_states()

    assert set(range(count)) == done
    assert (count, count) == (stats.total, stats.success)
    assert (0, 0) == (state.depth, state.dead_letters)
    assert len(begun) > count, "no kill hit a body: the test shows nothing"
    assert 0.05 < overtaken(begun, room) < 0.13  # one in ten is taken by its age


@pytest.mark.timeout(120)
async def test_nothing_is_lost_and_the_most_urgent_come_first(
    open_project: Open, postgres_url: str
) -> None:
    """Two processes, one killed every one to two and a half seconds."""
    async with open_project(Levels, postgres_url) as (project, workers):
        begun = await outlive_kills(
            project, workers, count=400, processes=2, at_once=4, deadline=60
        )
        await check(project, begun, 400, room=8)


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_nothing_is_lost_for_long(open_project: Open, postgres_url: str) -> None:
    """10,000 tasks, four processes."""
    async with open_project(Levels, postgres_url) as (project, workers):
        begun = await outlive_kills(
            project, workers, count=10_000, processes=4, at_once=5, deadline=600
        )
        await check(project, begun, 10_000, room=20)


@pytest.mark.timeout(120)
async def test_a_long_task_and_an_orphan(open_project: Open, postgres_url: str) -> None:
    """Three leases long it runs once, blocking its loop or not; killed, an idle worker takes it."""
    async with open_project(Levels, postgres_url) as (project, workers):
        mains = [start_worker(workers, 1, 2) for _ in range(3)]

        async def are_there() -> bool:
            (state,) = await project.broker.queue_states()
            return state.consumers == 3

        await until("three workers listen", are_there, 30)
        await project.block.kiq(1, 3 * LEASE)
        await project.work.kiq(2, 1, 3 * LEASE)
        await until("both are done", project.is_drained, 30)
        once = [body.number for body in await project.told("begun")]

        await project.work.kiq(3, 1, 2.0)
        await until("it begins", lambda: has_begun(project, 3), 30)
        (killed,) = [one for one in await project.told("begun") if one.number == 3]
        (main,) = [one for one in mains if os.getpgid(killed.pid) == os.getpgid(one.pid)]
        os.killpg(main.pid, signal.SIGKILL)
        at = time.monotonic()
        await until("it is done", project.is_drained, 30)
        (_, again) = [one for one in await project.told("begun") if one.number == 3]
        stats = await project.tracker.stats()

    assert [1, 2] == sorted(once)
    assert again.at - at < 1.5 * LEASE + 5  # five for a slow machine; the queue was idle
    assert again.pid != killed.pid
    assert (3, 3) == (stats.total, stats.success)


async def has_begun(project: Levels, number: int) -> bool:
    """Whether a body has begun."""
    return number in {one.number for one in await project.told("begun")}
