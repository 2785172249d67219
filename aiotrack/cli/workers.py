"""``aiotrack workers``: which processes run tasks, and how they are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from aiotrack import Tracker, Worker, WorkerStatus
from aiotrack.cli import pages
from aiotrack.cli.connect import Database, read
from aiotrack.cli.output import Json, console, print_json


def workers(
    *,
    database: Database = None,
    status: Annotated[
        WorkerStatus | None, typer.Option(help="Only those that are so.", case_sensitive=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """See the worker processes: who lives, who was lost.

    Those that were lost or stopped are shown for a day.
    """

    async def ask(tracker: Tracker) -> list[Worker]:
        return [one for one in await tracker.workers() if status in {None, one.status}]

    found = read(database, ask)
    if as_json:
        print_json({"items": [asdict(one) | {"load": one.load} for one in found]})
    else:
        pages.print_workers(console(), found)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(workers)
