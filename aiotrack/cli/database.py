"""``aiotrack db upgrade``, ``check`` and ``sql``: the schema."""

from __future__ import annotations

import asyncio
import io
import sys
from enum import StrEnum
from typing import Annotated

import typer

from aiotrack import Tracker
from aiotrack.cli.connect import Database, url_of, version
from aiotrack.cli.output import Json, print_json
from aiotrack.errors import InvalidValue
from aiotrack.repository.columns import HEAD
from aiotrack.repository.migrations import config

app = typer.Typer(help="Look after the schema.", no_args_is_help=True)


class Dialect(StrEnum):
    """The databases that aiotrack speaks to."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


@app.command()
def upgrade(database: Database = None) -> None:
    """Bring the schema to the version of this release."""
    reached = asyncio.run(_upgrade(url_of(database)))
    typer.echo(f"the schema is at {reached}")


async def _upgrade(url: str) -> str:
    tracker = Tracker(url)
    try:
        return await tracker.upgrade()
    finally:
        await tracker.shutdown()


@app.command()
def check(database: Database = None, as_json: Json = False) -> None:
    """Say whether the schema fits this release; exit code 1 if it does not."""
    found, where = asyncio.run(version(url_of(database)))
    fits = found == HEAD
    if as_json:
        print_json({"ok": fits, "database": where, "version": found, "needed": HEAD})
    else:
        typer.echo(_verdict(found, where))
    raise typer.Exit(0 if fits else 1)


def _verdict(found: str | None, where: str) -> str:
    if found == HEAD:
        return f"{where}: the schema is at {found}, as it must"
    if found is None:
        return f"{where}: there is no schema yet: type  aiotrack db upgrade"
    if found < HEAD:
        return f"{where}: the schema is at {found}, not {HEAD}: type  aiotrack db upgrade"
    return f"{where}: the schema is at {found}, not {HEAD}: type  pip install -U aiotrack"


@app.command()
def sql(
    dialect: Annotated[Dialect, typer.Option(help="For which database.")] = Dialect.POSTGRESQL,
    since: Annotated[
        str, typer.Option("--from", metavar="VERSION", help="Version that is there already.")
    ] = "base",
) -> None:
    """Print the SQL of the migrations, for those who run it themselves."""
    sys.stdout.write(_sql(dialect, since))


def _sql(dialect: Dialect, since: str) -> str:
    from alembic import command
    from alembic.util import CommandError

    settings = config()
    settings.attributes["dialect"] = dialect.value
    settings.output_buffer = written = io.StringIO()
    try:
        command.upgrade(settings, f"{since}:head", sql=True)
    except CommandError as error:
        raise InvalidValue(f"--from: {error}") from error
    return written.getvalue()
