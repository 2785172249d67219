"""Applications with the API, and clients of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from taskiq import InMemoryBroker

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.api import create_router

PREFIX = "/tracking"

Clients = Callable[..., contextlib.AbstractAsyncContextManager[AsyncClient]]


@pytest.fixture
async def tracker(database_url: str, redis_url: str, queue_name: str) -> AsyncIterator[Tracker]:
    """A started tracker with Redis, on each database."""
    settings = {"namespace": queue_name}
    async with Tracker(database_url, redis=redis_url, settings=settings) as tracker:
        yield tracker


@pytest.fixture
async def broker(tracker: Tracker) -> AsyncIterator[InMemoryBroker]:
    """A broker of that tracker, which runs what is sent where it is sent."""
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
    await broker.startup()
    yield broker
    await broker.shutdown()


def application(tracker: Tracker, **options: Any) -> FastAPI:
    """Make a user's own application that includes the router, with options of `create_router`."""
    app = FastAPI()
    app.include_router(create_router(tracker, **options), prefix=PREFIX)
    return app


@contextlib.asynccontextmanager
async def client_of(app: FastAPI, **headers: str) -> AsyncIterator[AsyncClient]:
    """Give a client whose paths begin behind the prefix."""
    transport = ASGITransport(app)
    url = f"http://testserver{PREFIX}"
    async with AsyncClient(transport=transport, base_url=url, headers=headers) as client:
        yield client


@pytest.fixture
def api(tracker: Tracker) -> Clients:
    """A context manager: a client of an application, with options of `create_router`."""

    @contextlib.asynccontextmanager
    async def api(
        headers: dict[str, str] | None = None, **options: Any
    ) -> AsyncIterator[AsyncClient]:
        async with client_of(application(tracker, **options), **(headers or {})) as client:
            yield client

    return api
