"""Held messages on both databases: chains, diamonds, failures, cancels, and who sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from taskiq import InMemoryBroker

from aiotrack import TaskStatus, Tracker, TrackerMiddleware


class Shop:
    """A broker in this process, and the order in which its bodies began."""

    def __init__(self, tracker: Tracker, *others: Any) -> None:
        self.tracker = tracker
        self.broker = InMemoryBroker(max_stored_results=-1)
        self.broker.add_middlewares(TrackerMiddleware(tracker), *others)
        self.gate = asyncio.Event()
        self.begun: list[str] = []

        @self.broker.task("shop.note")
        async def note(name: str) -> str:
            self.begun.append(name)
            return name

        @self.broker.task("shop.wait")
        async def wait(name: str) -> str:
            self.begun.append(name)
            await self.gate.wait()
            return name

        @self.broker.task("shop.fail")
        async def fail(name: str) -> None:
            self.begun.append(name)
            await self.gate.wait()
            raise ValueError("card declined")

        self.note, self.wait, self.fail = note, wait, fail


@pytest.fixture
async def shop(tracker: Tracker) -> AsyncIterator[Shop]:
    """The shop on each database."""
    shop = Shop(tracker)
    yield shop
    shop.gate.set()
    await shop.broker.wait_all()


async def test_what_waits_is_sent_when_it_may(shop: Shop) -> None:
    """A held execution is PENDING, then runs as soon as what it needs is done."""
    first = await shop.tracker.submit("shop.wait", ["a"])
    second = await shop.tracker.submit(shop.note, ["b"], depends_on=[first], priority="high")
    held = await shop.tracker.get(second.task_id)
    shop.gate.set()
    done = await shop.tracker.wait(second.task_id, 10)

    assert held.status is TaskStatus.PENDING
    assert held.metadata == {"depends_on": [first.task_id]}
    assert done.status is TaskStatus.SUCCESS
    assert done.created_at == held.created_at
    assert (done.priority, done.time_limit) == (8, 300.0)
    assert shop.begun == ["a", "b"]


async def test_a_failure_fails_what_waits_for_it(shop: Shop) -> None:
    """The error names what failed, and why; who waits for the result gets it, too."""
    first = await shop.tracker.submit("shop.fail", ["a"])
    second = await shop.tracker.submit(shop.note, ["b"], depends_on=[first])
    third = await shop.tracker.submit(shop.note, ["c"], depends_on=[second])
    shop.gate.set()
    done = await shop.tracker.wait(third.task_id, 10)
    result = await second.wait_result(timeout=10)

    assert done.status is TaskStatus.FAILURE
    print(done.error, done.error_type, done.error_class)
    print(result.error)
    assert shop.begun == ["a"]
