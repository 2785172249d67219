"""Copies of one message: who waited while the first delivery ended does not do its work again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from taskiq import InMemoryBroker, TaskiqMessage

from aiotrack import TaskStatus, Tracker, TrackerMiddleware, is_task_locked, prevent_duplicate_task

BUSY = 0.8
"""Seconds of a body: less than the third of a lease, so that no copy sees a renewal."""


@pytest.fixture
async def broker(tracker: Tracker) -> AsyncIterator[InMemoryBroker]:
    """A broker in this process, tracked; with work that counts its bodies."""
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
    bodies: list[int] = []

    async def work(fault: str) -> str:
        bodies.append(1)
        number = len(bodies)
        await asyncio.sleep(BUSY)
        if fault and number == 1:
            raise ValueError(fault)
        return f"body {number}"

    @broker.task("shop.rows")
    @prevent_duplicate_task("rows")
    async def rows(fault: str = "") -> str:
        return await work(fault)

    @broker.task("shop.rows-sync")
    @prevent_duplicate_task("rows")
    def rows_sync(fault: str = "") -> str:
        return asyncio.run(work(fault))

    await broker.startup()
    yield broker
    await broker.shutdown()


def deliver(
    broker: InMemoryBroker,
    name: str = "shop.rows",
    fault: str = "",
    labels: dict[str, Any] | None = None,
) -> asyncio.Task[Any]:
    """Hand a message to the worker, as its broker does."""
    message = TaskiqMessage(
        task_id="x", task_name=name, labels=labels or {}, args=[], kwargs={"fault": fault}
    )
    wire = broker.formatter.dumps(message).message
    return asyncio.create_task(broker.receiver.callback(wire))


@pytest.mark.parametrize("name", ["shop.rows", "shop.rows-sync"])
async def test_a_copy_of_what_ended_well(
    broker: InMemoryBroker, tracker: Tracker, name: str
) -> None:
    """It waited, saw no renewal, and the lock became free: by the end of the work."""
    first = deliver(broker, name)
    await asyncio.sleep(0.3)
    await asyncio.gather(first, deliver(broker, name))
    result = await broker.result_backend.get_result("x")
    record = await tracker.get("x")
    runs = [run.status for run in await tracker.attempts("x")]
    await asyncio.sleep(0.2)

    assert "body 1" == result.return_value == record.result
    assert (TaskStatus.SUCCESS, 0) == (record.status, record.duplicates)
    assert [TaskStatus.REVOKED, TaskStatus.SUCCESS] == sorted(runs)
    assert not await is_task_locked("rows")


async def test_a_copy_of_what_failed(broker: InMemoryBroker, tracker: Tracker) -> None:
    """Its message is about to be acknowledged, as any other's."""
    first = deliver(broker, fault="no rows")
    await asyncio.sleep(0.3)
    await asyncio.gather(first, deliver(broker, fault="no rows"))
    result = await broker.result_backend.get_result("x")

    assert "no rows" == str(result.error)
    assert (TaskStatus.FAILURE, "no rows") == (
        (await tracker.get("x")).status,
        (await tracker.get("x")).error,
    )


@pytest.mark.parametrize("labels", [{"X-Taskiq-requeue": 1}, {"_retries": 1}])
async def test_another_go_is_no_copy(broker: InMemoryBroker, labels: dict[str, int]) -> None:
    """What was sent again before the lock was free does the work: a requeue, a retry."""
    first = deliver(broker, fault="no rows")
    await asyncio.sleep(0.3)
    await asyncio.gather(first, deliver(broker, fault="no rows", labels=labels))
    result = await broker.result_backend.get_result("x")

    assert "body 2" == result.return_value


async def test_a_copy_of_what_was_cut_off(broker: InMemoryBroker) -> None:
    """A worker that ends cancels its bodies, and acknowledges nothing: the copy does the work."""
    first = deliver(broker)
    await asyncio.sleep(0.3)
    copy = deliver(broker)
    await asyncio.sleep(0.1)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    await copy
    result = await broker.result_backend.get_result("x")

    assert "body 2" == result.return_value


async def test_a_later_holder_hides_no_end(broker: InMemoryBroker) -> None:
    """Others took the lock before the copy looked: that is no skip over a real result."""
    first = deliver(broker)
    await asyncio.sleep(BUSY - 0.2)
    copy = deliver(broker)
    await first
    begun = time.monotonic()

    @prevent_duplicate_task("rows")
    async def other() -> str:
        await asyncio.sleep(1)
        return "other"

    assert "other" == await other()
    await copy
    result = await broker.result_backend.get_result("x")

    assert time.monotonic() - begun < 3
    assert "body 1" == result.return_value
