"""A broker that delivers a message again while its first worker only pauses: both runs show."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from aiotrack import TaskStatus
from tests.acceptance.conftest import Workers, forget
from tests.acceptance.twins import IDLE, NAME_VARIABLE, QUEUE_VARIABLE, Twins
from tests.waits import until

WORDS = [("ok", "ok"), ("ok", "fail"), ("fail", "ok"), ("fail", "fail")]
"""How the worker that paused ends, and how the other one does."""

FIRST = list(enumerate(WORDS))
"""Tasks whose paused worker ends first."""

SECOND = list(enumerate(WORDS, len(WORDS)))
"""Tasks whose other worker ends first, while the first one pauses."""

S, F, R = TaskStatus.SUCCESS, TaskStatus.FAILURE, TaskStatus.STARTED
STATUS = {"ok": S, "fail": F}


def work(workers: Workers, name: str) -> subprocess.Popen[bytes]:
    """Start a worker with this name."""
    workers.environment[NAME_VARIABLE] = name
    return workers.start(
        *("-m", "taskiq", "worker", "tests.acceptance.twins:broker", "--log-level", "WARNING"),
        *("--workers", "1", "--wait-tasks-timeout", "5"),
    )


async def shown(project: Twins, ids: list[str], ended: int) -> list[tuple[TaskStatus, int, int]]:
    """Wait until so many runs ended; give status, runs and duplicates of each record."""

    async def is_told() -> bool:
        runs = [one for task_id in ids for one in await project.tracker.attempts(task_id)]
        return sum(one.status.is_final for one in runs) == ended and len(runs) == 2 * len(ids)

    await until(f"{ended} ends are told", is_told, 20)
    records = [await project.tracker.get(task_id) for task_id in ids]
    return [(one.status, one.runs, one.duplicates) for one in records]


@pytest.mark.timeout(120)
async def test_two_live_runs_of_a_message_are_both_there(
    database_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """R29: SIGSTOP, redelivery, SIGCONT: whichever ends first, both runs and the true outcome."""
    environment = {
        "AIOTRACK_DATABASE_URL": database_url,
        "ACCEPTANCE_REDIS_URL": redis_url,
        QUEUE_VARIABLE: queue_name,
    }
    workers = Workers(environment, tmp_path / "workers.log")
    project = Twins(database=database_url, redis=redis_url, queue=queue_name)
    await project.broker.startup()
    paused = None
    try:
        paused = work(workers, "a")
        ids = [(await project.work.kiq(n)).task_id for n, _ in FIRST + SECOND]

        async def is_running() -> bool:
            stats = await project.tracker.stats()
            return stats.started == len(ids) == await project.begun("a")

        await until("the first worker runs all", is_running, 20)
        await project.rests()
        os.killpg(paused.pid, signal.SIGSTOP)
        await asyncio.sleep(2 * IDLE)
        work(workers, "b")
        await project.tick.kiq()
        both = await shown(project, ids, 0)

        for number, (_, word) in SECOND:
            await project.end("b", number, word)
        second = await shown(project, ids, 4)
        os.killpg(paused.pid, signal.SIGCONT)
        for number, (word, _) in FIRST:
            await project.end("a", number, word)
        first = await shown(project, ids, 8)

        for number, (word, other) in FIRST + SECOND:
            await project.end("a", number, word)
            await project.end("b", number, other)
        last = await shown(project, ids, 16)
        records = [await project.tracker.get(task_id) for task_id in ids]
        runs = [await project.tracker.attempts(task_id) for task_id in ids]
    finally:
        if paused is not None:
            os.killpg(paused.pid, signal.SIGCONT)
        await asyncio.to_thread(workers.stop)
        await project.broker.shutdown()
        await project.redis.aclose()
        await forget(redis_url, queue_name)

    assert {(R, 2, 1)} == set(both)
    assert [R] * 4 + [S, R, S, R] == [status for status, _, _ in second]
    assert [S, S, R, R, S, R, S, R] == [status for status, _, _ in first]
    assert [S, S, S, F] * 2 == [status for status, _, _ in last]
    assert {(2, 1)} == {(count, duplicates) for _, count, duplicates in last}
    assert ["a", "a", "b", None, "b", "a", "b", None] == [one.result for one in records]
    assert [None] * 3 + ["b"] == [one.error for one in records[:4]], "the run that began last"
    for (_, words), told in zip(FIRST + SECOND, runs, strict=True):
        assert [STATUS[word] for word in words] == [one.status for one in told]
        assert ["first", "redelivery"] == [one.cause.value for one in told]
        assert 2 == len({one.worker for one in told})
