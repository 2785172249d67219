"""A real server in the test's own loop, and clients that read events from real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

PATIENCE = 15.0
"""Seconds that a test waits for what has to come."""


def listening_socket() -> socket.socket:
    """Give a socket whose connections hold little that was not read."""
    made = socket.create_server(("127.0.0.1", 0), backlog=1000)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
    return made


@contextlib.asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application by uvicorn on a free port; gives its URL."""
    config = uvicorn.Config(
        app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    listening = listening_socket()
    port = listening.getsockname()[1]
    serving = asyncio.create_task(server._serve(sockets=[listening]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


@dataclass
class Told:
    """One event."""

    event: str = ""
    id: str = ""
    data: dict[str, Any] = field(default_factory=dict)


class Stream:
    """What a server sends, read line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.comments: list[str] = []
        self.retries: list[int] = []
        self.body = b""
        self.last_id = ""
        self._left = b""

    async def begin(self) -> None:
        """Read the status and the headers."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().strip().split("\r\n")
        self.status = int(first.split()[1])
        pairs = (line.partition(": ") for line in lines)
        self.headers = {name.lower(): value for name, _, value in pairs}
        if "content-length" in self.headers:
            self.body = await self._reader.readexactly(int(self.headers["content-length"]))

    async def _piece(self) -> bytes:
        """Give a piece of the body; nothing at its end."""
        size = int((await self._reader.readline()).strip() or b"0", 16)
        piece = await self._reader.readexactly(size)
        if size:
            await self._reader.readline()
        return piece

    async def next(self, timeout: float = PATIENCE) -> Told | None:
        """Give the next event; None at the end."""
        async with asyncio.timeout(timeout):
            while True:
                while b"\n\n" not in self._left:
                    piece = await self._piece()
                    if not piece:
                        return None
                    self._left += piece
                block, _, self._left = self._left.partition(b"\n\n")
                told = self._read(block.decode())
                if told is not None:
                    return told

    def _read(self, block: str) -> Told | None:
        told = Told()
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if not name or line.startswith(":"):
                self.comments.append(line.removeprefix(":").strip())
            elif name == "retry":
                self.retries.append(int(value))
            elif name == "data":
                told.data = json.loads(value)
            else:
                setattr(told, name, value)
        self.last_id = told.id or self.last_id
        return told if told.event else None

    async def rest(self) -> list[Told]:
        """Give all events until the end."""
        found = []
        while (told := await self.next()) is not None:
            found.append(told)
        return found

    async def until(self, **values: Any) -> Told:
        """Give the first event whose data has these values."""
        while True:
            told = await self.next()
            assert told is not None, "the stream ended"
            if values.items() <= told.data.items():
                return told

    def close(self) -> None:
        """Go away at once."""
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def stream(
    url: str, headers: dict[str, str] | None = None, *, buffer: int | None = None
) -> AsyncIterator[Stream]:
    """Open a stream; *buffer* is what the socket takes without being read, in bytes."""
    parts = urlsplit(url)
    made = socket.socket()
    if buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, (parts.hostname, parts.port))
    limit = 2**16 if buffer is None else buffer
    reader, writer = await asyncio.open_connection(sock=made, limit=limit)
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    writer.write(f"GET {target} HTTP/1.1\r\nhost: x\r\n{lines}\r\n".encode())
    opened = Stream(reader, writer)
    try:
        await opened.begin()
        yield opened
    finally:
        opened.close()
