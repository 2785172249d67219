"""When to ask for an execution again: when the server says so, or else after a while."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncGenerator
from typing import Final

import httpx

from aiotrack.client.transport import STREAMING, Transport, retry_after

FIRST, LAST = 0.25, 5.0
"""Seconds between two looks where there are no events, from the first after a change to the last;
each is by a random part shorter."""

GROWTH: Final = 1.5

_END: Final = re.compile(rb"\r\n|\n|\r")

LATER: Final = 2.0
"""Seconds before a stream that ended is opened again, unless the server said otherwise."""


def follow(transport: Transport, path: str) -> Changes:
    """Give what tells of changes of an execution."""
    return Changes(transport, path)


class Changes:
    """Waits for changes: by a stream of events, or by the clock while there is none."""

    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        self._path = path
        self._last_id: str | None = None
        self._later = LATER
        self._stream: AsyncGenerator[bool, None] | None = None
        self._opens_at = 0.0
        self._pause = FIRST

    def restart(self) -> None:
        """Begin with short pauses: something changed."""
        self._pause = FIRST

    async def next(self) -> None:
        """Wait until it is worth asking again."""
        if self._stream is None and time.monotonic() >= self._opens_at:
            self._stream = self._events()
        if self._stream is not None:
            try:
                await anext(self._stream)
                return
            except StopAsyncIteration:
                self._stream = None
                self._opens_at = time.monotonic() + self._later
        await asyncio.sleep(random.uniform(self._pause / 2, self._pause))
        self._pause = min(self._pause * GROWTH, LAST)

    async def close(self) -> None:
        """Let the stream go."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    async def _events(self) -> AsyncGenerator[bool, None]:
        """Yield at every event; ends with the stream, whatever the reason."""
        headers = {"accept": "text/event-stream"}
        if self._last_id is not None:
            headers["last-event-id"] = self._last_id
        url = f"{self._transport.base}{self._path}"
        with contextlib.suppress(httpx.TransportError):
            async with self._transport.http.stream(
                "GET", url, headers=headers, timeout=STREAMING
            ) as answer:
                if answer.status_code != 200:
                    self._later = retry_after(answer.headers) or LATER
                    return
                is_event = False
                async for line in _lines(answer):
                    name, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    if name == "id" and "\0" not in value:
                        self._last_id = value
                    elif name == "retry" and value.isascii() and value.isdigit():
                        self._later = min(int(value[:9]) / 1000, 60.0)
                    elif name == "data":
                        is_event = True
                    elif not line and is_event:  # without data it is a ping, or a word of ours
                        is_event = False
                        yield True


async def _lines(answer: httpx.Response) -> AsyncGenerator[str, None]:
    """Give the lines of a stream of events, which httpx would split at U+2028 and others, too."""
    rest, was_cr = b"", False
    async for some in answer.aiter_bytes():
        new = some.removeprefix(b"\n") if was_cr else some  # the other half of one end
        was_cr = new.endswith(b"\r")
        *lines, rest = _END.split(rest + new)
        for line in lines:
            yield line.decode(errors="replace")
