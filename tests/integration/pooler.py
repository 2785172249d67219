"""Poolers that hand each transaction to another server connection: pgbouncer, and a stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import asyncpg

from aiotrack.testing.process import Account, ServerProcess
from aiotrack.testing.servers import PostgresServer

SERVERS = 3
"""Server connections of a pool."""

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_KNOWN = {"user", "database", "application_name", "client_encoding", "datestyle", "timezone"}
"""What a client may set at its start: what pgbouncer takes."""


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Give kind and all bytes of the next message."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack(">I", head[1:])[0] - 4)


class _Server:
    """A connection to Postgres, and the client whose transaction it runs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.hello = b""
        self.client: _Client | None = None


class _Client:
    """A connection from a client; *owed* answers are awaited by it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.server: _Server | None = None
        self.owed = 0


class StandIn:
    """Speaks as much of Postgres' protocol as transaction pooling needs.

    Each transaction gets the server that waited longest, so that two in a row never share one; as
    in pgbouncer a client is told a process id of nobody's, and may set little at its start.
    """

    def __init__(self, postgres: PostgresServer, database: str) -> None:
        self._socket = postgres.socket_dir / f".s.PGSQL.{postgres.port}"
        self._user = postgres.user
        self._database = database
        self._idle: asyncio.Queue[_Server] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_over = False

    async def start(self) -> int:
        """Listen; give the port."""
        for _ in range(SERVERS):
            await self._add_server()
        self._listener = await asyncio.start_server(self._welcome, "127.0.0.1", 0)
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Cut every connection."""
        self._is_over = True
        self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()

    async def _add_server(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        self._writers.add(writer)
        body = f"user\0{self._user}\0database\0{self._database}\0\0".encode()
        writer.write(struct.pack(">II", len(body) + 8, 196608) + body)
        server = _Server(reader, writer)
        kind = b""
        while kind != b"Z":
            kind, message = await _read(reader)
            server.hello += message if kind == b"S" else b""
        self._spawn(self._down(server))
        self._idle.put_nowait(server)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _down(self, server: _Server) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, message = await _read(server.reader)
                client = server.client
                if client is None:
                    continue  # a word to nobody, such as a changed setting
                client.writer.write(message)
                if kind == b"Z":
                    client.owed -= 1
                    if message.endswith(b"I") and client.owed == 0:
                        client.server = server.client = None
                        self._idle.put_nowait(server)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        client = _Client(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if await self._greet(reader, writer):
                await self._up(reader, client)
        writer.transport.abort()
        if (
            client.server is not None and not self._is_over
        ):  # in the middle of a transaction: nobody else may go on
            client.server.client = None
            client.server.writer.transport.abort()
            await self._add_server()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while True:
            length, code = struct.unpack(">II", await reader.readexactly(8))
            body = await reader.readexactly(length - 8)
            if code not in {_SSL, _GSS}:
                break
            writer.write(b"N")
        if code == _CANCEL:
            return False
        names = [word.decode() for word in body.split(b"\0")[::2] if word]
        if unknown := [name for name in names if name.lower() not in _KNOWN]:
            words = f"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: {unknown[0]}\0\0"
            writer.write(_message(b"E", words.encode()))
            await writer.drain()
            return False
        server = await self._idle.get()
        self._idle.put_nowait(server)
        writer.write(_message(b"R", struct.pack(">I", 0)) + server.hello)
        writer.write(_message(b"K", secrets.token_bytes(8)) + _message(b"Z", b"I"))
        return True

    async def _up(self, reader: asyncio.StreamReader, client: _Client) -> None:
        while True:
            kind, message = await _read(reader)
            if kind == b"X":
                return
            if client.server is None:
                client.server = await self._idle.get()
                client.server.client = client
            client.owed += kind in b"QS"
            client.server.writer.write(message)


@contextlib.asynccontextmanager
async def stand_in(postgres: PostgresServer, database: str) -> AsyncIterator[str]:
    """Give the URL of *database* through the stand-in."""
    pooler = StandIn(postgres, database)
    port = await pooler.start()
    try:
        yield f"postgresql+asyncpg://{postgres.user}@127.0.0.1:{port}/{database}"
    finally:
        await pooler.stop()


_SETTINGS = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
server_round_robin = 1
"""


@contextlib.asynccontextmanager
async def pgbouncer(postgres: PostgresServer, database: str) -> AsyncIterator[str]:
    """Give the URL of *database* through the pgbouncer of this machine."""
    folder = postgres.socket_dir
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = probe.getsockname()[1]
    settings = folder / f"pgbouncer-{listen}.ini"
    settings.write_text(
        _SETTINGS.format(
            host=folder, port=postgres.port, user=postgres.user, listen=listen, size=SERVERS
        )
    )
    account = Account.unprivileged()
    if account is not None:
        os.chown(settings, account.uid, account.gid)
    process = ServerProcess(
        [pgbouncer_binary() or "", str(settings)],
        cwd=folder,
        log_file=folder / "pgbouncer.log",
        account=account,
    )
    url = f"postgresql+asyncpg://{postgres.user}@127.0.0.1:{listen}/{database}"
    try:
        await _until_it_answers(url.replace("+asyncpg", ""), process)
        yield url
    finally:
        process.kill()


async def _until_it_answers(dsn: str, process: ServerProcess) -> None:
    async with asyncio.timeout(10):
        while True:
            assert process.running, process.log_tail()
            try:
                connection = await asyncpg.connect(dsn, statement_cache_size=0)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                await connection.close()
                return


def pgbouncer_binary() -> str | None:
    """Find pgbouncer; Debian keeps it where only root looks."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


POOLERS = {"stand-in": stand_in} | ({"pgbouncer": pgbouncer} if pgbouncer_binary() else {})
"""The poolers that this machine has: the stand-in always."""
