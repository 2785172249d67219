"""Real workers send what is held, fail what never can be, and the client only watches."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiotrack import TaskStatus
from aiotrack.submission import Submission
from tests.submission.shop import count
from tests.waits import until

pytestmark = pytest.mark.timeout(90)


@pytest.mark.parametrize("kind", ["postgres, redis", "sqlite"])
async def test_workers_send_what_is_held(
    start_project: Callable[..., Any],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    redis_url: str,
    queue_name: str,
    tmp_path: Path,
    kind: str,
) -> None:
    """A chain, a join, a failed branch and what waits for it; each body once."""
    database = request.getfixturevalue("made_sqlite_url" if kind == "sqlite" else "postgres_url")
    monkeypatch.setenv("AIOTRACK_NAMESPACE", queue_name)
    monkeypatch.setenv("AIOTRACK_HEARTBEAT_SECONDS", "1")
    if kind != "sqlite":
        monkeypatch.setenv("AIOTRACK_REDIS_URL", redis_url)
    monkeypatch.setattr(Submission, "_watch", lambda _: None)  # here, not in the workers
    async with start_project(database) as (project, workers):
        tracker = project.tracker

        async def add(number: int, *needs: Any) -> Any:
            return await tracker.submit("shop.sums:add", [number], depends_on=needs)

        first = await add(1)
        chain = [first]
        for number in range(2, 6):
            chain.append(await add(number, chain[-1]))
        bad = await tracker.submit("shop.fail", [0])
        worse = await add(7, bad, first)
        worst = await add(8, worse)
        join = await add(9, chain[2], chain[4])
        waiting = (await tracker.stats()).pending
        workers.worker(2)

        async def all_over() -> bool:
            return (await tracker.stats()).pending == 0 == await count(tracker, "held")

        await until("all are over", all_over, 60)
        done = [await tracker.get(one.task_id) for one in (*chain, join)]
        failed = [await tracker.get(one.task_id) for one in (bad, worse, worst)]
        left = await count(tracker, "needs")
        waits = [
            (later.started_at - earlier.finished_at).total_seconds()
            for earlier, later in itertools.pairwise(done[:5])
        ]

    print("seconds from the end of a need to the start of what waited:", waits)
    assert 9 == waiting
    assert {(TaskStatus.SUCCESS, 1)} == {(one.status, one.runs) for one in done}
    assert [1, 0, 0] == [one.runs for one in failed]
    assert {TaskStatus.FAILURE} == {one.status for one in failed}
    assert ["DependencyFailed", "DependencyFailed"] == [one.error_type for one in failed[1:]]
    assert f"{bad.task_id} (shop.fail), which failed: ValueError: no 0" in str(failed[1].error)
    assert 0 == left
    assert min(waits) >= 0
    assert [] == workers.trouble()
