"""``aiotrack sweep``: a sweep now, instead of when it is due."""

from __future__ import annotations

from typing import Annotated

import typer

from aiotrack import Tracker
from aiotrack.cli.connect import Database, read
from aiotrack.cli.output import Json, print_json

_app = typer.Typer(help="Do now what is done by the clock otherwise.", no_args_is_help=True)


@_app.command()
def cleanup(
    database: Database = None,
    retention_days: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS",
            help="For all records, whatever the settings say; 0 is at once, -1 never.",
        ),
    ] = None,
    only_completed: Annotated[
        bool | None,
        typer.Option(
            "--only-completed/--unfinished-too",
            help="Whether what never ended is kept; default: the setting.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete old records, with all that belongs to them.

    Their attempts, logs and checkpoints.
    """

    async def work(tracker: Tracker) -> int:
        return await tracker.cleanup(retention_days=retention_days, only_completed=only_completed)

    _say("cleanup", read(database, work), "deleted", as_json=as_json)


@_app.command(name="mark_timed_out")
def mark_timed_out(
    database: Database = None,
    timeout_minutes: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="For all that runs or waits for a retry; 0 is at once, -1 never.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """End what runs for too long.

    From here no result backend can be asked first.
    """

    async def work(tracker: Tracker) -> int:
        return await tracker.mark_timed_out(timeout_minutes=timeout_minutes)

    _say("mark_timed_out", read(database, work), "presumed to have failed", as_json=as_json)


@_app.command(name="rescue_lost")
def rescue_lost(database: Database = None, as_json: Json = False) -> None:
    """End what lost workers left.

    From here nothing can be sent again: that is for workers.
    """

    async def work(tracker: Tracker) -> int:
        return await tracker.rescue_lost()

    _say("rescue_lost", read(database, work), "presumed lost", as_json=as_json)


@_app.command(name="roll_up")
def roll_up(database: Database = None, as_json: Json = False) -> None:
    """Add up what ended, for stats."""

    async def work(tracker: Tracker) -> int:
        return await tracker.roll_up()

    _say("roll_up", read(database, work), "recomputed", as_json=as_json)


def _say(name: str, count: int, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"sweep": name, "count": count})
    else:
        typer.echo(f"{count:,} {what}")


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.add_typer(_app, name="sweep")
