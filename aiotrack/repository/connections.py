"""One database: reached lazily, checked once, its schema made, its clock learned."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

from aiotrack.clock import Clock
from aiotrack.errors import SchemaOutdated, SchemaTooNew, StoreError, StoreUnavailable
from aiotrack.report import Report
from aiotrack.repository import migrations, schema
from aiotrack.repository.apart import Apart
from aiotrack.repository.columns import HEAD
from aiotrack.repository.dialects import (
    at_once,
    make_engine,
    make_reading_engine,
    parse_url,
    sqlite_path,
)
from aiotrack.repository.faults import FAULTS, explain, is_broken, is_missing
from aiotrack.repository.hosts import hosts_of
from aiotrack.repository.key_indexes import KeyIndexes, create_all
from aiotrack.repository.poison import Refusals
from aiotrack.repository.probe import is_pooled
from aiotrack.repository.sqlite import SqliteWriter, file_lock, make_shared
from aiotrack.repository.statistics.marks import Marks

if TYPE_CHECKING:
    from aiotrack.repository.postgres import PostgresWriter

    Writer = SqliteWriter | PostgresWriter

log = logging.getLogger(__name__)

T = TypeVar("T")

ASK = 5.0
"""Seconds for the first questions: an engine that was given to us may have no limits."""

LEARN_AGAIN = 60.0
"""Seconds between two looks at the database's clock: one that drifts by 100 us a second, which is
much, is then 6 ms off."""

TIME = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")

LOOK_AGAIN = 3.0
"""Seconds between two looks at a schema of which something is missing."""

CLOSE_WAIT = 0.5
"""Seconds at a close for reads and changes that are under way: a healthy database needs less."""


def _to_nobody(_: Sequence[Report]) -> None:
    """Tell nobody."""


class Connections:
    """One database, reached when it is needed; see `aiotrack.repository.store.Repository`.

    Args:
        database: A URL, or an engine that stays its owner's.
        clock: Learns the database's time at the first connection, and now and then.
        pgbouncer: A transaction pooler stands before it; else it is found out.
        keys: Metadata keys that get an index.
        on_commit: Called with the reports that are durable now; it must not raise.
    """

    def __init__(
        self,
        database: str | AsyncEngine,
        *,
        clock: Clock,
        pgbouncer: bool = False,
        keys: Sequence[str] = (),
        on_commit: Callable[[Sequence[Report]], None] = _to_nobody,
    ) -> None:
        self._clock = clock
        self._marks = Marks(clock)
        self._on_commit = on_commit
        self.keys = frozenset(keys)
        self._owned = not isinstance(database, AsyncEngine)
        self._temporary = None
        self._may_be_direct = self._owned and not pgbouncer
        self._is_direct = False
        self._is_met = False
        url = database.url if isinstance(database, AsyncEngine) else parse_url(database)
        self._sqlite = url.get_backend_name() == "sqlite"
        self._path: Path | None = None
        if self._sqlite:
            self._path, gone = sqlite_path(url)
            self._temporary = self._path if gone else None
            url = url.set(database=str(self._path))
        if isinstance(database, AsyncEngine) and self._temporary is None:
            self.engine = database
        else:
            self.engine = make_engine(url, pooled=True)  # until it is known better
        self._reads = self.engine
        self._writer = self._make_writer()
        self._refusals = Refusals()
        self._indexes = KeyIndexes(sorted(self.keys), self._path, self._patient_engine)
        self._ready = False
        self._connecting = asyncio.Lock()
        self._apart = Apart()
        self._learn_at = self._look_at = 0.0

    def _make_writer(self, on_left: Callable[[], Awaitable[None]] | None = None) -> Writer:
        if self._path is not None:
            return SqliteWriter(self._path, self._marks)
        from aiotrack.repository.postgres import PostgresWriter

        return PostgresWriter(
            self.engine,
            on_left=on_left or self._leave_server,
            on_missing=self._doubt,
            is_durable=self._is_direct,
            marks=self._marks,
        )

    @property
    def name(self) -> str:
        """Which database this is, and whose: the tables of two users may lie in two schemas."""
        if self._path is not None:
            return f"sqlite:{self._path.resolve()}"
        url = self.engine.url
        hosts = ",".join(sorted(f"{host}:{port}" for host, port in hosts_of(url)))
        return f"postgresql:{url.username}@{hosts}/{url.database}"

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database; else None."""
        return self._path

    @property
    def dialect(self) -> str:
        """``postgresql`` or ``sqlite``."""
        return "sqlite" if self._sqlite else "postgresql"

    @property
    def is_ready(self) -> bool:
        """Whether the schema was seen to fit."""
        return self._ready

    async def connect(self) -> None:
        """Reach the database, make the schema if there is none, and learn its time.

        Raises:
            StoreUnavailable: It cannot be reached.
            SchemaOutdated: It needs `upgrade`.
            SchemaTooNew: A newer release made it.
        """
        async with self._connecting:
            if not self._ready:
                await self.apart(self._check())
                self._ready = True
                self._indexes.start()

    def _doubt(self) -> None:
        """Look at the schema as at first before the next use: somebody dropped or restored it."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_AGAIN
            self._ready = False
            self._marks.forget()

    async def upgrade(self, revision: str = "head") -> str:
        """Bring the schema to *revision* and give the version it is at then."""
        async with self._connecting:
            found = await self.apart(self._migrate(revision, only_empty=False))
            if found == HEAD:
                await self.apart(self._indexes.make(whatever_size=True))
            return found

    def leave_indexes(self) -> None:
        """Let other processes make the indexes of keys: this one only looks, and may end soon."""
        self._indexes.leave()

    async def missing_indexes(self) -> list[str]:
        """Give the keys of ``indexed_metadata`` that have no index yet."""
        try:
            return await self.apart(self._indexes.missing())
        except FAULTS as error:
            raise explain(error, self.engine) from error

    async def version(self) -> str | None:
        """Give the schema's version, None when there is no schema."""
        async with self.connection() as connection:
            return await connection.run_sync(schema.version)

    @contextlib.asynccontextmanager
    async def connection(self, *, only_reads: bool = False) -> AsyncIterator[AsyncConnection]:
        """Give a connection; its transaction ends with the block.

        Args:
            only_reads: Each statement stands alone, and nothing is written.

        Raises:
            StoreUnavailable: The database did not answer.
        """
        engine = self._reads if only_reads else self.engine
        try:
            pool = engine.pool
            async with engine.connect() as connection:
                try:
                    yield connection
                finally:  # of a pool that was thrown away meanwhile: nobody else would close it
                    if engine.pool is not pool and not connection.invalidated:
                        await connection.invalidate()
        except StoreError:
            raise
        except FAULTS as error:
            if is_missing(error):
                self._doubt()
            raise explain(error, self.engine) from error

    async def ask(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, only_reads: bool = False
    ) -> T:
        """Let *work* have a connection, in a task of its own; see `connection`.

        Raises:
            StoreUnavailable: The database did not answer.
        """

        async def run() -> T:
            async with self.connection(only_reads=only_reads) as connection:
                return await work(connection)

        if not self._ready:
            await self.connect()
        try:
            return await self.apart(run())
        except StoreUnavailable as error:
            if not (only_reads and is_broken(error)):
                raise
            return await self.apart(run())  # it broke while it rested: others may be whole

    async def ping(self) -> None:
        """Hear from the database that it holds the schema.

        Raises:
            StoreUnavailable: It did not answer, or lacks tables.
            SchemaOutdated: It needs `upgrade`.
            SchemaTooNew: A newer release made it.
        """

        async def work(connection: AsyncConnection) -> bool:
            await at_once(connection)
            return await connection.run_sync(schema.is_whole)

        if await self.ask(work, only_reads=True):
            return
        self._doubt()
        if self._ready or not await self.ask(work, only_reads=True):
            raise StoreUnavailable("the database has lost tables of aiotrack")

    async def apart(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* in a task of its own: a caller's cancellation never reaches a connection."""
        return await self._apart.run(work)

    async def close(self) -> None:
        """Wait a moment for what runs, end the rest of it, and let the database go."""
        await self._indexes.stop()
        await self._apart.end(CLOSE_WAIT)
        await self.release()
        if self._temporary is not None:
            for suffix in ("", "-wal", "-shm", "-lock"):
                self._temporary.with_name(self._temporary.name + suffix).unlink(missing_ok=True)

    async def release(self) -> None:
        """Close every connection; what is needed again opens again."""
        await self._writer.release()
        if self._owned or self._temporary is not None:
            await self._dispose()

    async def _dispose(self) -> None:
        for engine in {self.engine, self._reads}:
            await engine.dispose()

    async def _leave_server(self) -> None:
        """Let go of a server that only reads, or says nothing: another one may write now.

        Nobody gets a connection to it any more; those that rest are closed without waiting for it.
        """
        if self._owned:
            for engine in {self.engine, self._reads}:
                resting = engine.pool
                await engine.dispose(close=False)
                self._apart.begin(greenlet_spawn(resting.dispose))

    async def _check(self) -> None:
        try:
            async with asyncio.timeout(ASK):
                if self._path is not None:
                    await asyncio.to_thread(make_shared, self._path)
                elif not self._is_met:
                    await self._meet()
                found = await self.version()
                await self._learn_time()
        except (TimeoutError, sqlite3.Error, OSError) as error:
            raise explain(error, self.engine) from error
        if found is None:
            found = await self._migrate("head", only_empty=True)
        if found < HEAD:
            raise SchemaOutdated(found, HEAD)
        if found > HEAD:
            raise SchemaTooNew(found, HEAD)

    async def _meet(self) -> None:
        """Find out whether a session is one to the end: then statements are planned only once."""
        async with self.connection() as connection:
            pooled = await is_pooled(connection, is_ours=self._owned)
        if self._may_be_direct and not pooled:
            await self.release()
            self.engine = make_engine(self.engine.url, pooled=False)
            self._reads = make_reading_engine(self.engine.url)
            self._is_direct = True
            self._writer = self._make_writer()
        elif self._may_be_direct:
            log.info("a pooler stands before the database: statements are not prepared")
        self._is_met = True

    async def _migrate(self, revision: str, *, only_empty: bool) -> str:
        """Run migrations, one process at a time, and one at a time in this process."""
        async with schema.alone(), self._patient(is_empty=only_empty) as connection:
            with contextlib.ExitStack() as guard:
                if self._path is not None:  # another process may hold it: never in the loop
                    await asyncio.to_thread(guard.enter_context, file_lock(self._path))
                    # Python's driver begins nothing before DDL: a kill would leave half a schema.
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                else:
                    await schema.take_turn(connection)
                found = before = await connection.run_sync(schema.version)
                if found is not None and found > HEAD:
                    raise SchemaTooNew(found, HEAD)  # Alembic knows no such revision
                if found is None or not only_empty:
                    with schema.quiet():
                        await connection.run_sync(lambda sync: migrations.upgrade(sync, revision))
                    if found is None and revision == "head":
                        await connection.run_sync(create_all, self.keys)
                    await connection.commit()
                    found = await connection.run_sync(schema.version)
        if found != before:
            log.info("the schema is %s now; before: %s", found, before or "none")
        return found or ""

    @contextlib.asynccontextmanager
    async def _patient_engine(self) -> AsyncIterator[AsyncEngine]:
        """Give an engine whose statements may take long; one that was given to us is as it is."""
        if not self._owned:
            yield self.engine
            return
        engine = make_engine(self.engine.url, pooled=not self._is_direct, command_timeout=None)
        try:
            yield engine
        except FAULTS as error:
            raise explain(error, engine) from error
        finally:
            await engine.dispose()

    @contextlib.asynccontextmanager
    async def _patient(self, *, is_empty: bool) -> AsyncIterator[AsyncConnection]:
        """Give a connection whose statements may take long, unless there are no rows yet."""
        if is_empty or self._sqlite or not self._owned:
            async with self.connection() as connection:
                yield connection
            return
        async with self._patient_engine() as engine, engine.connect() as connection:
            yield connection

    async def _learn_time(self) -> None:
        self._learn_at = time.monotonic() + LEARN_AGAIN
        if self._sqlite:  # the file is on this host: its clock is the database's
            self._clock.learn(time.time_ns() // 1000, 0.0)
            return
        async with self.connection() as connection:
            await connection.execute(TIME)  # takes longer than the way there: BEGIN, a plan
            begun = time.monotonic()
            row = await connection.execute(TIME)
            self._clock.learn(int(row.scalar_one()), time.monotonic() - begun)

    def _learn_again(self) -> None:
        """Learn the time again while nobody waits for it."""
        self._learn_at = time.monotonic() + LEARN_AGAIN
        self._apart.begin(self._relearn_time())

    async def _relearn_time(self) -> None:
        with contextlib.suppress(StoreError):  # then the next time
            await self._learn_time()
