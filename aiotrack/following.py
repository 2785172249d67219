"""Following executions: `watch` and `wait`, awake when something changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Final, TypeVar, Unpack

from aiotrack.encode import encode_task_id
from aiotrack.errors import InvalidValue, SlowConsumer, StoreUnavailable
from aiotrack.records import Records
from aiotrack.waiting import until_over

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.live import Listener, Live
    from aiotrack.model import Execution
    from aiotrack.repository.filters import Narrowing

T = TypeVar("T")

PAUSE_FIRST, PAUSE_LAST = 0.05, 1.0
"""Seconds between two looks at the database while nobody tells of changes: from the first after a
change, half as long again each time, to the last."""

SURE = 2.0
"""Seconds between two looks while somebody does: an event may be lost with its process."""

EACH = 0.1
"""Seconds by which a look at a filter is put off for each other one: it reads 500 rows."""

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
        if task_id is not None:
            one = One(core, task_id)
            shown = await one.begin()
            while True:
                for execution in shown:
                    yield execution
                    if execution.is_completed:
                        return
                shown = await _patiently(one.next)
        matching = Matching(core, filters)
        await matching.begin()
        while True:
            for execution in await _patiently(matching.next):
                yield execution

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
        return await until_over(self, task_id, timeout)


async def _patiently(step: Callable[[], Awaitable[T]]) -> T:
    """Take a step, and ride out an outage."""
    end: float | None = None
    while True:
        try:
            return await step()
        except StoreUnavailable:
            now = time.monotonic()
            end = now + PATIENCE if end is None else end
            if now >= end:
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
        changed = await self._listener.changed(self._spread(self._pause))
        if not changed:
            self._pause = min(1.5 * self._pause, PAUSE_LAST)
        self._read_at = time.monotonic()
        return changed

    def is_owed(self, looked_at: float) -> bool:
        """Whether everything is to be looked at although somebody tells: others may not have.

        Args:
            looked_at: When that was done last.
        """
        passed = time.monotonic() - looked_at
        return passed >= PAUSE_LAST and passed >= self._spread(PAUSE_LAST)  # this walks all others

    def _spread(self, pause: float) -> float:
        pause = SURE if self._live.is_pushed else pause
        others = self._live.watchers - 1 if self._listener.task_id is None else 0
        return max(pause, EACH * others)


class Follower:
    """Follows by steps: `begin` once, then `next` again and again.

    ``read_at`` is when the last read began, by the monotonic clock: what was committed before that
    moment is in it.
    """

    read_at: float = 0.0

    async def begin(self) -> list[Execution]:
        """Listen from now on, and give what is there to be seen.

        Raises:
            StoreUnavailable: The database did not answer.
        """
        raise NotImplementedError

    async def next(self) -> list[Execution]:
        """Wait for what may be a change, for a second or two, and give what changed.

        Raises:
            StoreUnavailable: The database did not answer; the next step looks at the same again.
        """
        raise NotImplementedError

    async def now(self, task_ids: Collection[str]) -> list[Execution]:
        """Read some executions as they are."""
        raise NotImplementedError


class One(Follower):
    """Follows an execution."""

    def __init__(self, core: Core, task_id: str | int) -> None:
        self._core = core
        self._task_id = task_id
        self._shown: Execution | None = None
        self._is_owed = False

    async def begin(self) -> list[Execution]:
        """Give the execution.

        Raises:
            ExecutionNotFound: There is none.
        """
        live = self._core.live
        self._rhythm = _Rhythm(live, await live.listen(encode_task_id(self._task_id)))
        return await self._read()

    async def next(self) -> list[Execution]:
        """Give the execution if it changed."""
        if not self._is_owed:
            await self._rhythm.next()
        return await self._read()

    async def now(self, task_ids: Collection[str]) -> list[Execution]:
        """Read the execution."""
        return [await self._core.reader.get(self._task_id)] if task_ids else []

    async def _read(self) -> list[Execution]:
        self._is_owed = True
        self.read_at = time.monotonic()
        execution = await self._core.reader.get(self._task_id)
        self._is_owed = False
        if execution == self._shown:
            return []
        self._shown = execution
        self._rhythm.restart()
        return [execution]


class Matching(Follower):
    """Follows what matches filters; what is there at the beginning is not given."""

    def __init__(self, core: Core, filters: Narrowing) -> None:
        self._core = core
        self._filters = filters
        self._known: dict[str, int] = {}
        self._changed: set[str] = set()
        self._is_all = False
        self._looked_at = 0.0

    async def begin(self) -> list[Execution]:
        """Learn what is there.

        Raises:
            InvalidQuery: A filter that cannot be served.
            QueryTimeout: No index serves it, and two seconds were over.
        """
        self._listener = await self._core.live.listen()
        self._rhythm = _Rhythm(self._core.live, self._listener)
        self.read_at = time.monotonic()
        for execution in await self._newest():
            self._is_news(execution)
        return []

    async def next(self) -> list[Execution]:
        """Give what is new or changed.

        Raises:
            SlowConsumer: More than 10,000 executions changed since the step before.
        """
        if not (self._changed or self._is_all):
            self._changed = await self._rhythm.next()
            is_owed = not self._changed or self._rhythm.is_owed(self._looked_at)
            self._is_all = self._listener.is_all or is_owed
            self._listener.is_all = False
        if self._listener.is_overrun:
            raise SlowConsumer
        self.read_at = time.monotonic()
        found = await self._newest() if self._is_all else []
        if self._changed:  # some may be older than the newest
            found += await self.now(self._changed)
        self._changed, self._is_all = set(), False
        news = [execution for execution in found if self._is_news(execution)]
        if news:
            self._rhythm.restart()
        return news

    async def now(self, task_ids: Collection[str]) -> list[Execution]:
        """Read those of some executions that match; the task_ids are as they are stored."""
        return await self._core.reader.among(task_ids, **self._filters)

    async def _newest(self) -> list[Execution]:
        begun = time.monotonic()
        page = await self._core.reader.list(limit=NEWEST, **self._filters)
        self._looked_at = begun
        return page.items[::-1]

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
