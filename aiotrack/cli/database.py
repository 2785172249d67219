"""``aiotrack db upgrade``, ``check`` and ``sql``: the schema."""

from __future__ import annotations

import asyncio
import io
import sys
from enum import StrEnum
from typing import Annotated

import typer

from aiotrack import Tracker
from aiotrack.cli.codes import DONE, NO
from aiotrack.cli.connect import Database, url_of, version
from aiotrack.cli.output import Json, print_json
from aiotrack.errors import InvalidValue
from aiotrack.repository.columns import HEAD
from aiotrack.repository.migrations import config

_app = typer.Typer(help="Look after the schema.", no_args_is_help=True)


class Dialect(StrEnum):
    """The databases that aiotrack speaks to."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


@_app.command()
def upgrade(database: Database = None, as_json: Json = False) -> None:
    """Bring the schema to the version of this release."""
    reached = asyncio.run(_upgrade(url_of(database)))
    if as_json:
        print_json({"version": reached})
    else:
        typer.echo(f"the schema is at {reached}")


async def _upgrade(url: str) -> str:
    tracker = Tracker(url)
    try:
        return await tracker.upgrade()
    finally:
        await tracker.shutdown()


@_app.command()
def check(database: Database = None, as_json: Json = False) -> None:
    """Say whether the schema fits this release.

    Exit code 1 if it does not.
    """
    found, where = asyncio.run(version(url_of(database)))
    fits = found == HEAD
    if as_json:
        print_json({"ok": fits, "database": where, "version": found, "needed": HEAD})
    else:
        typer.echo(_verdict(found, where))
    raise typer.Exit(DONE if fits else NO)


def _verdict(found: str | None, where: str) -> str:
    if found == HEAD:
        return f"{where}: the schema is at {found}, as it must"
    if found is None:
        return f"{where}: there is no schema yet: type  aiotrack db upgrade"
    if found < HEAD:
        return f"{where}: the schema is at {found}, not {HEAD}: type  aiotrack db upgrade"
    return f"{where}: the schema is at {found}, not {HEAD}: type  pip install -U aiotrack"


@_app.command()
def sql(
    dialect: Annotated[Dialect, typer.Option(help="For which database.")] = Dialect.POSTGRESQL,
    since: Annotated[
        str, typer.Option("--from", metavar="VERSION", help="Version that is there already.")
    ] = "base",
    as_json: Json = False,
) -> None:
    """Print the SQL of the migrations.

    For those who run it themselves.
    """
    written = _sql(dialect, since)
    if as_json:
        told = {"dialect": dialect.value, "from": since, "version": HEAD, "sql": written}
        print_json(told)
    else:
        sys.stdout.write(written)


def _sql(dialect: Dialect, since: str) -> str:
    from alembic import command
    from alembic.util import CommandError

    if not since.isalnum():  # Alembic knows more words: heads, a:b, +1
        raise InvalidValue(f"--from: {since!r} is no version: write base, or a number such as 0003")
    settings = config()
    settings.attributes["dialect"] = dialect.value
    settings.output_buffer = written = io.StringIO()
    try:
        command.upgrade(settings, f"{since}:head", sql=True)
    except CommandError as error:
        raise InvalidValue(f"--from: {error}") from error
    return written.getvalue()


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.add_typer(_app, name="db")
