"""``aiotrack audit``: who did what to what, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from aiotrack import AuditEntry, Page, Tracker
from aiotrack.cli import filters
from aiotrack.cli.connect import Database, read
from aiotrack.cli.output import Json, console, print_json, room
from aiotrack.terminal import moment, one_line, value

Exact = str | None


def audit(
    *,
    database: Database = None,
    actor: Annotated[Exact, typer.Option(metavar="WHO", help="Done by.")] = None,
    action: Annotated[Exact, typer.Option(metavar="WORD", help="Such as schedule.pause.")] = None,
    target: Annotated[Exact, typer.Option(metavar="WHAT", help="Such as definition:7.")] = None,
    since: Annotated[
        Exact, typer.Option(metavar="TIME", help="Since: 30m, 2h, 7d ago, or an ISO time.")
    ] = None,
    until: Annotated[Exact, typer.Option(metavar="TIME", help="Until; as --since.")] = None,
    limit: filters.Limit = 50,
    after: filters.After = None,
    as_json: Json = False,
) -> None:
    """See who did what to what, and why.

    The newest first.
    """
    first, last = filters.moment("--since", since), filters.moment("--until", until)

    async def ask(tracker: Tracker) -> Page[AuditEntry]:
        return await tracker.audit.list(
            actor=actor,
            action=action,
            target=target,
            since=first,
            until=last,
            limit=limit,
            after=after,
        )

    page = read(database, ask)
    if as_json:
        print_json({"items": [asdict(one) for one in page.items], "next": page.next})
        return
    _print(page.items)
    if page.next is not None:
        console().print(f"more: --after {page.next}", style="dim", soft_wrap=True)


def _print(items: list[AuditEntry]) -> None:
    out = console()
    if not items:
        out.print("nobody did anything")
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("at", "who", "did", "to", "why", "what changed"):
        # What it was done to can be asked for, and is never cut.
        is_key = column == "to"
        table.add_column(column, no_wrap=not is_key, overflow="fold" if is_key else "ellipsis")
    for one in items:
        changed = "" if one.after is None else value(dict(one.after), 60)
        table.add_row(
            moment(one.at),
            Text(one_line(one.actor or "", room(out, 30))),
            Text(one_line(one.action, room(out, 40))),
            Text(one_line(one.target)),
            Text(one_line(one.reason or "", room(out, 40))),
            Text(changed),
        )
    out.print(table)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(audit)
