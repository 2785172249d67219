"""The project whose API is asked what nobody would ask: ``tests.api.fuzzed:broker``."""

from __future__ import annotations

from taskiq import InMemoryBroker

from aiotrack import Tracker, TrackerMiddleware

tracker = Tracker()
broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))


@broker.task("shop.tasks:bill")
async def bill(order_id: int) -> int:
    """Give it back."""
    return order_id


@broker.task("shop.tasks:bill_all")
async def bill_all(limit: int = 100) -> None:
    """Fail."""
    raise ValueError(limit)
