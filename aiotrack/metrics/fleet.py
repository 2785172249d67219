"""The metrics of a fleet, asked for when they are scraped: queues, workers, locks, schedules."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiotrack.errors import MissingExtra
from aiotrack.model import TaskStatus, WorkerStatus

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

    from aiotrack.counts import Stats
    from aiotrack.model import Queue, Worker
    from aiotrack.tracker import Tracker

log = logging.getLogger(__name__)

WITHIN: Final = 2.0
"""Seconds for all answers."""

QUEUES: Final = 100
"""Queues that have a label of their own; the rest share ``other``."""

OPEN: Final = (TaskStatus.PENDING, TaskStatus.STARTED, TaskStatus.RETRY)
STATES: Final = ("active", "paused", "inactive")

Row = tuple[str, str, str, float]
"""Name, help, the value of its label (or none), the value."""


async def exposition(tracker: Tracker) -> bytes:
    """Give the state of a tracker's fleet in Prometheus' text format.

    For a scraper of one process, such as ``aiotrack serve``: every number is the whole fleet's, so
    that scraping it twice counts double. A part whose server does not answer within two seconds is
    left out, and ``aiotrack_scrape_failed`` names it.

    Raises:
        MissingExtra: prometheus_client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ModuleNotFoundError:
        raise MissingExtra("prometheus_client", "metrics", "metrics") from None
    parts: dict[str, Callable[[Tracker], Awaitable[list[Row]]]] = {
        "executions": _executions,
        "workers": _workers,
        "queues": _queues,
        "locks": _locks,
        "schedules": _schedules,
    }
    found = await asyncio.gather(*(_asked(name, ask, tracker) for name, ask in parts.items()))
    registry = CollectorRegistry()
    registry.register(_Given([row for rows in found for row in rows]))
    text: bytes = generate_latest(registry)
    return text


async def _asked(
    name: str, ask: Callable[[Tracker], Awaitable[list[Row]]], tracker: Tracker
) -> list[Row]:
    failed = ("scrape_failed", "1 for a part whose server did not answer.", f"part={name}")
    try:
        async with asyncio.timeout(WITHIN):
            return [*await ask(tracker), (*failed, 0.0)]
    except Exception as error:
        log.warning("metrics of %s are left out: %r", name, error)
        return [(*failed, 1.0)]


async def _executions(tracker: Tracker) -> list[Row]:
    stats: Stats = await tracker.stats()
    told = "Executions that are not over, by status."
    return [
        ("executions_open", told, f"status={one.lower()}", getattr(stats, one.lower()))
        for one in OPEN
    ]


async def _workers(tracker: Tracker) -> list[Row]:
    workers: Sequence[Worker] = await tracker.workers()
    counted = Counter(one.status for one in workers)
    alive = [one for one in workers if one.status is WorkerStatus.ALIVE]
    rows: list[Row] = [
        ("workers", "Worker processes of the last day, by status.", f"status={one}", counted[one])
        for one in WorkerStatus
    ]
    sums = {
        "worker_slots": ("Tasks that living workers run at once.", "concurrency"),
        "worker_slots_taken": ("Tasks that they run now.", "running"),
        "workers_memory_bytes": ("Memory of living workers.", "memory"),
        "workers_cpu_cores": ("Cores that living workers used since their last beat.", "cpu"),
    }
    return rows + [
        (name, told, "", sum(getattr(one, field) or 0 for one in alive))
        for name, (told, field) in sums.items()
    ]


async def _queues(tracker: Tracker) -> list[Row]:
    queues: Sequence[Queue] = sorted(await tracker.queues(), key=lambda one: -one.depth)
    rest = queues[QUEUES:]
    rows: list[Row] = []
    for name, told in {
        "queue_depth": "Messages that wait.",
        "queue_dead_letters": "Messages that were set aside.",
    }.items():
        field = name.removeprefix("queue_")
        rows += [(name, told, f"queue={one.name}", getattr(one, field)) for one in queues[:QUEUES]]
        rows += [(name, told, "queue=other", sum(getattr(one, field) for one in rest))][: len(rest)]
    told = "How long the oldest of them has waited."
    ages = [(one.name, one.oldest_age or 0.0) for one in queues[:QUEUES]]
    ages += [("other", max(one.oldest_age or 0.0 for one in rest))] if rest else []
    rows += [("queue_oldest_age_seconds", told, f"queue={name}", age) for name, age in ages]
    return rows


async def _locks(tracker: Tracker) -> list[Row]:
    held = [] if tracker.redis is None else await tracker.locks.list()
    return [
        ("locks_held", "Locks that somebody holds.", "", len(held)),
        ("locks_waiting", "Who waits for them.", "", sum(one.waiting for one in held)),
    ]


async def _schedules(tracker: Tracker) -> list[Row]:
    states = {} if tracker.redis is None else await tracker.schedules.statuses()
    counted = Counter(states.values())
    told = "Schedules of definitions, by state."
    return [("schedules", told, f"state={one}", counted[one]) for one in STATES]


class _Given:
    """Gives rows to a registry, those of one name together."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def describe(self) -> list[Any]:
        """Give no names beforehand: else the registry would ask twice."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give every metric with its values."""
        from prometheus_client.core import GaugeMetricFamily

        for name in dict.fromkeys(row[0] for row in self._rows):
            rows = [row for row in self._rows if row[0] == name]
            label = rows[0][2].partition("=")[0]
            metric = GaugeMetricFamily(
                f"aiotrack_{name}", rows[0][1], labels=[label] if label else []
            )
            for _, __, pair, value in rows:
                metric.add_metric([pair.partition("=")[2]] if label else [], value)
            yield metric
