"""Which database a verb reads, and a tracker on it; or the broker of a project, and its tracker."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from taskiq import AsyncBroker, SendTaskError
from taskiq.cli.utils import add_cwd_in_path, import_object

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.cli.codes import BrokerUnavailable
from aiotrack.clock import Clock
from aiotrack.errors import AioTrackError, InvalidValue, StoreError, StoreUnavailable
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

By = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Who asks for it.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why.")]


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
    tracker = Tracker(url, redis=redis)
    tracker.core().repository.leave_indexes()  # Ctrl-C would leave one half made
    async with tracker:
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

    What they print while they are imported goes to stderr: stdout is for what was asked.

    Raises:
        InvalidValue: There is no such broker, or a module raises.
    """
    try:
        with redirect_stdout(sys.stderr), add_cwd_in_path():
            broker = import_object(spec)
            for module in modules:
                __import__(module)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidValue(f"{spec}: {error}; write it as for taskiq worker") from error
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        raise InvalidValue(f"{spec} cannot be imported: {told}") from error
    if not isinstance(broker, AsyncBroker):
        raise InvalidValue(f"{spec} is no broker, but {type(broker).__name__}")
    return broker


@asynccontextmanager
async def started(spec: str, modules: list[str]) -> AsyncIterator[Tracker]:
    """Start a project's broker, and give its tracker.

    Raises:
        InvalidValue: There is no such broker, or it has no tracker.
        BrokerUnavailable: It does not start.
    """
    broker, tracker = broker_of(spec, modules)
    try:
        await broker.startup()
    except AioTrackError:
        raise
    except Exception as error:
        told = str(error) or type(error).__name__
        raise BrokerUnavailable(f"the broker {spec} does not start: {told}") from error
    try:
        yield tracker
    except SendTaskError as error:
        raise BrokerUnavailable(f"the broker {spec} does not take it: {error}") from error
    finally:
        await broker.shutdown()
