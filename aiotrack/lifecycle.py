"""A tracker's life: one database, and a core for each event loop that uses it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from uuid import uuid4

from aiotrack.classes import ErrorClasses, Rules
from aiotrack.clock import Clock
from aiotrack.core import Core
from aiotrack.current import Run
from aiotrack.encode import Encoder
from aiotrack.errors import AioTrackError, InvalidSetting
from aiotrack.feature import Feature
from aiotrack.journal import default_folder
from aiotrack.recorder import Recorder
from aiotrack.report import Report
from aiotrack.settings import DEFAULT_DATABASE, Settings, driver_of, masked

if TYPE_CHECKING:
    from types import TracebackType

    from redis.asyncio import Redis
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncEngine
    from taskiq import AsyncBroker


log = logging.getLogger(__name__)

F = TypeVar("F", bound=Feature)

START_BUDGET = 5.0
"""Seconds that a worker's or a sender's start waits for the database, which may need a schema."""


class Lifecycle:
    """Start, stop and the parts of each loop; see `Tracker` for the arguments."""

    features: ClassVar[tuple[type[Feature], ...]] = ()
    """What plugs into the core of each loop."""

    def __init__(
        self,
        database: str | URL | AsyncEngine | None = None,
        *,
        redis: str | Redis | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
    ) -> None:
        self.options = settings if isinstance(settings, Settings) else Settings.load(settings)
        self.database: str | AsyncEngine = _checked(database or self.options.database_url)
        self.redis = _checked_redis(redis or self.options.redis_url)
        told = self.options.journal_dir
        self.journals = (Path(told) if told else default_folder()).absolute()
        """Where journals lie: where it is now, whatever a task makes the current folder."""
        self.clock = Clock()
        self.worker_id = _new_worker_id()
        self.classes = ErrorClasses()
        self._redacted: tuple[str | re.Pattern[str], ...] = ()
        self.encoder = Encoder(max_value_bytes=self.options.max_value_bytes)
        self._cores: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Core] = (
            weakref.WeakKeyDictionary()
        )
        self._making = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last: tuple[asyncio.AbstractEventLoop, Core] | None = None
        self.brokers: list[AsyncBroker] = []
        """Those whose middleware reports here."""
        self.receivers: list[Callable[[Any], Any]] = []
        """Who is told of alerts, by this process."""
        self.in_threads: set[Run] = set()
        """Calls of tracked sync functions, which belong to no event loop."""
        _EVERY.add(self)

    def __repr__(self) -> str:
        url = self.database
        told = masked(url if isinstance(url, str) else url.url.render_as_string())
        return f"{type(self).__name__}({told!r})"

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

    def attach(self, broker: AsyncBroker) -> None:
        """Meet a broker; its middleware does this. Harmless when repeated."""
        if all(known is not broker for known in self.brokers):
            self.brokers.append(broker)
            for kind in self.features:
                try:
                    kind.attach(self, broker)
                except Exception:
                    log.exception("%s cannot serve this broker", kind.__name__)

    async def startup(self, *, wait: bool = True) -> None:
        """Connect, and make the schema in an empty database.

        Args:
            wait: Raise when the database cannot be used; otherwise log it and try again later.

        Raises:
            StoreUnavailable: The database cannot be reached.
            SchemaOutdated: It holds an older schema: see `upgrade`.
        """
        core = self.core()
        try:
            async with asyncio.timeout(None if wait else START_BUDGET):
                await core.repository.connect()
        except TimeoutError:
            log.error("executions are not being recorded for now: the database does not answer")
        except AioTrackError as error:
            if wait:
                await self._stop(core)
                raise
            log.error("executions are not being recorded for now: %s", error)
        core.recorder.start()

    @property
    def is_started(self) -> bool:
        """Whether an event loop of this process uses it."""
        return any(not loop.is_closed() for loop in self._cores)

    async def shutdown(self) -> None:
        """Write what is left, and close this loop's connections. Harmless when repeated."""
        core = self._cores.get(asyncio.get_running_loop())
        if core is None:
            return
        if core.recorder.is_busy:  # runs that outlive the shutdown still need it
            await core.stop(for_good=False)
        else:
            await self._stop(core)

    async def _stop(self, core: Core) -> None:
        await self.end(core)
        await anext(core.at_loop_end, None)

    async def end(self, core: Core) -> None:
        """Forget a core of the running loop, and stop it."""
        self._cores.pop(asyncio.get_running_loop(), None)
        self._last = None
        await core.stop(for_good=True)

    def report_from_anywhere(self, report: Report) -> None:
        """Take a report from sync code, in the loop's thread or another one."""
        loop = self.living_loop()
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
            if not loop.is_running():
                name = report.origin.task_name
                log.error("%s is not recorded, unless its event loop goes on", name)
            with contextlib.suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(lambda: self.recorder().add(report))

    def living_loop(self) -> asyncio.AbstractEventLoop | None:
        """Give the loop that was used last, or another one if it runs no more.

        None runs where somebody turns his loop by hand: then one that may go on.
        """
        loop = self._loop
        if loop is None or not loop.is_running():
            with self._making:
                living = [one for one in self._cores if not one.is_closed()]
            living.sort(key=lambda one: one.is_running(), reverse=True)
            loop = self._loop = living[0] if living else None
        return loop

    def _loop_here(self) -> asyncio.AbstractEventLoop | None:
        """Give the loop that runs in this thread, else one that the tracker runs in."""
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            return self.living_loop()

    def run_of(self, run_id: str) -> Run | None:
        """Give a run that lives in this process, in whichever of its loops or threads."""
        with self._making:
            cores = list(self._cores.values())
        every = [run for core in cores for run in tuple(core.recorder.running)]
        living = (run for run in (*every, *tuple(self.in_threads)) if isinstance(run, Run))
        return next((run for run in living if run.run_id == run_id), None)

    async def upgrade(self) -> str:
        """Bring the schema to this release's version, and give that version.

        Raises:
            StoreUnavailable: The database cannot be reached.
            SchemaTooNew: A newer release made it.
        """
        return await self.core().repository.upgrade()

    async def flush(self, timeout: float | None = None) -> bool:
        """Commit all that was reported in this loop so far.

        Args:
            timeout: Seconds; None waits for as long as it takes.

        Returns:
            False when the time was over first.
        """
        return await self.core().recorder.flush(timeout)

    def feature(self, kind: type[F]) -> F:
        """Give the running loop's feature of a kind.

        Raises:
            LookupError: The tracker has none.
        """
        return self.core().feature(kind)

    def recorder(self, run: Run | None = None) -> Recorder:
        """Give the recorder of the running loop; *run* is one of that loop, if it is known.

        Asking for the running loop takes a system call up to Python 3.11.
        """
        last = self._last
        if run is not None and last is not None and last[1] is run.core:
            return last[1].recorder
        return self.core().recorder

    def core(self) -> Core:
        """Give what belongs to the running loop."""
        loop, last = asyncio.get_running_loop(), self._last
        return last[1] if last is not None and last[0] is loop else self._core_of(loop)

    async def _flushed(self) -> Core:
        """Commit what this process has told, so that it reads its own writes."""
        core = self.core()
        core.recorder.tell_starts()
        await core.recorder.catch_up(self.options.commit_budget)
        return core

    def _core_of(self, loop: asyncio.AbstractEventLoop) -> Core:
        core = self._cores.get(loop)
        if core is None:
            with self._making:  # loops of other threads may begin at the same time
                core = self._cores[loop] = Core(self)
                gone = [self._cores.pop(one) for one in list(self._cores) if one.is_closed()]
            self._loop = loop
            for other in gone:
                other.hand_over(core.recorder)
        self._last = (loop, core)
        return core

    def after_fork(self) -> None:
        """Let a child make its own connections, and a name of its own.

        What is the parent's stays as it is: sockets and pollers are shared, and whatever closes
        them here would close them there. Only files are let go: a lock on them is shared, too.
        """
        inherited = list(self._cores.values())
        _INHERITED.extend(inherited)
        for core in inherited:
            core.keeper.after_fork()
        self._cores = weakref.WeakKeyDictionary()
        self._making = threading.Lock()
        self._loop = self._last = None
        self.worker_id = _new_worker_id()

    def classify(self, rules: Rules) -> None:
        """Say what errors mean: rules in front of those that aiotrack comes with.

        A permanent error is not retried. Subclasses count; the nearest type wins.

        Args:
            rules: An exception type, or its dotted name (``"httpx.ReadTimeout"``: nothing is
                imported), to ``transient``, ``permanent``, ``timeout``, ``cancelled``, ``lost``,
                ``invalid_result`` or ``invalid_input``; to None, for "nobody knows"; or to a
                function that gives one of these for an exception.

        Raises:
            InvalidValue: A key is no exception type or dotted name, or nobody knows the class.
        """
        self.classes.add(rules)

    def redact(self, names: str | re.Pattern[str] | Iterable[str | re.Pattern[str]]) -> None:
        """Never store values under *names* (or patterns), besides the usual secrets."""
        self._redacted += (names,) if isinstance(names, (str, re.Pattern)) else tuple(names)
        self.encoder.redact(self._redacted)


