"""A shop on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiotrack import Tracker
from tests.submission.shop import Shop


@pytest.fixture
async def shop(tracker: Tracker) -> AsyncIterator[Shop]:
    """A shop on each database, in turn."""
    shop = Shop(tracker)
    yield shop
    shop.gate.set()
    await shop.broker.wait_all()
