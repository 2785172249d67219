"""``aiotrack logs``: what an execution logged, and what it logs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from aiotrack import InvalidQuery, LogLine, Tracker
from aiotrack.cli.connect import Database, read
from aiotrack.cli.output import Json, console, print_json
from aiotrack.settings import level_of
from aiotrack.terminal import block, one_line

_COLOURS = ((40, "bold red"), (30, "yellow"), (20, "green"))


def logs(
    task_id: Annotated[str, typer.Argument(metavar="TASK_ID")],
    *,
    database: Database = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the execution is over.")
    ] = False,
    level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="The lowest level: WARNING, 30, ...")
    ] = None,
    attempt: Annotated[int | None, typer.Option(metavar="N", help="Only this attempt.")] = None,
    limit: Annotated[int, typer.Option(metavar="LINES", help="Lines, 1 to 10,000.")] = 1000,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Told by the page before.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what an execution logged, in the order of its attempts."""
    if follow:
        read(database, lambda it: _follow(it, task_id, _lowest(level), attempt, as_json=as_json))
        return
    page = read(
        database,
        lambda it: it.logs(task_id, attempt=attempt, level=level, limit=limit, after=after),
    )
    if as_json:
        print_json({"items": [asdict(line) for line in page.items], "next": page.next})
        return
    out = console()
    for line in page.items:
        print_line(out, line)
    if page.next is not None:
        out.print(f"more: --after {page.next}", style="dim", soft_wrap=True)


async def _follow(
    tracker: Tracker, task_id: str, lowest: int, attempt: int | None, *, as_json: bool
) -> None:
    out = console()
    async for line in tracker.tail(task_id):
        if attempt not in {None, line.attempt} or _number(line.level) < lowest:
            continue
        if as_json:
            data = asdict(line) | {"at": line.at.isoformat()}
            typer.echo(json.dumps(data, ensure_ascii=False))
        else:
            print_line(out, line)


def print_line(out: Console, line: LogLine) -> None:
    """Print a line: time, attempt, level, logger, message."""
    number = _number(line.level)
    colour = next((colour for least, colour in _COLOURS if number >= least), "dim")
    told = Text(f"{line.at.astimezone():%H:%M:%S.%f}"[:-3], style="dim")
    told.append(f" {line.attempt} ")
    told.append(f"{one_line(line.level):<8}", style=colour)
    told.append(f" {one_line(line.logger)}: ", style="dim")
    told.append(block(line.message), style="default")
    out.print(told, soft_wrap=True)


def _number(level: str) -> int:
    """Give a level's number; a name of the user's own that is not known here is shown always."""
    try:
        return level_of(level)
    except ValueError:
        return 100


def _lowest(level: str | None) -> int:
    try:
        return 0 if level is None else level_of(level)
    except ValueError as error:
        raise InvalidQuery(f"level: {error}") from None


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(logs)
