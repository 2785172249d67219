"""A shop's own FastAPI application shows each customer his own executions; a client asks it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI, Request
from taskiq import InMemoryBroker

from aiotrack import ExecutionNotFound, Tracker, TrackerMiddleware, tracking
from aiotrack.api import create_router
from aiotrack.client import Client

folder = tempfile.TemporaryDirectory()
tracker = Tracker(f"sqlite+aiosqlite:///{Path(folder.name) / 'shop.db'}")
broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
MACHINE = "a-secret-of-another-service"


@broker.task("shop.pack")
async def pack(order: int) -> str:
    await tracker.progress(50, "half of it")
    await asyncio.sleep(0.2)
    return f"parcel {order}"


async def customer(request: Request) -> str | None:
    return request.headers.get("x-customer")  # yours: a session, a JWT


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await broker.startup()  # and the tracker with it
    yield
    await broker.shutdown()


app = FastAPI(lifespan=lifespan)
router = create_router(tracker, user=customer, access="own", tokens=[f"back:operate:{MACHINE}"])
app.include_router(router, prefix="/tracking")


@app.post("/orders/{order}")
async def order(order: int, request: Request) -> str:
    with tracking(created_by=await customer(request)):
        return (await pack.kiq(order)).task_id


async def ask(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as shop:
        sent = await shop.post("/orders/7", headers={"x-customer": "ada"})
        for who in ("ada", "bob"):
            seen = await shop.get("/tracking/executions/", headers={"x-customer": who})
            print(f"{who} sees {len(seen.json()['items'])}")
        print("nobody:", (await shop.get("/tracking/executions/")).json()["detail"])
    async with Client(f"{url}/tracking", token=MACHINE) as client:  # another service
        *_, last = [one async for one in client.watch(sent.json())]  # each change, to its end
        print(f"{last.status}: {last.result}, by {last.created_by}")
        with contextlib.suppress(ExecutionNotFound):  # the tracker's own errors
            await client.get("nobody's")


async def main() -> None:
    with folder, socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        serving = asyncio.create_task(server.serve([listener]))
        await ask(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main())
