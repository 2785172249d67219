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
        sha = hashlib.sha1(self.text.encode()).hexdigest()  # noqa: S324 - Redis' own
        self.sha = sha
        self._head = b"$7\r\nEVALSHA\r\n" + _word(sha)

    def call(self, keys: tuple[str, ...], arguments: tuple[object, ...]) -> bytes:
        """Write a call by its hash."""
        words = (len(keys), *keys, *arguments)
        return b"*%d\r\n%b%b" % (len(words) + 2, self._head, b"".join(map(_word, words)))


class Link:
    """One connection, and what was asked on it, in the order of the answers to come.

    Whatever breaks it ends it with all that was asked: an answer can never reach another question.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._pending: deque[tuple[Answer, float]] = deque()
        self._wanted = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        self._has_begun = False
        self.is_open = True
        self.is_last = False
        """Whether it ends as soon as nothing is asked any more."""
        loop = asyncio.get_running_loop()
        self.reader = loop.create_task(self._read(), context=contextvars.Context())

    async def ask(self, data: bytes) -> Any:
        """Send a command, and give its answer."""
        connection = self._connection
        if not self.is_open or not connection.is_connected:
            raise ConnectionResetError("the connection broke")
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        self._pending.append((answer, loop.time()))
        self._wanted.set()
        if self._watch is None:
            self._watch = loop.call_later(TIMEOUT, self._look)
        try:
            # Nothing is awaited before the bytes are written: answers come in this order.
            await connection.send_packed_command(data, check_health=False)
        except FAULTS as error:
            self.drop(error)
            raise
        except BaseException:  # cancelled while the server took nothing: half of it may be sent
            self.drop(ConnectionResetError("a command was cut off"))
            raise
        return await answer

    def drop(self, error: BaseException) -> None:
        """Let the connection go, and tell all who wait for it."""
        if not self.is_open:
            return
        self.is_open = False
        if self._watch is not None:
            self._watch.cancel()
        for answer, _ in self._pending:
            if not answer.done():
                answer.set_exception(_as_fault(error))
                answer.exception()  # heard: its owner may have gone
        self._pending.clear()
        if self._has_begun and self.reader is not asyncio.current_task():
            self.reader.cancel()  # it hangs up; what was cancelled before its begin would not

    def end_when_idle(self) -> None:
        """Let go as soon as all is answered, or at once."""
        self.is_last = True
        if not self._pending:
            self.drop(ConnectionResetError("closed"))

    def _look(self) -> None:
        """Give the connection up when the oldest question was not answered in time."""
        self._watch = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        left = self._pending[0][1] + TIMEOUT - loop.time()
        if left <= 0:
            self.drop(TimeoutError(f"Redis did not answer in {TIMEOUT:g} s"))
        else:
            self._watch = loop.call_later(left, self._look)

    async def _read(self) -> None:
        """Hand out answers in the order of the questions."""
        self._has_begun = True
        try:
            while self.is_open:
                if not self._pending:
                    self._wanted.clear()
                    await self._wanted.wait()
                    continue
                value: Any
                try:
                    value = await self._connection.read_response(timeout=math.inf)
                except ResponseError as refusal:
                    value = refusal
                answer, _ = self._pending.popleft()
                if not answer.done():  # else nobody waits for it any more
                    if isinstance(value, ResponseError):
                        answer.set_exception(value)
                    else:
                        answer.set_result(value)
                if self.is_last:
                    self.end_when_idle()
        except FAULTS as error:
            self.drop(error)
        finally:
            self.drop(ConnectionResetError("closed"))
            with contextlib.suppress(*FAULTS):
                await self._connection.disconnect(nowait=True)


class Wire:
    """The connection; opened on use, and anew after a fault.

    Args:
        client: Says where the server is; its pool is not used.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._link: Link | None = None
        self._opening: asyncio.Task[Link] | None = None
        self._is_closed = False

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
        link = self._link
        if link is None or not link.is_open:
            link = await self._open()
        try:
            return await link.ask(script.call(keys, arguments))
        except NoScriptError:
            return await self._ask(("EVAL", script.text, len(keys), *keys, *arguments))

    async def ask(self, *command: Any) -> Any:
        """Send a command that may be done twice, and give its answer; raises as `run`."""
        try:
            return await self._ask(command)
        except ResponseError:
            raise
        except FAULTS:
            return await self._ask(command)

    async def close(self) -> None:
        """Disconnect; what waits for an answer gets a fault.

        What is asked later gets a connection for as long as there is something to answer: locks
        that outlive their tracker are freed over it.
        """
        self._is_closed = True
        if self._opening is not None:
            await asyncio.wait({self._opening})  # a second at most
        if self._link is not None:
            self._link.drop(ConnectionResetError("closed"))
            await asyncio.wait({self._link.reader}, timeout=TIMEOUT)

    async def _ask(self, command: tuple[Any, ...]) -> Any:
        link = self._link
        if link is None or not link.is_open:
            link = await self._open()
        return await link.ask(pack(command))

    async def _open(self) -> Link:
        """Connect once for all who need it now."""
        if self._opening is None or self._opening.done():
            loop = asyncio.get_running_loop()
            self._opening = loop.create_task(self._connect(), context=contextvars.Context())
        return await asyncio.shield(self._opening)

    async def _connect(self) -> Link:
        link = self._link = Link(await connected(self._client))
        if self._is_closed:
            link.is_last = True
            asyncio.get_running_loop().call_later(TIMEOUT, link.end_when_idle)
        return link


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
    try:
        async with asyncio.timeout(TIMEOUT):
            await connection.connect()
    except BaseException:
        with contextlib.suppress(*FAULTS):
            await connection.disconnect(nowait=True)
        raise
    finally:
        for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
            with contextlib.suppress(*FAULTS):
                await sentinel.aclose()  # it was asked where the server is
    found: AbstractConnection = connection
    return found


def pack(command: tuple[Any, ...]) -> bytes:
    """Write a command as the server reads it; redis-py's own way takes four times as long."""
    return b"*%d\r\n%b" % (len(command), b"".join(map(_word, command)))


def _word(word: object) -> bytes:
    data = word if isinstance(word, bytes) else str(word).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)
