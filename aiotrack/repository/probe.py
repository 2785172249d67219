"""What stands at the other end, asked once before it is used; what is risky is said in the log."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

log = logging.getLogger(__name__)

TIMEOUT = 2.0
"""Seconds for the question: an engine that was given to us may have no limit."""

_TABLES = "ARRAY[to_regclass('aiotrack_executions'), to_regclass('aiotrack_attempts')]"

_FACTS = f"""
SELECT pg_backend_pid() AS pid,
    current_setting('synchronous_commit') = 'off' AS is_late,
    current_setting('fsync') = 'off' AS is_unsafe,
    EXISTS (SELECT FROM pg_prepared_statements WHERE statement LIKE '%AS is_cached%') AS is_cached,
    (SELECT string_agg(relname, ', ') FROM pg_class
        WHERE oid = ANY({_TABLES}) AND relpersistence = 'u') AS unlogged
"""


async def is_pooled(connection: AsyncConnection, *, is_ours: bool) -> bool:
    """Whether a pooler stands between us and Postgres; warns of what a crash would lose.

    A pooler names a process of its own invention, as each transaction may meet another server.

    Args:
        connection: A fresh one.
        is_ours: Its options are ours; else they may not fit a pooler.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    facts = await driver.fetchrow(_FACTS, timeout=TIMEOUT)
    if facts["is_late"]:
        log.warning(
            "the server runs with synchronous_commit=off: a crash loses its last commits; "
            "those of aiotrack wait for the disk all the same"
        )
    if facts["is_unsafe"]:
        log.warning("the server runs with fsync=off: a power cut may lose or spoil every record")
    if facts["unlogged"]:
        log.warning(
            "a crash of the server empties %s, which is UNLOGGED: type  ALTER TABLE ... SET LOGGED",
            facts["unlogged"],
        )
    found = bool(driver.get_server_pid() != facts["pid"])
    if found and facts["is_cached"] and not is_ours:
        log.error(
            "a pooler stands before the database, and the engine given to aiotrack keeps prepared "
            "statements: make it with connect_args={'statement_cache_size': 0, "
            "'prepared_statement_cache_size': 0, 'prepared_statement_name_func': str}"
        )
    return found
