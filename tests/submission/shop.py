"""What the tests of submission share: a broker in this process that notes what its bodies do."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import text
from taskiq import InMemoryBroker

from aiotrack import TaskStatus, Tracker, TrackerMiddleware
from aiotrack.submission import Submission


class Shop:
    """A broker, and the order in which its bodies began.

    Args:
        tracker: Where it records.
        others: Further middlewares.
    """

    def __init__(self, tracker: Tracker, *others: Any) -> None:
        self.tracker = tracker
        self.broker = InMemoryBroker(max_stored_results=-1, max_async_tasks=100)
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

        @self.broker.task("shop.flaky", retry_on_error=True, max_retries=3)
        async def flaky(name: str) -> str:
            self.begun.append(name)
            if self.begun.count(name) < 3:
                raise ConnectionError("once more")
            return name

        self.note, self.wait, self.fail, self.flaky = note, wait, fail, flaky

    async def hold(self, name: str, *needs: Any, **more: Any) -> Any:
        """Submit a note that waits for others."""
        return await self.tracker.submit(self.note, [name], depends_on=needs, **more)

    async def status(self, sent: Any) -> TaskStatus:
        """Give how an execution stands."""
        return (await self.tracker.get(sent.task_id)).status

    async def done(self, sent: Any) -> Any:
        """Wait for the end of an execution, and give it."""
        return await self.tracker.wait(sent.task_id, 20)

    async def look(self) -> None:
        """Look after all that is held, now."""
        await self.tracker.feature(Submission).releaser.look()

    async def held(self) -> tuple[int, int]:
        """Count the messages that are held, and what they need."""
        return await count(self.tracker, "held"), await count(self.tracker, "needs")


async def count(tracker: Tracker, table: str) -> int:
    """Count a table's rows."""
    async with tracker.core().repository.connection() as connection:
        found = await connection.execute(text(f"SELECT count(*) FROM aiotrack_{table}"))
        return int(found.scalar_one())
