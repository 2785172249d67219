"""Which database a verb reads, and a tracker on it for the time of the verb."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from aiotrack import Tracker
from aiotrack.clock import Clock
from aiotrack.errors import StoreError, StoreUnavailable
from aiotrack.repository import Repository
from aiotrack.repository.dialects import shown_url
from aiotrack.settings import DEFAULT_DATABASE, Settings

T = TypeVar("T")

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        "-d",
        metavar="URL",
        help="Default: AIOTRACK_DATABASE_URL, else ./aiotrack.db.",
    ),
]


def url_of(database: str | None) -> str:
    """Give the URL of the database that is meant.

    Raises:
        InvalidSetting: An AIOTRACK variable cannot be used.
    """
    return database or Settings.load().database_url or DEFAULT_DATABASE


def read(
    database: str | None, work: Callable[[Tracker], Awaitable[T]], *, redis: str | None = None
) -> T:
    """Do *work* with a tracker on a database that has the schema; reading creates nothing.

    Args:
        database: URL; None takes the setting.
        work: What is done.
        redis: URL; None takes the setting.

    Raises:
        StoreUnavailable: There is no such database, or it does not answer.
        StoreError: It has no aiotrack schema, or not the one of this release.
    """
    return asyncio.run(_read(url_of(database), work, redis))


async def _read(url: str, work: Callable[[Tracker], Awaitable[T]], redis: str | None) -> T:
    found, where = await version(url)
    if found is None:
        raise StoreError(f"{where} holds no executions: is that the database? (--database)")
    async with Tracker(url, redis=redis) as tracker:
        return await work(tracker)


async def version(url: str) -> tuple[str | None, str]:
    """Give the version of a database's schema (None without one), and its URL without password.

    Raises:
        StoreUnavailable: There is no such database, or it does not answer.
    """
    tracker = Tracker(url)  # refuses what is no URL
    repository = Repository(url, clock=Clock(), pgbouncer=tracker.options.pgbouncer)
    try:
        where = shown_url(repository.engine.url)
        if repository.dialect == "sqlite":
            _check_file(repository.engine.url.database or "")
        return await repository.version(), where
    finally:
        await repository.close()


def _check_file(path: str) -> None:
    if not Path(path).exists():
        raise StoreUnavailable(f"there is no file {path}: is that the database? (--database)")
