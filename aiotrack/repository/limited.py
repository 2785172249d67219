"""Two seconds for the statements of one read, ended inside the database, not by a cancel here.

A cancelled await leaves a driver's connection in an unknown state; a statement that the server
ends comes back as an error like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from sqlalchemy import Executable, RowMapping, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.errors import QueryTimeout

LIMIT: Final = 2.0
"""Seconds for a query that no index serves."""

_MARGIN: Final = 0.1
"""Seconds that the server's limit is below the driver's own, which would look like an outage."""

_CANCELED: Final = "57014"
"""SQLSTATE of a statement that took too long."""

_SET: Final = text(
    "SELECT set_config('statement_timeout', :left, true), "
    "set_config('plan_cache_mode', 'force_custom_plan', true), set_config('jit', 'off', true)"
)
"""For this transaction: a time limit; a plan for these very values, since one for all would walk
through everything for a rare one; and no compiling, which takes longer than reading a page."""

Fetch = Callable[[Executable], Awaitable[Sequence[RowMapping]]]


@contextlib.asynccontextmanager
async def limited(connection: AsyncConnection) -> AsyncIterator[Fetch]:
    """Give a function that runs a statement and gives its rows, within the limit for all.

    Raises:
        QueryTimeout: The time was over.
    """
    if connection.dialect.name == "sqlite":
        guard = _limited_sqlite(connection)
    else:
        guard = _limited_postgres(connection)
    async with guard as fetch:
        yield fetch


@contextlib.asynccontextmanager
async def _limited_postgres(connection: AsyncConnection) -> AsyncIterator[Fetch]:
    # SET LOCAL needs a transaction, also on an engine whose owner chose AUTOCOMMIT.
    await connection.execution_options(isolation_level="READ COMMITTED")
    end = time.monotonic() + LIMIT - _MARGIN

    async def fetch(statement: Executable) -> Sequence[RowMapping]:
        left = max(1, int((end - time.monotonic()) * 1000))
        await connection.execute(_SET, {"left": str(left)})
        return (await connection.execute(statement)).mappings().all()

    try:
        yield fetch
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _CANCELED:
            raise QueryTimeout(LIMIT) from error
        raise


@contextlib.asynccontextmanager
async def _limited_sqlite(connection: AsyncConnection) -> AsyncIterator[Fetch]:
    driver: Any = (await connection.get_raw_connection()).driver_connection
    interrupts: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    timer = loop.call_later(LIMIT, lambda: interrupts.append(loop.create_task(driver.interrupt())))

    async def fetch(statement: Executable) -> Sequence[RowMapping]:
        return (await connection.execute(statement)).mappings().all()

    try:
        yield fetch
    except DBAPIError as error:
        if interrupts:
            raise QueryTimeout(LIMIT) from error
        raise
    finally:
        timer.cancel()
        await asyncio.gather(*interrupts)
