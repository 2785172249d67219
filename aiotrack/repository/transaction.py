"""Transactions that write what is no report: settings of ours, sums, marks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.repository.sqlite import file_lock


@contextlib.asynccontextmanager
async def transaction(connection: AsyncConnection, path: Path | None) -> AsyncIterator[None]:
    """Commit at the end of the block, or nothing of it.

    Args:
        connection: Nothing was run on it yet.
        path: The file of an SQLite database, which has one writer at a time; else None.
    """
    with contextlib.ExitStack() as guard:
        if path is not None:  # another process may hold it: never in the loop
            await asyncio.to_thread(guard.enter_context, file_lock(path))
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # also on an engine whose owner chose AUTOCOMMIT
            await connection.execution_options(isolation_level="READ COMMITTED")
        yield
        await connection.commit()
