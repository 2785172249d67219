"""``aiotrack version``: which release this is."""

from __future__ import annotations

import typer

from aiotrack import __version__
from aiotrack.cli.output import Json, print_json


def version(as_json: Json = False) -> None:
    """Show the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(f"aiotrack {__version__}")


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(version)
