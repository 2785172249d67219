"""A site on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.schedules.site import Site


@pytest.fixture
async def site(database_url: str, redis_url: str, queue_name: str) -> AsyncIterator[Site]:
    """A started site, with keys of its own, on each database."""
    async with Site(database_url, redis_url, queue_name) as site:
        yield site


@pytest.fixture
async def one_site(made_sqlite_url: str, redis_url: str, queue_name: str) -> AsyncIterator[Site]:
    """A started site where the database does not matter."""
    async with Site(made_sqlite_url, redis_url, queue_name) as site:
        yield site
