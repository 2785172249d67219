"""A web application that sends tasks: python -m tests.integration.site DATABASE SOCKET."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from taskiq import InMemoryBroker
from taskiq.message import BrokerMessage

from aiotrack import Tracker, TrackerMiddleware


class Nowhere(InMemoryBroker):
    """Takes messages that a worker elsewhere would run."""

    async def kick(self, message: BrokerMessage) -> None:
        """Take it."""


broker = Nowhere()
broker.add_middlewares(TrackerMiddleware(Tracker(sys.argv[1], settings={"durability": "async"})))


@broker.task("shop.order")
async def order(number: int) -> None:
    """Do nothing: no worker is there."""


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Start and stop the broker as TaskIQ's manual says."""
    await broker.startup()
    yield
    await broker.shutdown()


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{number}")
async def accept(number: int) -> str:
    """Send a task."""
    return (await order.kiq(number)).task_id


if __name__ == "__main__":
    uvicorn.run(app, uds=sys.argv[2], log_level="warning")
