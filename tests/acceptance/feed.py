"""A broker that brings its own messages: a worker that ends whenever it is asked to.

Workers load ``tests.acceptance.feed:broker``. Real queues add their own delays to an end; here only
TaskIQ's and the tracker's are left.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from taskiq import AckableMessage, AsyncBroker, BrokerMessage, TaskiqMessage

from aiotrack import Tracker, TrackerMiddleware

ACKS_VARIABLE = "ACCEPTANCE_ACKS"
COUNT = 20


class FeedBroker(AsyncBroker):
    """Gives every worker the same messages, and writes down which were acknowledged."""

    def __init__(self, acks: Path) -> None:
        super().__init__()
        self._acks = acks

    async def kick(self, message: BrokerMessage) -> None:
        """Take nothing: nobody sends."""
        raise NotImplementedError

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Give each message once, one after the other, then wait."""
        for number in range(COUNT):
            await asyncio.sleep(0.05)
            message = TaskiqMessage(
                task_id=f"task {number}",
                task_name="feed.double",
                labels={},
                args=[number],
                kwargs={},
            )
            told = self.formatter.dumps(message).message
            yield AckableMessage(data=told, ack=lambda number=number: self._ack(number))
        await asyncio.Event().wait()

    def _ack(self, number: int) -> None:
        with self._acks.open("a") as file:
            file.write(f"task {number}\n")


def make_broker() -> FeedBroker:
    """Make the broker that the variables describe, with its task."""
    broker = FeedBroker(Path(os.environ[ACKS_VARIABLE]))
    broker.add_middlewares(TrackerMiddleware(Tracker(os.environ["AIOTRACK_DATABASE_URL"])))

    @broker.task("feed.double")
    async def double(number: int) -> int:
        return number * 2

    return broker


if ACKS_VARIABLE in os.environ:
    broker = make_broker()
