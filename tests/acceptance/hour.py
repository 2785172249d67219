"""The project that lives for an hour while database, broker and workers die in turn.

Workers load ``tests.acceptance.hour:broker``. Bodies tell a file what they do: it outlives Redis.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import uuid4

from redis.asyncio import Redis
from taskiq import SendTaskError

from aiotrack import Tracker, TrackerMiddleware, tracking
from aiotrack.brokers import PriorityStreamBroker, streams
from tests.acceptance.outage import WORK, fault, records

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
TOLD_VARIABLE = "ACCEPTANCE_TOLD"

LEASE = 5.0
"""Seconds after which a message counts as its dead worker's."""

KINDS = {0: "fail", 2: "progress"}
"""What the first of twenty tasks do in the mix; the others work."""


class Hour:
    """A broker with a tracker that uses all, its tasks, and what was sent.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue, and of all that the tracker does in Redis.
        queue: Its name, and the tracker's namespace.
        told: The file that bodies append to.
    """

    def __init__(self, *, database: str, redis: str, queue: str, told: Path) -> None:
        self.redis = Redis.from_url(redis)
        self.tracker = Tracker(database, redis=redis, settings={"namespace": queue})
        self.broker = PriorityStreamBroker(redis, queue_name=queue, lease=LEASE)
        self.broker.add_middlewares(TrackerMiddleware(self.tracker))
        self.sent: set[int] = set()
        self.unsure: set[int] = set()
        """Sends that failed: the server may have taken them all the same."""
        self._url, self._queue, self._told = redis, queue, told

        async def begin(number: int) -> str:
            body = uuid4().hex
            with self._told.open("ab", buffering=0) as file:
                file.write(f"{number} {body}\n".encode())
            await asyncio.sleep(WORK)
            return body

        @self.broker.task("hour.work")
        async def work(number: int) -> str:
            return await begin(number)

        @self.broker.task("hour.fail")
        async def fail(number: int) -> None:
            await begin(number)
            raise ValueError(f"no {number}")

        @self.broker.task("hour.progress")
        async def progress(number: int) -> str:
            for percent in range(0, 101, 10):
                await self.tracker.progress(percent, f"at {percent}")
            return await begin(number)

        self._tasks = {"work": work, "fail": fail, "progress": progress}

    async def send(self, number: int) -> None:
        """Send a task without waiting for its PENDING, as bulk senders do."""
        kicker = self._tasks[KINDS.get(number % 20, "work")].kicker()
        try:
            with tracking(durability="async"):
                await kicker.with_task_id(f"hour-{number}").kiq(number)
        except SendTaskError:
            self.unsure.add(number)
        else:
            self.sent.add(number)

    async def is_drained(self) -> bool:
        """Whether every message is acknowledged."""
        names = streams.streams((self._queue,))
        async with Redis.from_url(self._url) as redis:  # an older connection may be broken
            return not sum([await redis.xlen(name) for name in names])

    def begun(self) -> dict[int, set[str]]:
        """Give the bodies that ran, by the number of their task."""
        found: dict[int, set[str]] = {}
        for line in self._told.read_text().splitlines():
            number, body = line.split()
            found.setdefault(int(number), set()).add(body)
        return found

    async def faults(self) -> list[str]:
        """Compare what was sent and what ran with the records; give what is wrong."""
        wrong: list[str] = []
        begun, left = self.begun(), {f"hour-{number}" for number in self.sent}
        left |= {f"hour-{number}" for number in self.unsure & begun.keys()}
        async for record in records(self.tracker):
            if record.task_id not in left:
                wrong.append(f"phantom record, or two, of {record.task_id}")
                continue
            left.remove(record.task_id)
            number = int(record.task_id.removeprefix("hour-"))
            kind = KINDS.get(number % 20, "work")
            told = fault(record, kind, number, begun.get(number, set()))
            if told is not None:
                wrong.append(f"{kind} {number}: {told}")
        return wrong + [f"no record of {task_id}" for task_id in sorted(left)]


if QUEUE_VARIABLE in os.environ:
    broker = Hour(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
        told=Path(os.environ[TOLD_VARIABLE]),
    ).broker
