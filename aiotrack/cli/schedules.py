"""``aiotrack schedules``: what is sent when; ``start``, ``stop``, ``pause`` and ``resume`` it."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from aiotrack import TaskDefinition, Tracker
from aiotrack.cli.connect import Database, read
from aiotrack.cli.locks import Redis
from aiotrack.cli.output import Json, console, print_json
from aiotrack.terminal import moment, one_line

PAGE = 500
"""Definitions that are asked for at once."""

VERBS = {
    "start": "Let a definition be sent by its schedule.",
    "stop": "Let it be sent no more.",
    "pause": "Let it rest; what it misses is not sent.",
    "resume": "Let it go on, on its grid.",
}
COLOURS = {"active": "green", "paused": "yellow", "inactive": "dim"}

Row = tuple[TaskDefinition, str, datetime | None]

app = typer.Typer(help="See what is sent when; start, stop, pause, resume.")


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    database: Database = None,
    redis: Redis = None,
    as_json: Json = False,
) -> None:
    """See what is sent when; start, stop, pause and resume change it."""
    if context.invoked_subcommand is not None:
        return

    async def ask(tracker: Tracker) -> list[Row]:
        found: list[TaskDefinition] = []
        after: str | None = None
        while True:
            page = await tracker.definitions.list(limit=PAGE, after=after)
            found += page.items
            after = page.next
            if after is None:
                break
        states, runs = await tracker.schedules.statuses(), await tracker.schedules.next_runs()
        return [(one, states.get(one.id, "inactive"), runs.get(one.id)) for one in found]

    rows = read(database, ask, redis=redis)
    if as_json:
        items = [asdict(one) | {"schedule_status": s, "next_run_at": at} for one, s, at in rows]
        print_json({"items": items})
    else:
        _print(rows)


def _print(rows: list[Row]) -> None:
    if not rows:
        console().print("nothing is defined")
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("id", justify="right")
    for column in ("definition", "task", "when", "state", "next run"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for one, state, at in rows:
        told = json.dumps(one.schedule) if one.is_scheduled else ""
        table.add_row(
            str(one.id),
            Text(one_line(one.name, 40)),
            Text(one_line(one.task_type, 40)),
            Text(one_line(f"{one.schedule_kind} {told}", 70)),
            Text(state, style=COLOURS[state]),
            "" if at is None else moment(at),
        )
    console().print(table)


def _add(verb: str, told: str) -> None:
    @app.command(verb, help=told)
    def change(
        name: Annotated[str, typer.Argument(metavar="NAME", help="Of the definition, or its id.")],
        by: Annotated[str | None, typer.Option(metavar="NAME", help="Who asks for it.")] = None,
        reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
        database: Database = None,
        redis: Redis = None,
        as_json: Json = False,
    ) -> None:
        key = int(name) if name.isascii() and name.isdigit() else name

        async def ask(tracker: Tracker) -> str:
            state: str = await getattr(tracker.schedules, verb)(key, by=by, reason=reason)
            return state

        state = read(database, ask, redis=redis)
        if as_json:
            print_json({"definition": key, "schedule_status": state})
        else:
            typer.echo(f"{one_line(name)} is {state}")


for _verb, _told in VERBS.items():
    _add(_verb, _told)
