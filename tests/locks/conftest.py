"""What tests of locks share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiotrack import Tracker


@pytest.fixture
async def tracker(sqlite_url: str, redis_url: str, queue_name: str) -> AsyncIterator[Tracker]:
    """The only started tracker of this process, with keys of its own."""
    async with Tracker(sqlite_url, redis=redis_url, settings={"namespace": queue_name}) as tracker:
        yield tracker