_EVERY: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


def started() -> list[Lifecycle]:
    """Give the trackers that this process uses."""
    return [tracker for tracker in _EVERY if tracker.is_started]


_INHERITED: list[Core] = []
"""What a parent of this process had: never used, never closed."""


def _new_worker_id() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


def _after_fork() -> None:
    for tracker in _EVERY:
        tracker.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _checked(database: str | URL | AsyncEngine | None) -> str | AsyncEngine:
    """Refuse at once what no database can be made of; SQLAlchemy is loaded on use."""
    if database is None:
        log.warning("no database is set: using %s", Path("aiotrack.db").absolute())
        return DEFAULT_DATABASE
    if hasattr(database, "render_as_string"):
        return str(database.render_as_string(hide_password=False))
    if not isinstance(database, str):
        if not hasattr(database, "sync_engine"):
            fault = f"{type(database).__name__} is neither a URL nor an AsyncEngine"
            raise InvalidSetting("database", fault)
        return database
    scheme, parted, _ = database.partition("://")
    if not (scheme and parted):
        raise InvalidSetting(
            "database",
            f"{masked(database)!r} is not a URL: "
            "write postgresql+asyncpg://user:password@host/name "
            "or sqlite+aiosqlite:///file.db",
        )
    driver_of(scheme)
    return database


def _checked_redis(redis: str | Redis | None) -> str | Redis | None:
    """Refuse at once what is no address of Redis; its package is loaded on use."""
    if isinstance(redis, str) and not redis.startswith(("redis://", "rediss://", "unix://")):
        fault = f"{masked(redis)!r} is not a URL: write redis://user:password@host:6379/0"
        raise InvalidSetting("redis", fault)
    kinds = () if redis is None or isinstance(redis, str) else type(redis).__mro__
    if kinds and not hasattr(redis, "execute_command"):
        raise InvalidSetting("redis", f"{kinds[0].__name__} is neither a URL nor a client")
    if any((kind.__module__, kind.__name__) == ("redis.client", "Redis") for kind in kinds):
        raise InvalidSetting("redis", "this client blocks: use one of redis.asyncio, or a URL")
    if kinds and not hasattr(redis, "connection_pool"):
        fault = f"{kinds[0].__name__} has no pool of connections: aiotrack needs one server"
        raise InvalidSetting("redis", fault)
    return redis
