"""Two seconds for the statements of one read, ended inside the database, not by a cancel here.

A cancelled await leaves a driver's connection in an unknown state; a statement that the server
ends comes back as an error like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import Executable, RowMapping
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.errors import QueryTimeout
from aiotrack.repository.dialects import at_once, is_reading

LIMIT: Final = 2.0
"""Seconds for a query that no index serves."""

_MARGIN: Final = 0.1
"""Seconds that the server's limit is below the driver's own, which would look like an outage."""

_CANCELED: Final = "57014"
"""SQLSTATE of a statement that took too long."""

_SELECTING: Final = (
    "BEGIN READ ONLY; SET LOCAL jit = off; SET LOCAL plan_cache_mode = force_custom_plan; "
)
"""No compiling, which takes longer than reading a page; and a plan for these very values: one for
all would walk through everything for a rare one."""

_COUNTING: Final = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
    "SET LOCAL jit = off; SET LOCAL enable_sort = off; "
)
"""A planner cannot guess how few groups an expression makes, and would sort a million rows by text
to count them: measured at three times the seconds."""

Parameters = Mapping[str, Any]


class Fetch(Protocol):
    """Runs a statement and gives its rows."""

    def __call__(
        self, statement: Executable, parameters: Parameters | None = None, /
    ) -> Awaitable[Sequence[RowMapping]]:
        """Run *statement* with the values of its parameters."""


@contextlib.asynccontextmanager
async def limited(
    connection: AsyncConnection, *, is_snapshot: bool = False
) -> AsyncIterator[Fetch]:
    """Give a function that runs a statement and gives its rows, within the limit for all.

    Args:
        connection: Nothing was run on it yet.
        is_snapshot: All statements see the database as it is at the first.

    Raises:
        QueryTimeout: The time was over.
    """
    if connection.dialect.name == "sqlite":
        guard = _limited_sqlite(connection, is_snapshot=is_snapshot)
    else:
        guard = _limited_postgres(connection, is_snapshot=is_snapshot)
    async with guard as fetch:
        yield fetch


@contextlib.asynccontextmanager
async def _limited_postgres(
    connection: AsyncConnection, *, is_snapshot: bool
) -> AsyncIterator[Fetch]:
    # Said to the driver, all in one round trip: SQLAlchemy would take one for each.
    await at_once(connection)
    is_set = is_reading(connection) and not is_snapshot  # its session has all but what is left
    beginning = _COUNTING if is_snapshot else _SELECTING
    end = time.monotonic() + LIMIT - _MARGIN
    told, has_begun = LIMIT - _MARGIN if is_set else 0.0, False

    async def fetch(
        statement: Executable, parameters: Parameters | None = None, /
    ) -> Sequence[RowMapping]:
        nonlocal told, beginning, has_begun
        left = max(0.001, end - time.monotonic())
        if not left <= told <= left + _MARGIN / 2:
            limit = f"SET LOCAL statement_timeout = {int(left * 1000)}"
            await _tell(connection, f"{beginning}{limit}")
            told, beginning, has_begun = left, "", True
        return (await connection.execute(statement, parameters)).mappings().all()

    try:
        yield fetch
        if has_begun:
            await _tell(connection, "ROLLBACK")
    except DBAPIError as error:
        if has_begun and not connection.invalidated:
            await _tell(connection, "ROLLBACK")
        if getattr(error.orig, "sqlstate", None) == _CANCELED:
            raise QueryTimeout(LIMIT) from error
        raise
    except BaseException:
        if not connection.invalidated:  # in the middle of what nobody knows
            await connection.invalidate()
        raise


async def _tell(connection: AsyncConnection, words: str) -> None:
    """Say something to the driver; SQLAlchemy must hear when the connection is broken."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    try:
        await driver.execute(words)
    except BaseException:
        driver.terminate()
        await connection.invalidate()
        raise


@contextlib.asynccontextmanager
async def _limited_sqlite(
    connection: AsyncConnection, *, is_snapshot: bool
) -> AsyncIterator[Fetch]:
    if is_snapshot:  # Python's driver begins nothing before a SELECT
        await connection.exec_driver_sql("BEGIN")
    driver: Any = (await connection.get_raw_connection()).driver_connection
    interrupts: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    timer = loop.call_later(LIMIT, lambda: interrupts.append(loop.create_task(driver.interrupt())))

    async def fetch(
        statement: Executable, parameters: Parameters | None = None, /
    ) -> Sequence[RowMapping]:
        return (await connection.execute(statement, parameters)).mappings().all()

    try:
        yield fetch
    except DBAPIError as error:
        if interrupts:
            raise QueryTimeout(LIMIT) from error
        raise
    finally:
        timer.cancel()
        await asyncio.gather(*interrupts)
