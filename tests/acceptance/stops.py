"""The project whose workers are stopped: at a stop a thousand reports are in the buffer.

Workers load ``tests.acceptance.stops:broker``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from aiotrack import TaskStatus, Tracker, TrackerMiddleware
from aiotrack.report import Origin, Report, Witness

QUEUE_VARIABLE = "ACCEPTANCE_QUEUE"
FOLDER_VARIABLE = "ACCEPTANCE_FOLDER"
BUFFERED = 1000
"""Reports that are in the buffer of each process when its stop begins; half of them final."""


class Stops:
    """A broker with one task.

    Args:
        database: SQLAlchemy URL of the records.
        redis: URL of the queue.
        queue: Name of the stream.
    """

    def __init__(self, *, database: str, redis: str, queue: str) -> None:
        self.tracker = Tracker(database)
        self.broker = RedisStreamBroker(
            redis,
            queue_name=queue,
            consumer_id="0",
            xread_block=300,
            socket_timeout=None,  # else Python 3.11 may lose the listener's cancellation
        )
        self.broker.add_middlewares(TrackerMiddleware(self.tracker))

        @self.broker.task("stops.work")
        async def work(number: int) -> int:
            return number

        self.work = work
        self.broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, self.fill)

    async def fill(self, _: TaskiqState) -> None:
        """Let TaskIQ stop the middlewares with a full buffer."""
        self.put_all()

    def put_all(self) -> None:
        """Put reports into the buffer, and tell how many."""
        count = 0
        try:
            for one in self.reports():
                self.tracker.recorder().add(one)
                count += 1
        finally:  # TaskIQ's hard kill may come at any moment
            Path(os.environ[FOLDER_VARIABLE], str(os.getpid())).write_text(str(count))

    def reports(self) -> Iterator[Report]:
        """Give sends, and ends of runs."""
        for number in range(BUFFERED):
            origin = Origin(
                task_id=f"{os.getpid()} {number}",
                task_name="stops.buffered",
                module="stops",
                created_at=1_000_000,
            )
            report = Report(origin, Witness.SENT, TaskStatus.PENDING)
            if number % 2:
                report = Report(origin, Witness.ENDED, TaskStatus.SUCCESS, run_id=str(number))
                report.started_at = report.finished_at = 2_000_000
            yield report


if QUEUE_VARIABLE in os.environ:
    broker = Stops(
        database=os.environ["AIOTRACK_DATABASE_URL"],
        redis=os.environ["ACCEPTANCE_REDIS_URL"],
        queue=os.environ[QUEUE_VARIABLE],
    ).broker
