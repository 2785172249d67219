"""One connection for all commands of an event loop, however many wait for an answer.

A pool opens a connection for each command in flight, and a command that is cancelled between its
sending and its answer leaves the connection unusable. Here commands are written as they come, one
reader hands out the answers in their order, and who goes away just does not take his.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import math
from collections import deque
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, ResponseError

from aiotrack.redis.client import FAULTS, TIMEOUT

Answer = asyncio.Future[Any]


class Script:
    """A Lua script, called by its hash; sent whole when the server does not know it.

    Args:
        *files: Its parts, in their order.
    """

    def __init__(self, *files: Path) -> None:
        self.text = "\n".join(file.read_text(encoding="utf-8") for file in files)
        self.sha = hashlib.sha1(self.text.encode()).hexdigest()  # noqa: S324 - Redis' own


class Wire:
    """The connection; opened on use, and anew after a fault.

    Args:
        client: Says where the server is; its pool is not used.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._connection: AbstractConnection | None = None
        self._opening: asyncio.Task[AbstractConnection] | None = None
        self._pending: deque[tuple[Answer, float]] = deque()
        self._reader: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        self._late: asyncio.Task[None] | None = None

    async def run(self, script: Script, keys: tuple[str, ...], *arguments: object) -> Any:
        """Run a script; it must be harmless when it runs twice: an answer may get lost.

        Raises:
            RedisError: The server refused.
            TimeoutError: It did not answer within a second, twice.
            OSError: It cannot be reached.
        """
        try:
            return await self.run_once(script, keys, *arguments)
        except ResponseError:
            raise
        except FAULTS:
            return await self.run_once(script, keys, *arguments)

    async def run_once(self, script: Script, keys: tuple[str, ...], *arguments: object) -> Any:
        """Run a script, and do not try again after a fault; see `run`."""
        words = (len(keys), *keys, *arguments)
        try:
            return await self._ask(("EVALSHA", script.sha, *words))
        except NoScriptError:
            return await self._ask(("EVAL", script.text, *words))

    async def ask(self, *command: Any) -> Any:
        """Send a command that may be done twice, and give its answer; raises as `run`."""
        try:
            return await self._ask(command)
        except ResponseError:
            raise
        except FAULTS:
            return await self._ask(command)

    async def close(self) -> None:
        """Disconnect; what waits for an answer gets a fault."""
        for task in (self._opening, self._reader):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, *FAULTS):
                    await task
        self._opening = self._reader = None
        await self._drop(ConnectionResetError("closed"))

    async def _ask(self, command: tuple[Any, ...]) -> Any:
        connection = self._connection
        if connection is None or not connection.is_connected:
            connection = await self._open()
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        self._pending.append((answer, loop.time()))
        self._wanted.set()
        if self._watch is None:
            self._watch = loop.call_later(TIMEOUT, self._look)
        try:
            # Nothing is awaited before the bytes are written: answers come in this order.
            await connection.send_packed_command(pack(command), check_health=False)
        except FAULTS as error:
            await self._drop(error, connection)
            raise
        return await answer

    def _look(self) -> None:
        """Give the connection up when the oldest question was not answered in time."""
        self._watch = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        left = self._pending[0][1] + TIMEOUT - loop.time()
        if left <= 0:
            fault = TimeoutError(f"Redis did not answer in {TIMEOUT:g} s")
            self._late = asyncio.ensure_future(self._drop(fault))
        else:
            self._watch = loop.call_later(left, self._look)

    async def _open(self) -> AbstractConnection:
        """Connect once for all who need it now."""
        if self._opening is None or self._opening.done():
            loop = asyncio.get_running_loop()
            self._opening = loop.create_task(self._connect(), context=contextvars.Context())
        return await asyncio.shield(self._opening)

    async def _connect(self) -> AbstractConnection:
        connection = self._connection = await connected(self._client)
        loop = asyncio.get_running_loop()
        self._reader = loop.create_task(self._read(connection), context=contextvars.Context())
        return connection

    async def _read(self, connection: AbstractConnection) -> None:
        """Hand out answers in the order of the questions."""
        while connection is self._connection:
            if not self._pending:
                self._wanted.clear()
                await self._wanted.wait()
                continue
            value: Any
            try:
                value = await connection.read_response(timeout=math.inf)
            except ResponseError as refusal:
                value = refusal
            except FAULTS as error:
                await self._drop(error, connection)
                return
            answer, _ = self._pending.popleft()
            if answer.done():  # nobody waits for it any more
                continue
            if isinstance(value, ResponseError):
                answer.set_exception(value)
            else:
                answer.set_result(value)

    async def _drop(
        self, error: BaseException, connection: AbstractConnection | None = None
    ) -> None:
        """Let a broken connection go, and tell all who waited for it."""
        broken = self._connection
        if broken is None or connection not in {None, broken}:
            return
        self._connection = None
        pending, self._pending = self._pending, deque()
        for answer, _ in pending:
            if not answer.done():
                answer.set_exception(_as_fault(error))
                answer.exception()  # heard: its owner may have gone
        reader = self._reader
        if reader is not None and reader is not asyncio.current_task():
            reader.cancel()
        with contextlib.suppress(*FAULTS):
            await broken.disconnect(nowait=True)


def _as_fault(error: BaseException) -> BaseException:
    """Give an error of its own to everybody who waited."""
    return type(error)(str(error)) if isinstance(error, TimeoutError) else OSError(str(error))


async def connected(client: Redis) -> AbstractConnection:
    """Open a connection to where a client's lead.

    Raises:
        RedisError: The server refused.
        TimeoutError: It did not answer in time.
        OSError: It cannot be reached.
    """
    pool: Any = client.connection_pool
    connection: Any = pool.make_connection()
    connection.socket_timeout = None  # who uses it has limits of his own, for all in flight
    async with asyncio.timeout(TIMEOUT):
        await connection.connect()
    found: AbstractConnection = connection
    return found


def pack(command: tuple[Any, ...]) -> bytes:
    """Write a command as the server reads it; redis-py's own way takes four times as long."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
