"""A socket to a Redis server, and what it answers, read from bytes as they come: RESP2.

https://redis.io/docs/latest/develop/reference/protocol-spec/. redis-py's own parser reads a stream,
line by line, in a task that waits for each: here an answer is there when its bytes are, which makes
two round trips of a lock take half the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

_REFUSALS: Final[dict[str, type[Exception]]] = {
    "NOSCRIPT": NoScriptError,
    "LOADING": BusyLoadingError,
    "READONLY": ReadOnlyError,
    "OOM": OutOfMemoryError,
}
"""Refusals that mean something of their own, by their first word."""


class _Unfinished(Exception):
    """The bytes of an answer are not all there."""


class Answers:
    """Takes bytes, and gives the answers that they complete."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield each answer; a refusal is the exception that it means, not raised.

        Raises:
            ValueError: The bytes are no answer.
        """
        self._data, self._at = self._data[self._at :] + data, 0
        while self._at < len(self._data):
            begun = self._at
            try:
                value = self._read()
            except _Unfinished:
                self._at = begun
                return
            yield value

    def _read(self) -> Any:
        line = self._line()
        kind, told = line[:1], line[1:]
        if kind == b"$":
            return self._text(int(told))
        if kind == b":":
            return int(told)
        if kind == b"+":
            return told
        if kind == b"-":
            words = told.decode(errors="replace")
            head, _, rest = words.partition(" ")
            return _REFUSALS[head](rest) if head in _REFUSALS else ResponseError(words)
        if kind == b"*":
            count = int(told)
            return None if count < 0 else [self._read() for _ in range(count)]
        raise ValueError(f"no answer of Redis begins so: {line[:20]!r}")

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._at)
        if end < 0:
            raise _Unfinished
        line = self._data[self._at : end]
        self._at = end + 2
        return line

    def _text(self, size: int) -> bytes | None:
        if size < 0:
            return None
        end = self._at + size
        if len(self._data) < end + 2:
            raise _Unfinished
        text = self._data[self._at : end]
        self._at = end + 2
        return text


class Line(asyncio.Protocol):
    """The socket of a connection of redis-py, which knows how to find a server, TLS and passwords.

    Args:
        connection: Connected, and used no more by others.
        on_answer: Called with each answer, in the order in which they come.
        on_end: Called once, with what ended it.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        on_answer: Callable[[Any], None],
        on_end: Callable[[BaseException], None],
    ) -> None:
        self._connection: Any = connection  # its stream would close the socket when it goes
        writer: Any = connection._writer  # noqa: SLF001 - redis-py gives its socket to nobody
        self._transport: asyncio.Transport = writer.transport
        self._transport.set_protocol(self)
        self._answers = Answers()
        self._on_answer = on_answer
        self._on_end = on_end
        self.write = self._transport.write
        """Sends bytes, without waiting."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the socket is closed."""

    def close(self, *, at_once: bool = False) -> None:
        """Hang up, after what was written or *at_once*: who does not answer does not read."""
        if at_once:
            self._transport.abort()
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Hand out the answers that are complete."""
        try:
            for value in self._answers.feed(data):
                self._on_answer(value)
        except (ValueError, LookupError) as error:
            self._on_end(ConnectionResetError(f"Redis answers what nobody asked: {error}"))
            self.close(at_once=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that nothing comes any more."""
        self._connection._writer = self._connection._reader = None  # noqa: SLF001 - it is closed
        self._on_end(exc or ConnectionResetError("the server hung up"))
        if not self.ended.done():
            self.ended.set_result(None)
