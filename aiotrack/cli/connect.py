"""Which database a verb reads, and a tracker on it; or the broker of a project, and its tracker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from taskiq import AsyncBroker
from taskiq.cli.utils import add_cwd_in_path, import_object

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.clock import Clock
from aiotrack.errors import InvalidValue, StoreError, StoreUnavailable
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


Broker = Annotated[
    str, typer.Argument(metavar="MODULE:BROKER", help="The broker, as for taskiq worker.")
]

Modules = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="A module with tasks; may be repeated."),
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


def broker_of(spec: str, modules: list[str]) -> tuple[AsyncBroker, Tracker]:
    """Import a broker and the modules with its tasks, and find its tracker.

    Raises:
        InvalidValue: There is no such broker, or it has no tracker.
    """
    broker = import_broker(spec, modules)
    for middleware in broker.middlewares:
        if isinstance(middleware, TrackerMiddleware):
            return broker, middleware.tracker
    raise InvalidValue(f"{spec} has no TrackerMiddleware: nothing of it is recorded")


def import_broker(spec: str, modules: list[str]) -> AsyncBroker:
    """Import a broker and the modules with its tasks.

    Raises:
        InvalidValue: There is no such broker.
    """
    try:
        broker = import_object(spec)
        with add_cwd_in_path():
            for module in modules:
                __import__(module)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidValue(f"{spec}: {error}; write it as for taskiq worker") from error
    if not isinstance(broker, AsyncBroker):
        raise InvalidValue(f"{spec} is no broker, but {type(broker).__name__}")
    return broker
