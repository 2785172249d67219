"""What a worker process can tell of itself. From any thread, and never an error."""

from __future__ import annotations

import asyncio
import inspect
import os
import platform
import time
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from aiotrack.acks import receivers

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.encode import Encoder


def queues_of(brokers: Iterable[AsyncBroker], encoder: Encoder) -> list[str]:
    """Give the queues that a worker of these brokers listens to, where a broker tells."""
    found: dict[str, None] = {}
    for broker in brokers:
        told = getattr(broker, "queues", None)
        if not isinstance(told, tuple):  # PriorityStreamBroker's
            told = [getattr(broker, "queue_name", None)]
            told += list(getattr(broker, "additional_streams", None) or ())
        found |= {encoder.name(name): None for name in told if isinstance(name, str)}
    return list(found)


def tasks_of(brokers: Iterable[AsyncBroker], encoder: Encoder) -> dict[str, bool]:
    """Give the names of the tasks that these brokers know, and whether the body is async."""
    return {
        encoder.name(name): inspect.iscoroutinefunction(task.original_func)
        for broker in brokers
        for name, task in sorted(broker.get_all_tasks().items())
    }


class Room:
    """How many tasks a worker of these brokers runs at once.

    TaskIQ keeps ``--max-async-tasks`` only as a semaphore: what is free of it is never more than it
    was made for, and all of it before the first message, or whenever nothing runs.
    """

    def __init__(self, brokers: Iterable[AsyncBroker]) -> None:
        self._semaphores: list[asyncio.Semaphore | None] = [
            one.get("sem") for broker in brokers for one in receivers(broker)
        ]
        self._seen = 0

    def size(self) -> int | None:
        """Give the most that was seen to be free; None: without limit, or nobody knows."""
        if not self._semaphores or None in self._semaphores:
            return None
        free = sum(getattr(sem, "_value", 0) for sem in self._semaphores)
        self._seen = max(self._seen, free)
        return self._seen or None


def versions() -> dict[str, str]:
    """Give the versions of what decides how tasks run."""
    from aiotrack import __version__

    try:
        taskiq = version("taskiq")
    except PackageNotFoundError:
        taskiq = "unknown"
    return {"python": platform.python_version(), "taskiq": taskiq, "aiotrack": __version__}


def memory() -> int | None:
    """Give the bytes that this process has in RAM; psutil helps where there is no ``/proc``."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        pass
    try:
        found: int = import_module("psutil").Process().memory_info().rss
    except Exception:  # not installed, or not allowed
        return None
    return found


class Cpu:
    """The share of one core that this process used since it was asked last."""

    def __init__(self) -> None:
        self._used, self._at = time.process_time(), time.monotonic()

    def share(self) -> float | None:
        """Give it; None when no time has gone by."""
        used, at = time.process_time(), time.monotonic()
        share = (used - self._used) / (at - self._at) if at - self._at > 0.01 else None
        self._used, self._at = used, at
        return None if share is None else round(share, 4)
