"""``aiotrack logs``: what an execution logged, and what it logs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from aiotrack import InvalidQuery, LogLine, Page, Tracker
from aiotrack.cli import filters
from aiotrack.cli.connect import Database, read
from aiotrack.cli.output import Json, console, print_json, print_json_line
from aiotrack.cli.records import Key, found
from aiotrack.settings import level_of
from aiotrack.terminal import block, instant, one_line

_COLOURS = ((40, "bold red"), (30, "yellow"), (20, "green"))


def logs(
    key: Key,
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
    after: filters.After = None,
    as_json: Json = False,
) -> None:
    """Show what an execution logged, attempt by attempt."""
    if follow:
        read(database, lambda it: _follow(it, key, _lowest(level), attempt, as_json=as_json))
        return

    async def ask(tracker: Tracker) -> Page[LogLine]:
        task_id = (await found(tracker, key)).task_id
        return await tracker.logs(task_id, attempt=attempt, level=level, limit=limit, after=after)

    page = read(database, ask)
    if as_json:
        print_json({"items": [asdict(line) for line in page.items], "next": page.next})
        return
    out = console()
    for line in page.items:
        print_line(out, line)
    if page.next is not None:
        out.print(f"more: --after {page.next}", style="dim", soft_wrap=True)


async def _follow(
    tracker: Tracker, key: str, lowest: int, attempt: int | None, *, as_json: bool
) -> None:
    out = console()
    async for line in tracker.tail((await found(tracker, key)).task_id):
        if attempt not in {None, line.attempt} or _number(line.level) < lowest:
            continue
        if as_json:
            print_json_line(asdict(line))
        else:
            print_line(out, line)


def print_line(out: Console, line: LogLine) -> None:
    """Print a line: time, attempt, level, logger, message."""
    number = _number(line.level)
    colour = next((colour for least, colour in _COLOURS if number >= least), "dim")
    told = Text.assemble(
        (f"{instant(line.at)} {line.attempt} ", "dim"),
        (f"{one_line(line.level):<8}", colour),
        (f" {one_line(line.logger)}: ", "dim"),
        block(line.message),
    )
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
