"""A tracker's life: one database, and for each event loop connections, a buffer and a writer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from aiotrack.clock import Clock
from aiotrack.encode import Encoder
from aiotrack.errors import AioTrackError, InvalidSetting
from aiotrack.journal import Journal, default_folder
from aiotrack.keeper import Keeper
from aiotrack.recorder import Recorder
from aiotrack.report import Report
from aiotrack.settings import DEFAULT_DATABASE, Settings

if TYPE_CHECKING:
    import re
    from types import TracebackType

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncEngine

    from aiotrack.repository import Repository
    from aiotrack.repository.read import Reader

log = logging.getLogger(__name__)

START_BUDGET = 5.0
"""Seconds that a worker's or a sender's start waits for the database, which may need a schema."""


class Core:
    """What belongs to one event loop: connections, buffer, writer."""

    def __init__(self, tracker: Lifecycle) -> None:
        from aiotrack.repository import Repository
        from aiotrack.repository.read import Reader

        settings = tracker.settings
        self.repository: Repository = Repository(
            tracker.database, clock=tracker.clock, pgbouncer=settings.pgbouncer
        )
        self.reader: Reader = Reader(self.repository)
        told = settings.journal_dir
        base = Path(told) if told else default_folder()
        journal = Journal(base / hashlib.sha256(self.repository.name.encode()).hexdigest()[:16])
        self.recorder = Recorder(
            self.repository.write,
            budget=settings.commit_budget,
            max_backlog=settings.max_backlog,
            keeper=Keeper(journal, self.repository.write),
            block_ack=settings.on_store_failure == "block_ack",
        )


class Lifecycle:
    """Start, stop and the parts of each loop; see `Tracker` for the arguments."""

    def __init__(
        self,
        database: str | AsyncEngine | None = None,
        *,
        redis: str | Redis | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = settings if isinstance(settings, Settings) else Settings.load(settings)
        self.database: str | AsyncEngine = _checked(database or self.settings.database_url)
        self.redis = redis or self.settings.redis_url
        self.clock = Clock()
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._redacted: tuple[str | re.Pattern[str], ...] = ()
        self.redact(())
        self._cores: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Core] = (
            weakref.WeakKeyDictionary()
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last: tuple[asyncio.AbstractEventLoop, Core] | None = None
        _EVERY.add(self)

    async def __aenter__(self) -> Self:
        await self.startup()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown()

    async def startup(self, *, wait: bool = True) -> None:
        """Connect, and make the schema in an empty database.

        Args:
            wait: Raise when the database cannot be used; otherwise log it and try again later.

        Raises:
            StoreUnavailable: The database cannot be reached.
            SchemaOutdated: It holds an older schema: see `upgrade`.
        """
        core = self._core()
        try:
            async with asyncio.timeout(None if wait else START_BUDGET):
                await core.repository.connect()
        except TimeoutError:
            log.error("executions are not being recorded for now: the database does not answer")
        except AioTrackError as error:
            if wait:
                await self._discard(core)
                raise
            log.error("executions are not being recorded for now: %s", error)
        core.recorder.start()

    async def shutdown(self) -> None:
        """Write what is left, and close this loop's connections. Harmless when repeated."""
        core = self._cores.get(asyncio.get_running_loop())
        if core is None:
            return
        if core.recorder.is_busy:  # runs that outlive the shutdown still need it
            await core.recorder.flush(4.0)
            await core.repository.release()
        else:
            await self._discard(core)

    async def _discard(self, core: Core) -> None:
        self._cores.pop(asyncio.get_running_loop(), None)
        self._last = None
        left = await core.recorder.close()
        if left:
            log.error("%d reports were not written: the database is away", len(left))
        await core.repository.close()

    def report_from_anywhere(self, report: Report) -> None:
        """Take a report from sync code, in the loop's thread or another one."""
        loop = self._living_loop()
        if loop is None:
            log.error("%s is not recorded: start the tracker first", report.origin.task_name)
            return
        try:
            is_inside = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_inside = False
        if is_inside:
            self.recorder().add(report)
        else:
            loop.call_soon_threadsafe(self._core_of(loop).recorder.add, report)

    def _living_loop(self) -> asyncio.AbstractEventLoop | None:
        """Give the loop that was used last, or another one if it has gone."""
        loop = self._loop
        if loop is None or loop.is_closed():
            living = [one for one in list(self._cores) if not one.is_closed()]
            loop = self._loop = living[0] if living else None
        return loop

    async def upgrade(self) -> str:
        """Bring the schema to this release's version, and give that version.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        return await self._core().repository.upgrade()

    async def flush(self, timeout: float | None = None) -> bool:
        """Commit all that was reported in this loop so far.

        Args:
            timeout: Seconds; None waits for as long as it takes.

        Returns:
            False when the time was over first.
        """
        return await self._core().recorder.flush(timeout)

    def recorder(self) -> Recorder:
        """Give the recorder of the running loop."""
        return self._core().recorder

    def _core(self) -> Core:
        return self._core_of(asyncio.get_running_loop())

    def _core_of(self, loop: asyncio.AbstractEventLoop) -> Core:
        last = self._last
        if last is not None and last[0] is loop:
            return last[1]
        core = self._cores.get(loop)
        if core is None:
            core = self._cores[loop] = Core(self)
            self._loop = loop
            for other in [other for other in self._cores if other.is_closed()]:
                for report in self._cores.pop(other).recorder.left():
                    core.recorder.add(report)
        self._last = (loop, core)
        return core

    def redact(self, names: Iterable[str | re.Pattern[str]]) -> None:
        """Never store values under *names* (or patterns), besides the usual secrets."""
        self._redacted = (*self._redacted, *names)
        self.encoder = Encoder(max_value_bytes=self.settings.max_value_bytes, redact=self._redacted)


_EVERY: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


def _after_fork() -> None:
    """Let a child make its own connections, and a name of its own."""
    for tracker in _EVERY:
        tracker._last = None  # noqa: SLF001 - ours
        tracker._cores = weakref.WeakKeyDictionary()  # noqa: SLF001 - ours
        tracker.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _checked(database: str | AsyncEngine | None) -> str | AsyncEngine:
    """Refuse at once what no database can be made of."""
    if database is None:
        log.warning("no database is set: using %s", Path("aiotrack.db").absolute())
        return DEFAULT_DATABASE
    if isinstance(database, str) and "://" not in database:
        raise InvalidSetting(
            "database",
            f"{database!r} is not a URL: write postgresql+asyncpg://user:password@host/name "
            "or sqlite+aiosqlite:///file.db",
        )
    return database
