"""Workers that other processes might have been: rows of the registry, and what they ran."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from taskiq import AsyncBroker

from aiotrack import TaskStatus, Tracker, TrackerMiddleware
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository.control.workers import Beat, Described, Registry

MINUTE = 60_000_000


class QuietBroker(AsyncBroker):
    """A broker that keeps what is sent; nobody takes it. It has acknowledgements, for all we know.

    Args:
        queue: Its queue.
    """

    def __init__(self, queue: str = "crew") -> None:
        super().__init__()
        self.queue_name = queue
        self.sent: list[bytes] = []

    async def kick(self, message: Any) -> None:
        """Keep a message."""
        self.sent.append(message.message)

    def listen(self) -> Any:
        """Give no message."""
        raise NotImplementedError


class PubSubBroker(QuietBroker):
    """One that is known by its name: its messages are gone as soon as a worker has them."""


def serving(tracker: Tracker, broker: AsyncBroker | None = None) -> AsyncBroker:
    """Give a broker as a worker process has it."""
    broker = broker or QuietBroker()
    broker.add_middlewares(TrackerMiddleware(tracker))
    broker.is_worker_process = True
    return broker


def registry_of(tracker: Tracker) -> Registry:
    """Give the registry in this loop."""
    return Registry(tracker.core().repository)


async def enlist(
    tracker: Tracker,
    worker_id: str,
    *,
    ago: float = 0.0,
    since: float = 0.0,
    stopped: float | None = None,
    queues: Iterable[str] = ("crew",),
    tasks: Mapping[str, bool] | None = None,
    beat: float = 5.0,
) -> None:
    """Make the row of a worker.

    Args:
        tracker: On the database.
        worker_id: Its id.
        ago: Seconds since its last beat.
        since: Seconds since when it beats without a gap.
        stopped: Seconds since its farewell.
        queues: What it listens to.
        tasks: What it knows.
        beat: Seconds between its beats.
    """
    described = Described(
        id=worker_id,
        host="elsewhere",
        pid=os.getpid(),
        beat_seconds=beat,
        queues=list(queues),
        tasks=tasks or {},
        concurrency=10,
        versions={},
    )
    await registry_of(tracker).register(described, Beat(running=["r"], memory=1, cpu=0.5))
    repository = tracker.core().repository
    is_sqlite = repository.dialect == "sqlite"

    def back(seconds: float) -> str:
        if is_sqlite:
            return str(time.time_ns() // 1000 - int(seconds * 1e6))
        return f"clock_timestamp() - make_interval(secs => {seconds})"

    told = f"stopped_at = {back(stopped)}" if stopped is not None else "stopped_at = NULL"
    await repository.execute(
        f"UPDATE aiotrack_workers SET beat_at = {back(ago)}, beating_since = {back(since)}, {told} "
        "WHERE id = $1 RETURNING id",
        (worker_id,),
    )


def started(
    tracker: Tracker, task_id: str, worker: str, name: str = "shop.pay", **origin: Any
) -> Report:
    """Give the report of a run's start a minute ago."""
    now = tracker.clock.now()
    facts = {"queue": "crew", "args": "[1, [2]]", "kwargs": '{"a": null}'} | origin
    born = Origin(task_id, name, "shop", now - 2 * MINUTE, **facts)
    return Report(
        born,
        Witness.STARTED,
        TaskStatus.STARTED,
        f"run-{task_id}",
        worker=worker,
        started_at=now - MINUTE,
    )


def ended(start: Report, status: TaskStatus, at: int) -> Report:
    """Give the end of a run that began so."""
    assert start.started_at is not None
    return Report(
        start.origin,
        Witness.ENDED,
        status,
        start.run_id,
        worker=start.worker,
        started_at=start.started_at,
        finished_at=at,
        duration=(at - start.started_at) / 1e6,
    )


async def write(tracker: Tracker, *reports: Report) -> None:
    """Store reports."""
    await tracker.core().repository.write(reports)
