"""``aiotrack cancel``: end an execution."""

from __future__ import annotations

import typer

from aiotrack import CancelOutcome, Tracker
from aiotrack.cli.codes import NO
from aiotrack.cli.connect import By, Database, Reason, read
from aiotrack.cli.output import Json, print_json
from aiotrack.cli.records import Key, found

TOLD = {
    CancelOutcome.REVOKED: "revoked: no worker runs it any more",
    CancelOutcome.CANCELLING: "it runs: its worker is told to end it",
    CancelOutcome.NOT_INTERRUPTIBLE: "it cannot be interrupted, and runs on unless it looks itself",
    CancelOutcome.FINISHED: "it was over before; nothing has changed",
}


def cancel(
    key: Key,
    reason: Reason = None,
    by: By = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """End an execution.

    Exit code 1 when it was over before, or cannot be interrupted and runs on.
    """

    async def ask(tracker: Tracker) -> tuple[str, CancelOutcome]:
        task_id = (await found(tracker, key)).task_id
        outcome = await tracker.cancel(task_id, reason=reason, by=by)
        after = {"outcome": outcome.value}
        await tracker.audit.append(
            "execution.cancel", f"execution:{task_id}", by=by, reason=reason, after=after
        )
        return task_id, outcome

    task_id, outcome = read(database, ask)
    if as_json:
        print_json({"task_id": task_id, "outcome": outcome.value})
    else:
        typer.echo(TOLD[outcome])
    if outcome in {CancelOutcome.NOT_INTERRUPTIBLE, CancelOutcome.FINISHED}:
        raise typer.Exit(NO)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(cancel)
