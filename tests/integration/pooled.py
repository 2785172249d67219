"""Sync tasks that a pool of processes finds by their names."""

from __future__ import annotations

from taskiq import InMemoryBroker

from aiotrack import prevent_duplicate_task
from aiotrack.current import COLLECTING, CURRENT, INHERITED

broker = InMemoryBroker()


@broker.task("shop.add")
def add(one: int, two: int) -> int:
    """Add."""
    return one + two


def known() -> list[str]:
    """Tell what the process knows of a run."""
    return [one.name for one in (CURRENT, INHERITED, COLLECTING) if one.get() is not None]


@prevent_duplicate_task("pooled")
def guarded() -> str:
    """Run when nobody else does."""
    return "ran"
