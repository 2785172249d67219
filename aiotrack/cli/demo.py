"""``aiotrack demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from aiotrack.cli.output import console

LOG_WIDTH = 160
"""Columns of its pages where no terminal says how many there are: people read them in a log."""


def demo(
    redis: Annotated[
        str | None, typer.Option(metavar="URL", help="A Redis to use; else a Valkey is started.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="A database to record in, and to leave so.")
    ] = None,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="Start a PostgreSQL to record in.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Record in ./aiotrack-demo.db and leave it there.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Go on afterwards, with a dashboard, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            metavar="PORT", min=0, max=65_535, help="Of the dashboard; 0 is any that is free."
        ),
    ] = 8000,
) -> None:
    """Watch a real broker, worker and database at work.

    In ten seconds. Everything is started for it and gone afterwards; by default the records are
    in a temporary SQLite file. Exit code 1 when a task did not end as it must.
    """
    from aiotrack.demo.run import Options, run  # the embedded servers' modules, only for this

    options = Options(
        redis=redis, database=database, postgres=postgres, keep=keep, serve=serve, port=port
    )
    raise typer.Exit(run(options, console(LOG_WIDTH)))


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(demo)
