"""``aiotrack schedules``: what is sent when; ``start``, ``stop``, ``pause`` and ``resume`` it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from aiotrack import Execution, TaskDefinition, Tracker
from aiotrack.cli.connect import Broker, By, Database, Modules, Reason, read, started
from aiotrack.cli.locks import Redis
from aiotrack.cli.output import Json, console, execution_data, print_json, room
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

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the definition, or its id.")]

Row = tuple[TaskDefinition, str, datetime | None]

_app = typer.Typer()


@_app.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    database: Database = None,
    redis: Redis = None,
    as_json: Json = False,
) -> None:
    """See what is sent when; start, stop, pause, resume it.

    Alone it lists the definitions, with state and next run.
    """
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
    out = console()
    if not rows:
        out.print("nothing is defined")
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("id", justify="right")
    for column in ("definition", "task", "when", "state", "next run"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for one, state, at in rows:
        told = json.dumps(one.schedule) if one.is_scheduled else ""
        table.add_row(
            str(one.id),
            Text(one_line(one.name, room(out, 40))),
            Text(one_line(one.task_type, room(out, 40))),
            Text(one_line(f"{one.schedule_kind} {told}", room(out, 70))),
            Text(state, style=COLOURS[state]),
            "" if at is None else moment(at),
        )
    out.print(table)


def _add(verb: str, told: str) -> None:
    @_app.command(verb, help=told)
    def change(
        name: Name,
        by: By = None,
        reason: Reason = None,
        database: Database = None,
        redis: Redis = None,
        as_json: Json = False,
    ) -> None:
        async def ask(tracker: Tracker) -> tuple[TaskDefinition, str]:
            known = await tracker.definitions.get(name)
            state: str = await getattr(tracker.schedules, verb)(known.id, by=by, reason=reason)
            return known, state

        known, state = read(database, ask, redis=redis)
        if as_json:
            key = known.name if known.name == name else known.id
            print_json({"definition": key, "schedule_status": state})
        else:
            typer.echo(f"{one_line(name)} is {state}")


for _verb, _told in VERBS.items():
    _add(_verb, _told)


@_app.command()
def trigger(
    broker: Broker,
    name: Name,
    modules: Modules = None,
    by: By = None,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Send a definition now, once, by its project's broker."""

    async def ask() -> Execution:
        async with started(broker, modules or []) as tracker:
            return await tracker.schedules.trigger(name, by=by, reason=reason)

    sent = asyncio.run(ask())
    if as_json:
        print_json(execution_data(sent))
    else:
        typer.echo(f"{one_line(name)} is sent as {one_line(sent.task_id)}")


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.add_typer(_app, name="schedules")
