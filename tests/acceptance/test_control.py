"""Real workers: what an error means for its retries, and the same work again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aiotrack import Cause, TaskStatus
from tests.waits import until

pytestmark = pytest.mark.timeout(60)

PLACES = [
    *((retry, place) for retry in ("simple", "smart") for place in ("first", "last")),
    ("scheduled", "first"),
]


@pytest.mark.parametrize(("retry", "place"), PLACES)
async def test_only_what_may_get_better_is_tried_again(
    start_project: Callable[..., Any], postgres_url: str, retry: str, place: str
) -> None:
    """Both retry middlewares, in both places, and delays that a schedule source keeps."""
    async with start_project(postgres_url, retry=retry, place=place) as (project, workers):
        workers.worker(1)
        if retry == "scheduled":
            workers.scheduler()
        sent = {
            "transient": await project.kiq("shop.judged", "transient"),
            "permanent": await project.kiq("shop.judged", "permanent"),
            "thread": await project.kiq("shop.judged_in_a_thread", "permanent"),
            "arity": await project.kiq("shop.judged", 1, 2),
            "result": await project.kiq("shop.promises", "x"),
            "fits": await project.kiq("shop.promises", "42"),
            "limit": await project.kiq("shop.limited"),
        }
        tracker = project.tracker

        async def all_done() -> bool:
            stats = await tracker.stats()
            return stats.total == len(sent) == stats.success + stats.failure

        await until("all are over", all_done, 40)
        found = {name: await tracker.get(task_id) for name, task_id in sent.items()}
        runs = await tracker.attempts(sent["transient"])
        limited = await tracker.attempts(sent["limit"])

    assert {
        "transient": (TaskStatus.FAILURE, "transient", 3),
        "permanent": (TaskStatus.FAILURE, "permanent", 1),
        "thread": (TaskStatus.FAILURE, "permanent", 1),
        "arity": (TaskStatus.FAILURE, "invalid_input", 1),
        "result": (TaskStatus.FAILURE, "invalid_result", 1),
        "fits": (TaskStatus.SUCCESS, None, 1),
        "limit": (TaskStatus.SUCCESS, None, 2),
    } == {name: (one.status, one.error_class, one.runs) for name, one in found.items()}
    assert ["timeout", None] == [one.error_class for one in limited]
    assert [] == workers.trouble()
    if retry == "scheduled":
        began = [one.started_at.timestamp() for one in runs if one.started_at is not None]
        assert began[1] - began[0] >= 0.5
        assert began[2] - began[1] >= 2.0


@pytest.mark.parametrize("kind", ["stream", "list"])
async def test_a_rerun_is_done_by_the_worker(
    start_project: Callable[..., Any], database_url: str, kind: str
) -> None:
    """A client that runs no task sends it; arguments as they were, on both databases."""
    async with start_project(database_url, kind=kind) as (project, workers):
        workers.worker(1)
        tracker = project.tracker
        first = await project.kiq("shop.sums:add", 2**60, other=-1, note="again")
        old = await tracker.wait(first, 30)
        new = await tracker.rerun(first, by="admin")
        ended = await tracker.wait(new.task_id, 30)
        bulk = await tracker.rerun_many(task_name="shop.sums:add", status="success")
        last = [await tracker.wait(one.execution.task_id, 30) for one in bulk if one.execution]
        (attempt,) = await tracker.attempts(new.task_id)

    expected = {"sum": {"$int": str(2**60 - 1)}, "note": "again"}
    assert [expected] * 3 == [one.result for one in (old, ended, *last)]
    assert (first, "admin", Cause.RERUN) == (
        *(ended.rerun_of, ended.metadata["rerun_by"], attempt.cause),
    )
    assert [] == workers.trouble()
