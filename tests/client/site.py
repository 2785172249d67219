"""A server of the API that a test starts, kills and starts again on its port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

ROOT = Path(__file__).parents[2]


class Quiet(uvicorn.Server):
    """One that leaves the signals of the test's process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Take none."""
        yield


@contextlib.asynccontextmanager
async def running(app: Any, port: int = 0) -> AsyncIterator[str]:
    """Serve an application in this loop, and give its URL."""
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
    server = Quiet(config)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - nothing else tells
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()


class Scripted:
    """Answers every request with what it was told to, the last again and again.

    Attributes:
        answers: Statuses with headers; 200 gives a list of workers.
        told: What every answer says.
        seen: Method, path and body of every request.
    """

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.told: dict[str, Any] = {"items": [], "task_id": "a1"}
        self.told |= {"code": "busy", "detail": "not now"}
        self.seen: list[tuple[str, str, bytes]] = []
        self.at: list[float] = []
        self.app = FastAPI()
        self.app.add_route("/{path:path}", self._answer, methods=["GET", "POST", "DELETE"])

    async def _answer(self, request: Request) -> Response:
        self.seen.append((request.method, request.url.path, await request.body()))
        self.at.append(asyncio.get_running_loop().time())
        status, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return JSONResponse(self.told | {"status": status}, status, headers)


class Apart:
    """`aiotrack serve` as a process that may be killed.

    Args:
        database: URL.
        redis: URL.
        options: Of the command.
        environment: More of it.
    """

    def __init__(self, database: str, redis: str, *options: str, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._options = options
        self._environment = {
            **os.environ,
            "AIOTRACK_DATABASE_URL": database,
            "AIOTRACK_REDIS_URL": redis,
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> Self:
        """Start it, and wait until it answers."""
        command = ["-m", "aiotrack", "serve", "--port", str(self.port), *self._options]
        self._process = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, *command],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
        )
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/api/v1/health/live")).is_success:
                        return self
                assert self._process.poll() is None
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """End it at once, with all of its connections."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None
