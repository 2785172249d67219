"""An answer that goes on: the events of a channel, each client at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from aiotrack.api.hub import PLACES, Channel, Client, Event, chunk_of, hub_of, state_of
from aiotrack.api.problems import HEADERS, answer_to
from aiotrack.api.site import Here, up_to_date
from aiotrack.encode import encode_task_id
from aiotrack.errors import QueryTimeout
from aiotrack.following import Matching, One
from aiotrack.model import FINAL, Execution, TaskStatus
from aiotrack.repository.cursor import moment_of
from aiotrack.repository.filters import Filters, Narrowing
from aiotrack.repository.read import SOME

if TYPE_CHECKING:
    from aiotrack.clock import Clock

MEDIA: Final = "text/event-stream"

PING: Final = 15.0
"""Seconds of silence after which a comment is sent: proxies close what is silent."""

PATIENCE: Final = 10.0
"""Seconds that one write may take."""

OVERLAP: Final = timedelta(seconds=10)
"""How long before the last moment that a client knows an end may have been, and still be told."""

LONGEST: Final = timedelta(hours=1)
"""How long a client may have been away; after that a list is the quicker way."""

BEGIN: Final = b"retry: 2000\n\n"


class Stream(Response):
    """Holds a place, joins a channel, and writes until one of both sides has enough.

    Args:
        here: Who asks.
        last_id: Of the last event that the client has; None: it has none.
    """

    media_type = MEDIA

    def __init__(self, here: Here, last_id: str | None) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**HEADERS, "X-Accel-Buffering": "no"})
        self._here = here
        self._last_id = last_id
        self._is_done = False
        """The client has all that there will ever be."""
        self._read: frozenset[str] = frozenset()
        """Executions whose state was read for this client alone, ..."""
        self._read_at = 0.0
        """... and when that was over, by the monotonic clock."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        writer = _Writer(send, self.raw_headers)
        try:
            with PLACES.take(_name_of(self._here)):
                await self._serve(receive, writer)
        except WriteTimeoutError:
            return  # it reads nothing: the server closes what has no end
        except Exception as error:
            answer = answer_to(error)  # which logs what nobody expected
            if not writer.has_begun:
                await answer(scope, receive, send)
                return
            with contextlib.suppress(WriteTimeoutError):
                await writer.end(_come_again())

    async def _serve(self, receive: Receive, writer: _Writer) -> None:
        channel = await self._channel()
        with channel.join() as client:
            gone = asyncio.create_task(_until_gone(receive, client))
            try:
                await channel.ready()
                client.seen = channel.told  # what is read from now on is newer
                first = await self._first(channel)
                if first is None:
                    await writer.nothing()
                    return
                await writer.write(BEGIN + first)
                while not client.is_gone and await self._step(channel, client, writer):
                    pass
            finally:
                gone.cancel()

    async def _step(self, channel: Channel, client: Client, writer: _Writer) -> bool:
        """Write what there is, and wait for more; False: there will not be any."""
        client.wake.clear()
        is_over = channel.is_over
        events = channel.take(client)
        if events is None:
            await writer.end(b": too slow\n" + _come_again())
            return False
        chunk = await self._chunk(channel, client, events)
        if client.noted != channel.notes:
            client.noted, chunk = channel.notes, channel.note + chunk
        if chunk:
            await writer.write(chunk)
        if self._is_done or is_over:
            await writer.end(b"" if self._is_done else _come_again())
            return False
        try:
            async with asyncio.timeout(PING):
                await client.wake.wait()
        except TimeoutError:
            await writer.write(b": ping\n\n")
        return True

    async def _chunk(self, channel: Channel, client: Client, events: list[Event]) -> bytes:
        """Give events as one piece, in the order in which their states were read."""
        if self._read and events:
            if events[0].read_at >= self._read_at:
                self._read = frozenset()  # and all that follow are newer, too
            else:
                events = await self._in_order(channel, events)
                return b"".join(event.chunk for event in events)
        return channel.joined(client, events) if events else b""

    async def _in_order(self, channel: Channel, events: list[Event]) -> list[Event]:
        """Read those anew that may be older than what this client was told."""
        unsure = {one.key for one in events if one.read_at < self._read_at} & self._read
        sure = [one for one in events if one.key not in unsure]
        if unsure:
            found = await channel.follower.now({encode_task_id(key) for key in unsure})
            self._read_at = time.monotonic()
            sure += [channel.make(one, self._read_at) for one in found]
        return sure

    def _has_read(self, executions: Iterable[Execution]) -> None:
        self._read = frozenset(one.task_id for one in executions)
        self._read_at = time.monotonic()

    async def _channel(self) -> Channel:
        raise NotImplementedError

    async def _first(self, channel: Channel) -> bytes | None:
        """Give what is written first; None: nothing will ever be."""
        raise NotImplementedError


