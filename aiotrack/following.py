"""Following executions: `watch` and `wait`, awake when something changed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar, Unpack

from aiotrack.encode import encode_task_id
from aiotrack.errors import InvalidValue, SlowConsumer, StoreUnavailable, WaitTimeout
from aiotrack.records import Records

if TYPE_CHECKING:
    from aiotrack.live import Listener, Live
    from aiotrack.model import Execution
    from aiotrack.repository.filters import Narrowing
    from aiotrack.repository.read import Reader

A = TypeVar("A")
T = TypeVar("T")

PAUSE_FIRST, PAUSE_LAST = 0.05, 1.0
"""Seconds between two looks at the database while nobody tells of changes: from the first after a
change, half as long again each time, to the last."""

SURE = 2.0
"""Seconds between two looks while somebody does: an event may be lost with its process."""

CALM = 0.002
"""Seconds between two reads at least: a thousand changes a second are five hundred reads."""

PATIENCE: Final = 30.0
"""Seconds that a follower rides out an outage of the database."""

NEWEST: Final = 500
"""Executions of a filter that are compared when it is not known which of them changed."""


class Following(Records):
    """Executions as they change; see `Tracker`."""

    async def watch(
        self, task_id: str | int | None = None, **filters: Unpack[Narrowing]
    ) -> AsyncIterator[Execution]:
        """Give an execution as it is, and again whenever it changed, until its status is final.

        With filters instead of a *task_id*: give every execution that matches them when it is new
        or changed, without end. What is given was read from the database: it is durable. Several
        changes in quick succession are given as one. Through Redis a change is seen within
        milliseconds; without Redis the database is asked, every 0.05 to 1 s, and of a filter's
        executions the newest 500.

        Args:
            task_id: The execution to follow.
            **filters: As in `list`; not together with *task_id*.

        Raises:
            ExecutionNotFound: There is no execution *task_id*.
            InvalidValue: Both *task_id* and filters, or neither.
            SlowConsumer: More than 10,000 executions changed before the next one was asked for.
            StoreUnavailable: The database was away for more than 30 s, or at the first read.
        """
        if (task_id is None) == (not filters):
            raise InvalidValue("watch() takes a task_id, or filters as list() does")
        core = await self._flushed()
        if task_id is None:
            listener = await core.live.listen()
            follower = _Matching(core.reader, core.live, listener, filters)
            async for execution in follower.changes():
                yield execution
            return
        listener = await core.live.listen(encode_task_id(task_id))
        shown = None
        rhythm = _Rhythm(core.live, listener)
        while True:
            execution = await _patiently(core.reader.get, task_id, is_first=shown is None)
            if execution != shown:
                shown = execution
                rhythm.restart()
                yield execution
                if execution.is_completed:
                    return
            await rhythm.next()

    async def wait(self, task_id: str | int, timeout: float | None = None) -> Execution:
        """Wait until an execution's status is final; a presumed verdict counts.

        Args:
            task_id: The execution.
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            ExecutionNotFound: There is no such execution.
            WaitTimeout: The time is over; it has the ``execution`` as it is.
            InvalidValue: *timeout* is negative or no number.
        """
        if timeout is not None and not timeout >= 0:  # NaN is neither
            raise InvalidValue(f"timeout must be seconds, 0 or more, not {timeout!r}")
        execution = await self.get(task_id)
        if execution.is_completed:
            return execution
        scope = asyncio.timeout(None if timeout is None or math.isinf(timeout) else timeout)
        try:
            async with scope:
                async for execution in self.watch(task_id):
                    if execution.is_completed:
                        break
        except TimeoutError:
            if not scope.expired():
                raise
            raise WaitTimeout(execution, float(timeout or 0)) from None
        return execution


async def _patiently(read: Callable[[A], Awaitable[T]], what: A, *, is_first: bool) -> T:
    """Read, and ride out an outage; the first read fails at once."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return await read(what)
        except StoreUnavailable:
            if is_first or time.monotonic() >= end:
                raise
            await asyncio.sleep(PAUSE_LAST)


class _Rhythm:
    """When the database is asked again."""

    def __init__(self, live: Live, listener: Listener) -> None:
        self._live = live
        self._listener = listener
        self._pause = PAUSE_FIRST
        self._read_at = time.monotonic()

    def restart(self) -> None:
        """Begin with short pauses: something changed."""
        self._pause = PAUSE_FIRST

    async def next(self) -> set[str]:
        """Wait until something is told, or for as long as nobody told."""
        calm = self._read_at + CALM - time.monotonic()
        if calm > 0:
            await asyncio.sleep(calm)
        changed = await self._listener.changed(SURE if self._live.is_pushed else self._pause)
        if not changed:
            self._pause = min(1.5 * self._pause, PAUSE_LAST)
        self._read_at = time.monotonic()
        return changed


class _Matching:
    """Follows what matches a filter."""

    def __init__(self, reader: Reader, live: Live, listener: Listener, filters: Narrowing) -> None:
        self._reader = reader
        self._listener = listener
        self._filters = filters
        self._rhythm = _Rhythm(live, listener)
        self._known: dict[str, int] = {}

    async def changes(self) -> AsyncIterator[Execution]:
        """Give what is new or changed."""
        for execution in await self._newest(is_first=True):
            self._is_news(execution)
        while True:
            changed = await self._rhythm.next()
            if self._listener.is_overrun:
                raise SlowConsumer
            if changed and not self._listener.is_all:
                found = await _patiently(self._among, changed, is_first=False)
            else:
                self._listener.is_all = False
                found = await self._newest(is_first=False)
            for execution in found:
                if self._is_news(execution):
                    self._rhythm.restart()
                    yield execution

    async def _newest(self, *, is_first: bool) -> list[Execution]:
        async def read(limit: int) -> list[Execution]:
            page = await self._reader.list(limit=limit, **self._filters)
            return page.items[::-1]

        return await _patiently(read, NEWEST, is_first=is_first)

    async def _among(self, task_ids: set[str]) -> list[Execution]:
        return await self._reader.among(task_ids, **self._filters)

    def _is_news(self, execution: Execution) -> bool:
        """Tell whether it was given otherwise or not at all, and remember it."""
        print_ = hash(repr(execution))
        if self._known.pop(execution.task_id, None) == print_:
            self._known[execution.task_id] = print_
            return False
        self._known[execution.task_id] = print_
        if len(self._known) > 2 * NEWEST:
            del self._known[next(iter(self._known))]
        return True
