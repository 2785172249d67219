"""A shop on each database."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from aiotrack import Tracker
from tests.submission.shop import Shop


@pytest.fixture
async def shop(tracker: Tracker) -> AsyncIterator[Shop]:
    """A shop on each database, in turn."""
    async with opened(tracker) as shop:
        yield shop


@pytest.fixture
async def small_shop(made_sqlite_url: str) -> AsyncIterator[Shop]:
    """A shop on SQLite, for what does not depend on the database."""
    async with Tracker(made_sqlite_url) as tracker, opened(tracker) as shop:
        yield shop


@contextlib.asynccontextmanager
async def opened(tracker: Tracker) -> AsyncIterator[Shop]:
    """Open a shop, and let all that waits in it go at its end."""
    shop = Shop(tracker)
    yield shop
    shop.gate.set()
    await shop.broker.wait_all()