class OneStream(Stream):
    """Follows an execution to its end."""

    def __init__(self, here: Here, last_id: str | None, execution: Execution) -> None:
        super().__init__(here, last_id)
        self._task_id = execution.task_id

    async def _channel(self) -> Channel:
        core = await up_to_date(self._here)
        name = f"execution {self._task_id}"
        return hub_of(core).channel(name, lambda: One(core, self._task_id), _state, is_one=True)

    async def _first(self, channel: Channel) -> bytes | None:
        found = await channel.follower.now({self._task_id})
        self._has_read(found)
        chunk = self._news(_state(found[0], self._read_at))
        return None if self._is_done and not chunk else chunk

    async def _chunk(self, channel: Channel, _: Client, events: list[Event]) -> bytes:
        if events and events[0].read_at < self._read_at:
            events = await self._in_order(channel, events)
        return b"".join(map(self._news, events))

    def _news(self, event: Event) -> bytes:
        """Give an event as it is written, unless the client has that state."""
        self._is_done = event.is_last
        is_known, self._last_id = event.id == self._last_id, event.id
        return b"" if is_known else event.chunk


class ManyStream(Stream):
    """Follows what a filter matches, without end."""

    def __init__(self, here: Here, last_id: str | None, filters: Narrowing) -> None:
        super().__init__(here, last_id)
        self._filters = filters

    async def _channel(self) -> Channel:
        core = await up_to_date(self._here)
        clock = core.clock

        def make(execution: Execution, read_at: float) -> Event:
            data = state_of(execution)[1]
            chunk = chunk_of("execution", _now(clock), data)
            return Event(_now(clock), execution.task_id, read_at, is_last=False, chunk=chunk)

        name = f"filter {Filters.of(**self._filters).digest()}"
        return hub_of(core).channel(name, lambda: Matching(core, self._filters), make)

    async def _first(self, _: Channel) -> bytes | None:
        core = self._here.tracker.core()
        missed: list[Execution] | None = []
        now = _now(core.clock)
        if self._last_id is not None:
            async with hub_of(core).reading:
                missed = await self._missed(self._last_id)
            self._has_read(missed or [])
        if missed is None:
            return chunk_of("reset", now, b"{}")
        chunks = (chunk_of("execution", now, state_of(one)[1]) for one in missed)
        return b"".join([*chunks, chunk_of("ready", now, b"{}")])

    async def _missed(self, last_id: str) -> list[Execution] | None:
        """Read what may have changed since the moment that an id tells; None: it is too much."""
        core = self._here.tracker.core()
        since = moment_of(int(last_id)) if last_id.isdecimal() and len(last_id) < 20 else None
        now = moment_of(core.clock.now())
        if since is None or now is None or now - since > LONGEST:
            return None
        asked = set(Filters.of(**self._filters).exact.get("status", TaskStatus))
        found: dict[str, Execution] = {}
        try:
            for some in (asked - FINAL, asked & FINAL):
                filters: Narrowing = {**self._filters, "status": sorted(map(str, some))}
                if some & FINAL:
                    items = await core.reader.ended(since - OVERLAP, **filters)
                elif some:
                    items = (await core.reader.list(limit=SOME, **filters)).items
                else:
                    continue
                if len(items) == SOME:
                    return None
                found |= {one.task_id: one for one in items}
        except QueryTimeout:
            return None
        return sorted(found.values(), key=lambda one: (one.created_at, one.id))


class WriteTimeoutError(Exception):
    """A client does not read."""


class _Writer:
    """Writes an answer in pieces, none of which may take long.

    Its verbs raise `WriteTimeoutError` when the client does not read.
    """

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self.has_begun = False

    async def write(self, chunk: bytes, *, is_last: bool = False) -> None:
        """Write a piece."""
        if not self.has_begun:
            await self._begin(200)
        body: Message = {"type": "http.response.body", "body": chunk, "more_body": not is_last}
        try:
            async with asyncio.timeout(PATIENCE):
                await self._send(body)
        except TimeoutError:
            raise WriteTimeoutError from None

    async def end(self, chunk: bytes) -> None:
        """Write the last piece."""
        await self.write(chunk, is_last=True)

    async def nothing(self) -> None:
        """Answer that nothing will come: browsers stop asking."""
        await self._begin(204)
        await self.end(b"")

    async def _begin(self, status: int) -> None:
        self.has_begun = True
        start = {"type": "http.response.start", "status": status, "headers": self._headers}
        await self._send(start)


async def _until_gone(receive: Receive, client: Client) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    client.leave()


def _state(execution: Execution, read_at: float) -> Event:
    id_, data = state_of(execution)
    chunk = chunk_of("execution", id_, data)
    return Event(id_, execution.task_id, read_at, is_last=execution.is_completed, chunk=chunk)


def _now(clock: Clock) -> str:
    return str(clock.now())


def _come_again() -> bytes:
    """Say when to come back, so that not all do so at once."""
    return b"retry: %d\n\n" % random.randint(1000, 4000)


def _name_of(here: Here) -> str | None:
    caller = here.caller
    if caller.id is not None:
        return f"user {caller.id}"
    return None if caller.actor is None else f"token {caller.actor}"
