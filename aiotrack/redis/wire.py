"""One connection for all commands of an event loop, however many wait for an answer.

A pool opens a connection for each command in flight, and a command that is cancelled between its
sending and its answer leaves the connection unusable. Here commands are written as they come,
answers are handed out in their order, and who goes away just does not take his.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
from collections import deque
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from aiotrack.redis.client import FAULTS, TIMEOUT
from aiotrack.redis.line import Line

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

    Args:
        connection: Connected, and used no more by others.
        patience: Seconds that an answer may take; more than a command may block.
    """

    def __init__(self, connection: AbstractConnection, patience: float = TIMEOUT) -> None:
        self._patience = patience
        self._line = Line(connection, self._take, self.drop)
        self._pending: deque[tuple[Answer, float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.ended = self._line.ended
        """Done when the socket is closed."""
        self.is_open = True
        self.is_last = False
        """Whether it ends as soon as nothing is asked any more."""

    def ask(self, data: bytes) -> Answer:
        """Send a command, and give what will be its answer.

        Raises:
            ConnectionResetError: The connection broke.
        """
        if not self.is_open:
            raise ConnectionResetError("the connection broke")
        answer: Answer = self._loop.create_future()
        self._pending.append((answer, self._loop.time()))
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience, self._look)
        self._line.write(data)
        return answer

    def drop(self, error: BaseException) -> None:
        """Let the connection go, and tell all who wait for it."""
        if not self.is_open:
            return
        self.is_open = False
        if self._watch is not None:
            self._watch.cancel()
        self._line.close(at_once=bool(self._pending))
        for answer, _ in self._pending:
            if not answer.done():
                answer.set_exception(as_fault(error))
                answer.exception()  # heard: its owner may have gone
        self._pending.clear()

    def end_when_idle(self) -> None:
        """Let go as soon as all is answered, or at once."""
        self.is_last = True
        if not self._pending:
            self.drop(ConnectionResetError("closed"))

    def _take(self, value: Any) -> None:
        """Hand an answer to who asked first; a refusal is an exception."""
        answer, _ = self._pending.popleft()
        if isinstance(value, ReadOnlyError):
            self.is_last = True  # it leads to a replica now: a new one may lead elsewhere
        if answer.done():
            pass  # nobody waits for it any more
        elif isinstance(value, Exception):
            answer.set_exception(value)
        else:
            answer.set_result(value)
        if self.is_last:
            self.end_when_idle()

    def _look(self) -> None:
        """Give the connection up when the oldest question was not answered in time."""
        self._watch = None
        if not self._pending:
            return
        left = self._pending[0][1] + self._patience - self._loop.time()
        if left <= 0:
            self.drop(TimeoutError(f"Redis did not answer in {self._patience:g} s"))
        else:
            self._watch = self._loop.call_later(left, self._look)


class Wire:
    """The connection; opened on use, and anew after a fault.

    Args:
        client: Says where the server is; its pool is not used.
        patience: Seconds that an answer may take.
    """

    def __init__(self, client: Redis, patience: float = TIMEOUT) -> None:
        self._client = client
        self._patience = patience
        self._link: Link | None = None
        self._opening: asyncio.Task[Link] | None = None
        self._is_closed = False

    async def run(self, script: Script, keys: tuple[str, ...], *arguments: object) -> Any:
        """Run a script; it must be harmless when it runs twice: an answer may get lost.

        Raises:
            RedisError: The server refused.
            TimeoutError: It did not answer in time, twice.
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
        link = await self.link()
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

    async def facts(self) -> dict[str, str]:
        """Give what the server's INFO says, by name; nothing where it is not allowed or away.

        INFO tells settings, too, also where CONFIG is not allowed.
        """
        try:
            told = await self.ask("INFO")
        except FAULTS:
            return {}
        lines = told.decode(errors="replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

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
            await asyncio.wait({self._link.ended}, timeout=TIMEOUT)

    async def link(self) -> Link:
        """Give the open connection, for a command that must not be sent twice.

        Raises:
            RedisError: The server refused; nothing was asked, as with the next two.
            TimeoutError: It did not answer in time.
            OSError: It cannot be reached.
        """
        link = self._link
        if link is None or not link.is_open or (link.is_last and not self._is_closed):
            link = await self._open()
        return link

    async def _ask(self, command: tuple[Any, ...]) -> Any:
        return await (await self.link()).ask(pack(command))

    async def _open(self) -> Link:
        """Connect once for all who need it now."""
        if self._opening is None or self._opening.done():
            loop = asyncio.get_running_loop()
            self._opening = loop.create_task(self._connect(), context=contextvars.Context())
            self._opening.add_done_callback(_hear)
        return await asyncio.shield(self._opening)

    async def _connect(self) -> Link:
        link = self._link = Link(await connected(self._client), self._patience)
        if self._is_closed:
            link.is_last = True
            asyncio.get_running_loop().call_later(TIMEOUT, link.end_when_idle)
        return link


def _hear(opening: asyncio.Task[Link]) -> None:
    """Nobody may wait for it any more: then its fault is nobody's."""
    if not opening.cancelled():
        opening.exception()


def as_fault(error: BaseException) -> BaseException:
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
