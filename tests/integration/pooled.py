"""A sync task that a pool of processes finds by its name."""

from __future__ import annotations

from taskiq import InMemoryBroker

broker = InMemoryBroker()


@broker.task("shop.add")
def add(one: int, two: int) -> int:
    """Add."""
    return one + two
