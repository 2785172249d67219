"""Makes the indexes of metadata keys beside the work, by one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from aiotrack.repository.keyed import create_index, index_name, is_indexable
from aiotrack.repository.sqlite import BUSY_TIMEOUT, file_lock
from aiotrack.repository.statements import EXECUTIONS

log = logging.getLogger(__name__)

LOCK: Final = 0x61696F696E646578
"""Advisory lock of whoever makes these indexes: the letters 'aioindex'."""

DELAY: Final = 3.0
"""Seconds after a start: a process that only looks is gone by then, also where nobody said that it
does. What it began it would leave unfinished."""

PAUSE: Final = 2.0
"""Seconds between two looks whether another process has made them."""

SMALL: Final = 200_000
"""Rows of a SQLite file, which cannot be written meanwhile: measured at 2 us a row."""

GRACE, STOP = 0.2, 0.5
"""Seconds at a stop for what is nearly done, and for the end that is asked for then. (Cancelled
while it closes a connection, SQLAlchemy logs an error and its traceback.)"""

_FOUND = text(
    "SELECT c.relname, i.indisvalid, EXISTS (SELECT FROM pg_stat_progress_create_index p "
    "WHERE p.index_relid = c.oid) AS is_made "
    "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    f"WHERE i.indrelid = '{EXECUTIONS}'::regclass"
)


class KeyIndexes:
    """The indexes of metadata keys in one database.

    Args:
        keys: Of `Settings.indexed_metadata`.
        path: The file of SQLite; None for Postgres.
        engine: Gives an engine of Postgres without a limit for the time of a statement.
    """

    def __init__(
        self,
        keys: Sequence[str],
        path: Path | None,
        engine: Callable[[], AbstractAsyncContextManager[AsyncEngine]],
    ) -> None:
        self._keys = keys
        self._path = path
        self._engine = engine
        self._task: asyncio.Task[None] | None = None
        self._is_making = False
        self._is_left = False

    def leave(self) -> None:
        """Let `start` do nothing: what is stopped half-way stays as an index that no plan uses."""
        self._is_left = True

    def start(self) -> None:
        """Make what is missing while everything else goes on. Harmless when repeated."""
        if self._keys and self._task is None and not self._is_left:
            self._task = asyncio.create_task(self._try())

    async def stop(self) -> None:
        """End what `start` began; whoever starts next goes on."""
        if self._task is not None and not self._task.done():
            if self._is_making:
                await asyncio.wait([self._task], timeout=GRACE)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP)

    async def _try(self) -> None:
        await asyncio.sleep(DELAY)
        self._is_making = True
        try:
            await self.make(whatever_size=False)
        except Exception as error:
            log.warning("not every key of indexed_metadata has its index: %s", error)

    async def missing(self) -> list[str]:
        """Give the keys that have none yet."""
        if not self._keys:
            return []
        if self._path is not None:
            return await asyncio.to_thread(_missing_on_sqlite, self._path, self._keys)
        async with self._engine() as engine, engine.connect() as connection:
            return [key for key, _ in await _missing(connection, self._keys)]

    async def make(self, *, whatever_size: bool) -> None:
        """Make what is missing, and wait for it.

        Args:
            whatever_size: Also in a large file, which cannot be written meanwhile.
        """
        if not self._keys:
            return
        if self._path is not None:
            await asyncio.to_thread(
                _create_on_sqlite, self._path, self._keys, whatever_size=whatever_size
            )
            return
        async with self._engine() as engine:
            await _create_on_postgres(engine, self._keys)


def create_all(connection: Connection, keys: Iterable[str]) -> None:
    """Make the indexes in a schema that has no rows yet."""
    dialect = connection.dialect.name
    for key in keys:
        if is_indexable(key, dialect):
            connection.exec_driver_sql(create_index(key, dialect))


async def _create_on_postgres(engine: AsyncEngine, keys: Sequence[str]) -> None:
    """Make what is missing, without stopping any writer; wait while another process does."""
    while True:
        # The lock is a transaction's, which a pooler understands.
        async with engine.connect() as guard:
            await guard.execution_options(isolation_level="READ COMMITTED")
            if not await _missing(guard, keys):
                return
            if (await guard.execute(text(f"SELECT pg_try_advisory_xact_lock({LOCK})"))).scalar():
                missing = await _missing(guard, keys)
                await _let_go(guard)
                for key, is_broken in missing:
                    await _create(engine, key, is_broken=is_broken)
                return
        await asyncio.sleep(PAUSE)


async def _let_go(guard: AsyncConnection) -> None:
    """Give up the snapshot, for whose end CREATE INDEX CONCURRENTLY would wait, not the lock.

    A plain query ends the portal of the statement before, which has it; READ COMMITTED takes none
    for longer than a statement.
    """
    driver: Any = (await guard.get_raw_connection()).driver_connection
    await driver.execute("SET LOCAL idle_in_transaction_session_timeout = 0")


async def _missing(connection: AsyncConnection, keys: Sequence[str]) -> list[tuple[str, bool]]:
    """Give the keys without an index, and whether an unfinished one is left of a try before."""
    rows = (await connection.execute(_FOUND)).all()
    found = {name: is_valid or is_made for name, is_valid, is_made in rows}
    names = {key: index_name(key) for key in keys}
    return [(key, name in found) for key, name in names.items() if not found.get(name)]


async def _create(engine: AsyncEngine, key: str, *, is_broken: bool) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        if is_broken:
            await connection.exec_driver_sql(
                f'DROP INDEX CONCURRENTLY IF EXISTS "{index_name(key)}"'
            )
        await connection.exec_driver_sql(create_index(key, "postgresql", concurrently=True))
        log.info("metadata key %r has an index now", key)


def _create_on_sqlite(path: Path, keys: Sequence[str], *, whatever_size: bool) -> None:
    """Make what is missing; a large file only when *whatever_size*, since writers wait for it."""
    with contextlib.closing(
        sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
    ) as file:
        missing = _without(file, keys)
        if not missing:
            return
        (rows,) = file.execute(f"SELECT max(id) - min(id) FROM {EXECUTIONS}").fetchone()
        if (rows or 0) > SMALL and not whatever_size:
            log.warning("%s is large: aiotrack db upgrade makes the indexes of metadata", path)
            return
        for key in missing:
            with file_lock(path):
                file.execute(create_index(key, "sqlite"))


def _missing_on_sqlite(path: Path, keys: Sequence[str]) -> list[str]:
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as file:
        return _without(file, keys)


def _without(file: sqlite3.Connection, keys: Sequence[str]) -> list[str]:
    known = {row[0] for row in file.execute("SELECT name FROM sqlite_master")}
    return [key for key in keys if is_indexable(key, "sqlite") and index_name(key) not in known]
