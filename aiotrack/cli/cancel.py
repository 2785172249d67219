"""``aiotrack cancel``: end an execution."""

from __future__ import annotations

from typing import Annotated

import typer

from aiotrack import CancelOutcome
from aiotrack.cli.connect import Database, read
from aiotrack.cli.output import Json, print_json

TOLD = {
    CancelOutcome.REVOKED: "revoked: no worker runs it any more",
    CancelOutcome.CANCELLING: "it runs: its worker is told to end it",
    CancelOutcome.NOT_INTERRUPTIBLE: "it cannot be interrupted, and runs on unless it looks itself",
    CancelOutcome.FINISHED: "it was over before; nothing has changed",
}


def cancel(
    task_id: Annotated[str, typer.Argument(metavar="TASK_ID", help="Of the execution.")],
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who asks for it.")] = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """End an execution; exit code 1 when it was over, or runs on."""
    outcome = read(database, lambda tracker: tracker.cancel(task_id, reason=reason, by=by))
    if as_json:
        print_json({"task_id": task_id, "outcome": outcome.value})
    else:
        typer.echo(TOLD[outcome])
    if outcome in {CancelOutcome.NOT_INTERRUPTIBLE, CancelOutcome.FINISHED}:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(cancel)
