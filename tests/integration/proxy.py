"""A TCP proxy that loses replies, cuts, delays and swallows: bad networks for tests."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Stands between clients and one server; its faults can be set at any time.

    Attributes:
        delay: Seconds by which every reply is late.
        is_black_hole: Connections are accepted, and nothing goes either way any more.
        lost: How many replies were lost with their connections.
        swallowed: How many replies were lost without a word.
        late: How many requests came late to the server.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = (host, port)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._left: int | None = None
        self.port = 0
        self.delay = 0.0
        self.is_black_hole = False
        self.lost = 0
        self.swallowed = 0
        self.late = 0
        self._hold = 0.0
        self._cuts = True
        self._mark: bytes | None = None

    async def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections, and cut the others."""
        if self._server is not None:
            self._server.close()
        self.cut()
        if self._links:
            await asyncio.wait(self._links)

    def cut(self) -> None:
        """End every connection at once, without a word."""
        for writer in self._writers:
            writer.transport.abort()

    def lead_to(self, port: int) -> None:
        """Let new connections go to another server of that host."""
        self._target = (self._target[0], port)

    def lose_reply(self, number: int = 1) -> None:
        """Let the server do the *number*-th request from now on, and cut instead of its reply."""
        self._left, self._cuts = number, True

    def lose_reply_with(self, mark: bytes) -> None:
        """Cut instead of the next reply that holds *mark*, such as the name of a command done."""
        self._mark = mark

    def swallow_reply(self, number: int) -> None:
        """Let the server do the *number*-th request; its connection says nothing any more."""
        self._left, self._cuts = number, False

    def hold_request(self, seconds: float) -> None:
        """Let the next request come so late, also when its connection has gone by then."""
        self._hold = seconds

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(*self._target)
            ends = {writer, back}
            self._writers |= ends
            try:
                await asyncio.gather(self._up(reader, back), self._down(there, writer))
            finally:
                self._writers -= ends
                for end in ends:
                    end.transport.abort()
        writer.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            if self._left is not None:
                self._left -= 1
            seconds, self._hold = self._hold, 0.0
            await asyncio.sleep(seconds)
            if not self.is_black_hole:
                writer.write(data)
                await writer.drain()
            self.late += seconds > 0
        writer.transport.abort()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_black_hole = False
        while data := await reader.read(1 << 20):
            if self._mark is not None and self._mark in data:
                self._mark = None
                self.lost += 1
                self.cut()
                return
            if self._left is not None and self._left <= 0:
                self._left = None
                self.lost += self._cuts
                self.swallowed += not self._cuts
                if self._cuts:
                    self.cut()
                    return
                is_black_hole = True
            if self.delay:
                await asyncio.sleep(self.delay)
            if not self.is_black_hole and not is_black_hole:
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Give a running proxy before the server of *url*, and the URL through it."""
    parts = urlsplit(url)
    proxy = Proxy(str(parts.hostname), int(parts.port or 0))
    await proxy.start()
    account = parts.netloc.rpartition("@")[0]
    try:
        yield proxy, urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{proxy.port}"))
    finally:
        await proxy.stop()
