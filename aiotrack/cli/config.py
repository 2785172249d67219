"""``aiotrack config``: what is set, by whom; ``set`` and ``unset`` make rows in the database."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from aiotrack import Tracker
from aiotrack.cli.codes import NO
from aiotrack.cli.connect import By, Database, read
from aiotrack.cli.output import Json, console, print_json
from aiotrack.row_settings import Explanation, SettingEntry, deed_of
from aiotrack.settings import settable
from aiotrack.terminal import moment, one_line

User = Annotated[
    str | None, typer.Option(metavar="WHO", help="For what this user creates; default: for all.")
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="retention_days or timeout_minutes.")]

_app = typer.Typer(invoke_without_command=True)


@_app.callback()
def show(
    context: typer.Context, database: Database = None, user: User = None, as_json: Json = False
) -> None:
    """See what is set, and by whom; set it.

    Alone it shows every setting here: its value, and which layer says so.
    """
    if context.invoked_subcommand is not None:
        return

    async def work(tracker: Tracker) -> tuple[list[Explanation], list[SettingEntry]]:
        found = [await tracker.settings.explain(key, user) for key in settable()]
        return found, await tracker.settings.rows()

    found, rows = read(database, work)
    if as_json:
        print_json({"settings": [_told(one) for one in found], "rows": list(map(asdict, rows))})
    else:
        _print(found, rows)


@_app.command(name="set", context_settings={"ignore_unknown_options": True})  # -1 is a value
def set_(
    key: Key,
    value: Annotated[
        float, typer.Argument(metavar="NUMBER", help="Days or minutes; 0 is at once, -1 never.")
    ],
    by: By = None,
    database: Database = None,
    user: User = None,
    as_json: Json = False,
) -> None:
    """Set a key for all, or for one user.

    Running processes follow at their next sweep.
    """

    async def work(tracker: Tracker) -> Explanation:
        before = await tracker.settings.explain(key, user)
        await tracker.settings.set(key, value, user=user)
        after = await tracker.settings.explain(key, user)
        await tracker.audit.append("setting.set", by=by, **deed_of(user, before, after))
        return after

    told = read(database, work)
    if as_json:
        print_json(_told(told))
    else:
        typer.echo(one_line(str(told)))


@_app.command()
def unset(
    key: Key,
    by: By = None,
    database: Database = None,
    user: User = None,
    as_json: Json = False,
) -> None:
    """Take a row back.

    Exit code 1 if there is none.
    """

    async def work(tracker: Tracker) -> tuple[bool, Explanation]:
        before = await tracker.settings.explain(key, user)
        was_there = await tracker.settings.unset(key, user=user)
        after = await tracker.settings.explain(key, user)
        if was_there:
            deed = deed_of(user, before, after)
            await tracker.audit.append("setting.unset", by=by, **deed)
        return was_there, after

    was_there, told = read(database, work)
    if as_json:
        print_json({"was_there": was_there} | _told(told))
    else:
        typer.echo(f"{'' if was_there else 'there was no such row; '}{one_line(str(told))}")
    if not was_there:
        raise typer.Exit(NO)


def _told(one: Explanation) -> dict[str, Any]:
    return asdict(one) | {"layers": dict(one.layers)}


def _print(found: list[Explanation], rows: list[SettingEntry]) -> None:
    settings = Table("setting", "value", "layer", box=None, pad_edge=False)
    for one in found:
        value = "" if one.value is None else one_line(str(one.value))
        settings.add_row(one.key, Text(value), one.source or one.layer)
    console().print(settings)
    if rows:
        stored = Table("row", "value", "user", "set at", box=None, pad_edge=False)
        for row in rows:
            user = Text(one_line(row.user)) if row.user is not None else "(all)"
            stored.add_row(row.key, str(row.value), user, moment(row.set_at))
        console().print()
        console().print(stored)


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.add_typer(_app, name="config")
