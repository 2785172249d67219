"""The schema: its version, and who may change it: one process, and one thread of it, at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.errors import StoreUnavailable
from aiotrack.repository.columns import HEAD, VERSION_TABLE
from aiotrack.repository.statements import EXECUTIONS

WAIT = 30.0
"""Seconds to wait while another process makes the schema: a guess, many starts on a busy host."""

LOCK = 0x61696F747261636B
"""Advisory lock of whoever makes the schema: the letters 'aiotrack'."""

_migrating = threading.Lock()
"""Alembic keeps the migration that runs in a global of the process, whatever the database."""


def _after_fork() -> None:
    """Give a child a lock that nobody holds: the thread that did is not in it."""
    global _migrating
    _migrating = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.asynccontextmanager
async def alone() -> AsyncIterator[None]:
    """Hold `_migrating` without stopping the loop, in which its holder may be at work."""
    lock = _migrating
    while not lock.acquire(blocking=False):  # noqa: ASYNC110 - loops share no event
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Alembic's twenty lines about one schema out of a log; whoever set it a level wants them.

    For whoever is `alone`: what other threads do with Alembic is quiet, too.
    """
    logger = logging.getLogger("alembic")
    if logger.level:
        yield
        return
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(logging.NOTSET)


async def take_turn(connection: AsyncConnection) -> None:
    """Hold `LOCK` until the transaction ends.

    Asked for again and again: one long wait would end with the driver's limit for a command.
    """
    query = text(f"SELECT pg_try_advisory_xact_lock({LOCK})")
    end = time.monotonic() + WAIT
    while not (await connection.execute(query)).scalar_one():
        if time.monotonic() >= end:
            raise StoreUnavailable(
                f"another process has been changing the schema for over {WAIT:g} s"
            )
        await asyncio.sleep(0.05)


def version(connection: Connection) -> str | None:
    """Read the schema's version without loading Alembic."""
    if not _has(connection, VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).first()
    return None if found is None else str(found[0])


def is_whole(connection: Connection) -> bool:
    """Tell whether there still is what was found or made at first: no older one, nor none.

    A newer one may do: processes of two releases work side by side while one replaces the other.
    """
    return (version(connection) or "") >= HEAD and _has(connection, EXECUTIONS)


def _has(connection: Connection, table: str) -> bool:
    if connection.dialect.name == "sqlite":
        query = text("SELECT 1 FROM sqlite_master WHERE name = :name")
        return connection.execute(query, {"name": table}).first() is not None
    return (
        connection.execute(text("SELECT to_regclass(:name)"), {"name": table}).scalar() is not None
    )
