"""What an unreachable database raises, and what to say about it."""

from __future__ import annotations

import asyncpg
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from aiotrack.errors import StoreUnavailable
from aiotrack.repository.dialects import shown_url

FAULTS = (
    SQLAlchemyError,
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What an unreachable database raises: drivers let raw socket errors through."""


def is_broken(error: StoreUnavailable) -> bool:
    """Tell whether what failed was one connection that had been good."""
    return isinstance(error.__cause__, DBAPIError) and error.__cause__.connection_invalidated


_MISSING = {"42P01", "42703", "3F000"}
"""SQLSTATE of a statement that names a table, column or schema that is not there."""


def is_missing(error: BaseException) -> bool:
    """Tell whether a part of the schema is not there any more."""
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None) in _MISSING


def explain(error: BaseException, engine: AsyncEngine) -> StoreUnavailable:
    """Say which database failed and what to try, without its password."""
    where = shown_url(engine.url)
    cause = getattr(error, "orig", None) or error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    advice = ""
    if state == "3D000":
        advice = f": create it first (createdb {engine.url.database})"
    elif state in {"28P01", "28000"}:
        advice = ": check user and password in the URL"
    elif state in {"26000", "42P05"}:
        advice = (
            ": a pooler stands before it: set AIOTRACK_PGBOUNCER=true; an engine of your own needs "
            "connect_args={'statement_cache_size': 0, ...}"
        )
    elif isinstance(error, (OSError, TimeoutError)) and not isinstance(error, DBAPIError):
        advice = ": is the server running, and are host and port right?"
    elif isinstance(error, InvalidRequestError):
        advice = ": check the URL's driver"
    return StoreUnavailable(f"cannot use the database {where}: {cause}{advice}")
