"""What differs between databases before the first statement: URLs, engines, connection options."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aiotrack.errors import InvalidSetting
from aiotrack.repository.sqlite import PRAGMAS

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 2.0
"""Seconds to reach Postgres, and for one command of a read: an outage must not hang a caller."""

POOL_SIZE = 2
"""Connections of one process: one is the writer's, one serves reads; more come as needed."""

_DRIVERS = {
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}


def parse_url(text: str) -> URL:
    """Read a database URL, with our drivers filled in.

    Raises:
        InvalidSetting: It is no URL, or names a database that aiotrack does not know.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InvalidSetting(
            "database",
            f"{_masked(text)!r} is not a URL: write postgresql+asyncpg://user:password@host/name "
            "or sqlite+aiosqlite:///file.db",
        ) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise InvalidSetting(
            "database",
            f"{url.drivername!r} is not supported: use postgresql+asyncpg:// or sqlite+aiosqlite://",
        )
    return url.set(drivername=driver)


def _masked(text: str) -> str:
    head, at, tail = text.rpartition("@")
    return f"...@{tail}" if at and head else text


def sqlite_path(url: URL) -> tuple[Path, bool]:
    """Give the database's file, and whether it goes away with us.

    A database "in memory" is a temporary file: several connections and threads must see it.
    """
    if url.database in {None, "", ":memory:"}:
        handle = tempfile.NamedTemporaryFile(prefix="aiotrack-", suffix=".db", delete=False)  # noqa: SIM115
        handle.close()
        return Path(handle.name), True
    path = Path(str(url.database)).absolute()
    if not path.parent.is_dir():
        raise InvalidSetting("database", f"the folder {path.parent} does not exist: make it first")
    return path, False


def make_engine(
    url: URL, *, pgbouncer: bool, command_timeout: float | None = CONNECT_TIMEOUT
) -> AsyncEngine:
    """Make an engine whose every wait is bounded, but for commands without *command_timeout*."""
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, pool_pre_ping=False)
        event.listen(engine.sync_engine, "connect", _sqlite_connect)
        return engine
    options: dict[str, Any] = {"timeout": CONNECT_TIMEOUT, "command_timeout": command_timeout}
    if pgbouncer:
        options |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"aiotrack_{uuid4().hex}",
        }
    else:
        options["server_settings"] = {
            "application_name": "aiotrack",
            "synchronous_commit": "on",
        }
    try:
        return create_async_engine(
            url,
            connect_args=options,
            pool_size=POOL_SIZE,
            max_overflow=3,
            pool_timeout=CONNECT_TIMEOUT,
        )
    except (SQLAlchemyError, ImportError) as error:
        raise InvalidSetting("database", str(error)) from error


def _sqlite_connect(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(pragma)
    cursor.close()
