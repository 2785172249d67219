"""``aiotrack report``: a stretch of time on paper."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from aiotrack.cli import filters
from aiotrack.cli.connect import Database, read
from aiotrack.cli.output import print_json
from aiotrack.paper import data, write


class Form(StrEnum):
    """What it is written in."""

    MD = "md"
    HTML = "html"
    JSON = "json"
    CSV = "csv"


def report(
    *,
    database: Database = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Created since, as with list; a week before --until unless told.",
        ),
    ] = None,
    until: filters.Until = None,
    module: filters.Module = None,
    task_name: filters.TaskName = None,
    form: Annotated[
        Form, typer.Option("--format", "-f", help="What it is written in.", case_sensitive=False)
    ] = Form.MD,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Sum up a stretch of time, beside the one before it.

    By task, and what was slowest, failed most, timed out or was lost.
    """
    narrowing = filters.narrowing(module=module, task_name=task_name)
    given: Any = {name: one for name, one in narrowing.items() if one is not None}
    begin, end = filters.moment("--since", since), filters.moment("--until", until)
    summary = read(database, lambda tracker: tracker.report(begin, end, **given))
    if as_json or form is Form.JSON:
        print_json(data(summary))
    else:
        typer.echo(write(summary, form), nl=False)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(report)
