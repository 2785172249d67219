"""``aiotrack doctor``: what is wrong with a project's set-up, and what to change."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import typer
from rich.text import Text

from aiotrack.cli.codes import NO
from aiotrack.cli.connect import Broker, Modules, import_broker
from aiotrack.cli.output import Json, console, print_json
from aiotrack.doctor import Finding, examine
from aiotrack.terminal import one_line

WIDTH = 300
"""Characters of a line; the terminal breaks it."""


def doctor(broker: Broker, modules: Modules = None, as_json: Json = False) -> None:
    """Find what is wrong with a project's set-up.

    It examines the broker, its tasks and its servers; nothing is changed or sent. Exit code 1 when
    something is wrong; advice alone is 0.
    """
    found = asyncio.run(examine(import_broker(broker, modules or [])))
    if as_json:
        print_json({"items": [asdict(one) for one in found]})
    else:
        _print(found)
    if any(one.is_wrong for one in found):
        raise typer.Exit(NO)


def _print(found: list[Finding]) -> None:
    out = console()
    for one in found:
        mark, style = ("✗", "red") if one.is_wrong else ("!", "yellow")
        told = one_line(one.what, WIDTH)
        out.print(Text.assemble((f"{mark} ", style), told, (f"  ({one.code})", "dim")))
        out.print(Text(f"  → {one_line(one.change, WIDTH)}", "cyan"))
    wrong = sum(one.is_wrong for one in found)
    if found:
        out.print(f"{wrong} wrong, {len(found) - wrong} to think about")
    else:
        out.print(Text.assemble(("✓ ", "green"), "nothing to change"))


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(doctor)
