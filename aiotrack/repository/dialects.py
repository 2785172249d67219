"""What differs between databases before the first statement: URLs, engines, connection options."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from aiotrack.errors import InvalidSetting
from aiotrack.repository.hosts import HOST_TIMEOUT, Hosts, hosts_of, spread_hosts
from aiotrack.repository.sqlite import PRAGMAS
from aiotrack.settings import driver_of, masked

log = logging.getLogger(__name__)

COMMAND_TIMEOUT = 2.0
"""Seconds for one command of a read: an outage must not hang a caller."""

LOCK_TIMEOUT = COMMAND_TIMEOUT + 1.0
"""Seconds that a session waits for a lock: for those that could not be told that nobody waits for
their statement. Not for a whole statement: a COMMIT that is cut short tells of success."""

POOL_SIZE = 2
"""Connections of one process: one is the writer's, one serves reads; more come as needed."""


def parse_url(text: str) -> URL:
    """Read a database URL, with our drivers filled in; Postgres may have several hosts.

    Raises:
        InvalidSetting: It is no URL, or names a database that aiotrack does not know.
    """
    try:
        url = make_url(spread_hosts(text))
    except (ArgumentError, ValueError):
        raise InvalidSetting(
            "database",
            f"{masked(text)!r} is not a URL: write postgresql+asyncpg://user:password@host/name "
            "or sqlite+aiosqlite:///file.db",
        ) from None
    return url.set(drivername=driver_of(url.drivername))


def shown_url(url: URL) -> str:
    """Give a URL without its passwords, also those in its query."""
    hidden = {name: "..." for name in url.query if name.lower() in {"password", "sslpassword"}}
    if url.host is not None:  # an "@" in it ends a password that was not percent-encoded
        url = url.set(host=url.host.rpartition("@")[2])
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


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


_IS_READING = "aiotrack_is_reading"
"""The execution option of connections whose sessions only read."""

READING = {
    "statement_timeout": "1900",  # milliseconds; below the driver's own, which looks like an outage
    "jit": "off",
    "plan_cache_mode": "force_custom_plan",
}
"""What sessions that only read are set to. Compiling takes longer than reading a page, and one plan
for all values would walk through everything for a rare one."""


def make_reading_engine(url: URL) -> AsyncEngine:
    """Make an engine of Postgres whose sessions only read, each statement on its own.

    What every read would else say first and last, `READING` says once: three round trips are one.
    Not through a pooler: there nothing outlives a transaction.
    """
    options = _options(url, COMMAND_TIMEOUT, pooled=False)
    options["server_settings"] = options["server_settings"] | READING
    return create_async_engine(
        url,
        connect_args=options,
        execution_options={"isolation_level": "AUTOCOMMIT", _IS_READING: True},
        json_deserializer=read_json,
        pool_size=1,
        max_overflow=4,
        pool_timeout=HOST_TIMEOUT,
    )


def is_reading(connection: AsyncConnection) -> bool:
    """Tell whether its engine was made by `make_reading_engine`."""
    return _IS_READING in connection.engine.get_execution_options()


def make_engine(
    url: URL, *, pooled: bool, command_timeout: float | None = COMMAND_TIMEOUT
) -> AsyncEngine:
    """Make an engine whose every wait is bounded.

    Args:
        url: From `parse_url`.
        pooled: Each transaction may meet another server: nothing may outlive one. This is right
            for every server, but each statement is planned anew.
        command_timeout: Seconds for a statement; None for no limit.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, pool_pre_ping=False, json_deserializer=read_json)
        event.listen(engine.sync_engine, "connect", _sqlite_connect)
        return engine
    try:
        return create_async_engine(
            url,
            connect_args=_options(url, command_timeout, pooled=pooled),
            json_deserializer=read_json,
            pool_size=POOL_SIZE,
            max_overflow=3,
            pool_timeout=HOST_TIMEOUT,
        )
    except (SQLAlchemyError, ImportError) as error:
        raise InvalidSetting("database", str(error)) from error


_decode = json.JSONDecoder().raw_decode  # what `loads` does, without a look for spaces


def read_json(text: str) -> Any:
    """Read stored JSON; most arguments and metadata are empty, and a page has two hundred."""
    if text == "{}":
        return {}
    return [] if text == "[]" else _decode(text)[0]


def _options(url: URL, command_timeout: float | None, *, pooled: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"timeout": HOST_TIMEOUT, "command_timeout": command_timeout}
    if pooled:
        options |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": str,  # "": a name may mean another client's statement
        }
    else:
        options["server_settings"] = {
            "application_name": "aiotrack",
            "synchronous_commit": "on",
        }
        if command_timeout is not None:
            options["server_settings"]["lock_timeout"] = f"{LOCK_TIMEOUT * 1000:.0f}"
    if len(hosts_of(url)) > 1:
        options["async_creator_fn"] = Hosts(url).connect
    return options


def _sqlite_connect(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


async def at_once(connection: AsyncConnection) -> None:
    """Read without BEGIN and ROLLBACK: they are half the time of a read by key."""
    if connection.dialect.name == "postgresql" and not is_reading(connection):
        await connection.execution_options(isolation_level="AUTOCOMMIT")
