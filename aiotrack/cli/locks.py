"""``aiotrack locks``: who holds which lock; ``aiotrack locks release`` takes one away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, TypeVar

import typer

from aiotrack import Tracker
from aiotrack.cli import pages
from aiotrack.cli.codes import NO
from aiotrack.cli.connect import By, Database, Reason, read
from aiotrack.cli.output import Json, console, print_json
from aiotrack.errors import AioTrackError
from aiotrack.locks.names import listed_name
from aiotrack.locks.verbs import Listing
from aiotrack.terminal import one_line

T = TypeVar("T")

Redis = Annotated[
    str | None, typer.Option("--redis", "-r", metavar="URL", help="Default: AIOTRACK_REDIS_URL.")
]

_app = typer.Typer(invoke_without_command=True)


@_app.callback()
def list_(
    context: typer.Context,
    redis: Redis = None,
    task_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what this execution holds.")
    ] = None,
    as_json: Json = False,
) -> None:
    """See who holds which lock; take one away.

    Alone it lists the locks that are held.
    """
    if context.invoked_subcommand is not None:
        return
    held = _ask(redis, lambda tracker: tracker.locks.list(task_id=task_id))
    if as_json:
        print_json({"items": [asdict(lock) for lock in held]})
    else:
        pages.print_locks(console(), held)


@_app.command()
def release(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As the list shows it.")],
    fence: Annotated[
        int, typer.Option(metavar="N", help="Of the holder that is meant: the next keeps it.")
    ],
    by: By = None,
    reason: Reason = None,
    redis: Redis = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Take a lock from its holder.

    The holder hears of it at once. Exit code 1 when nobody holds it with this fence. The database
    is for the audit alone: without one the lock is free all the same, and a warning says so.
    """
    is_freed = _ask(redis, lambda tracker: Listing(tracker).force_release(name, fence=fence))
    if is_freed:
        _record(database, redis, name, fence, by, reason)
    if as_json:
        print_json({"name": name, "fence": fence, "released": is_freed})
    else:
        told = "is free" if is_freed else f"is not held with fence {fence}"
        typer.echo(f"{one_line(name)} {told}")
    if not is_freed:
        raise typer.Exit(NO)


def _record(
    database: str | None,
    redis: str | None,
    name: str,
    fence: int,
    by: str | None,
    reason: str | None,
) -> None:
    """Tell the audit, when Redis has done it: no database keeps a lock from being freed."""
    target, before = f"lock:{listed_name(name)}", {"fence": fence}

    async def tell(tracker: Tracker) -> None:
        await tracker.audit.append("lock.release", target, by=by, reason=reason, before=before)

    try:
        read(database, tell, redis=redis)
    except AioTrackError as error:
        told = f"aiotrack: the audit does not know of it: {error}"
        typer.echo(one_line(told), err=True)


def _ask(redis: str | None, work: Callable[[Tracker], Awaitable[T]]) -> T:
    """Ask a Redis about its locks; no database is opened for that."""

    async def ask() -> T:
        tracker = Tracker("sqlite+aiosqlite://", redis=redis)
        try:
            return await work(tracker)
        finally:
            await tracker.shutdown()

    return asyncio.run(ask())


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.add_typer(_app, name="locks")
