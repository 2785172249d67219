"""Untracked tasks that a broker runs inside tracked ones: they belong to no record."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aiotrack import TaskLogCollector, TaskStatus, Tracker, current_execution
from aiotrack.errors import NoCurrentExecution
from tests.integration.bench import Bench, bench

log = logging.getLogger("shop")


@pytest.fixture(params=[False, True], ids=["beside", "inside"])
async def b(request: pytest.FixtureRequest, tracker: Tracker) -> AsyncIterator[Bench]:
    """A broker that runs tasks in this process: in asyncio tasks of their own, and in `kiq`."""
    async with bench(tracker, inplace=request.param) as b:
        yield b


async def test_an_untracked_task_writes_to_no_record(b: Bench, tracker: Tracker) -> None:
    """Neither progress, logs nor checkpoints; who has sent it goes on with his own."""

    @b.task("shop.untracked", track=False)
    async def untracked() -> bool:
        log.warning("untracked")
        await tracker.progress(77, of="untracked")
        with pytest.raises(NoCurrentExecution):
            await tracker.checkpoint("untracked")
        return current_execution() is None

    @b.task("shop.untracked_thread", track=False)
    def untracked_thread() -> bool:
        log.warning("untracked")
        tracker.progress_sync(78, of="untracked")
        return current_execution() is None

    @b.task("shop.outer")
    async def outer() -> list[Any]:
        sent = [await untracked.kiq(), await untracked_thread.kiq()]
        told = [(await one.wait_result(timeout=20)).return_value for one in sent]
        log.warning("outer")
        await tracker.progress(10)
        run = current_execution()
        return [*told, None if run is None else run.task_name, await tracker.last_checkpoint()]

    record = await b.run(outer)
    lines = (await tracker.logs(record.task_id)).items

    assert [True, True, "shop.outer", None] == record.result
    assert {"progress_percent": 10} == record.metadata
    assert ["outer"] == [line.message for line in lines]


async def test_a_collector_of_the_outer_run_takes_nothing_of_it(b: Bench, tracker: Tracker) -> None:
    """Its lines would be the run's; afterwards it collects on."""

    @b.task("shop.untracked", track=False)
    async def untracked() -> None:
        log.warning("untracked")

    @b.task("shop.outer")
    async def outer() -> None:
        with TaskLogCollector():
            await (await untracked.kiq()).wait_result(timeout=20)
            log.warning("outer")

    record = await b.run(outer)
    lines = (await tracker.logs(record.task_id)).items

    assert ["outer"] == [line.message for line in lines]


async def test_a_tracked_task_inside_an_untracked_one_is_recorded(
    b: Bench, tracker: Tracker
) -> None:
    """Each has its own again when what it sent is over; a worker elsewhere knows no more."""
    names: list[str | None] = []

    def note() -> None:
        run = current_execution()
        names.append(None if run is None else run.task_name)

    @b.task("shop.innermost", track=False)
    async def innermost() -> None:
        note()

    @b.task("shop.inner")
    async def inner() -> None:
        note()
        await (await innermost.kiq()).wait_result(timeout=20)
        note()

    @b.task("shop.untracked", track=False)
    async def untracked() -> None:
        note()
        await (await inner.kiq()).wait_result(timeout=20)
        note()

    @b.task("shop.outer")
    async def outer() -> None:
        await (await untracked.kiq()).wait_result(timeout=20)
        note()

    record = await b.run(outer)
    (found,) = (await tracker.list(task_name="shop.inner")).items

    assert [None, "shop.inner", None, "shop.inner", None, "shop.outer"] == names
    assert (TaskStatus.SUCCESS, None) == (found.status, found.parent_task_id)
    assert TaskStatus.SUCCESS is record.status


async def test_an_untracked_task_that_dies_outside_its_body(tracker: Tracker) -> None:
    """TaskIQ tells nobody of its end: the outer run is still found at its own."""
    async with bench(tracker, inplace=True) as b:

        @b.task("shop.untracked", track=False, ack_type="unheard of")
        async def untracked() -> None:
            pass

        @b.task("shop.outer")
        async def outer() -> None:
            await untracked.kiq()

        record = await b.run(outer)

    assert TaskStatus.FAILURE is record.status
    assert "SendTaskError" in (record.error_type or "")
