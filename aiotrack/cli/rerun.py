"""``aiotrack rerun``: the same task again, sent by the project's own broker."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from taskiq import SendTaskError

from aiotrack import Execution, Rerun, Tracker
from aiotrack.cli.connect import Broker, Modules, broker_of
from aiotrack.cli.output import Json, execution_data, print_json
from aiotrack.errors import ExecutionNotFound, NotRepeatable, UnknownTask
from aiotrack.terminal import block


def rerun(
    broker: Broker,
    task_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Executions.")],
    modules: Modules = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who asks for it.")] = None,
    as_json: Json = False,
) -> None:
    """Send the task of an execution again, with the arguments that it had."""
    told = asyncio.run(_rerun(broker, modules or [], task_ids, by))
    if as_json:
        print_json({"items": [_data(one) for one in told]})
    for one in told:
        if one.error is not None:
            typer.echo(f"aiotrack: {block(str(one.error))}", err=True)
        elif one.execution is not None and not as_json:
            typer.echo(f"{block(one.task_id)} runs again as {one.execution.task_id}")
    if any(one.error is not None for one in told):
        raise typer.Exit(1)


def _data(one: Rerun) -> dict[str, object]:
    made = None if one.execution is None else execution_data(one.execution)
    error = None if one.error is None else str(one.error)
    return {"task_id": one.task_id, "execution": made, "error": error}


async def _rerun(spec: str, modules: list[str], ids: list[str], by: str | None) -> list[Rerun]:
    broker, tracker = broker_of(spec, modules)
    await broker.startup()
    try:
        return [await _one(tracker, task_id, by) for task_id in ids]
    finally:
        await broker.shutdown()


async def _one(tracker: Tracker, task_id: str, by: str | None) -> Rerun:
    try:
        made: Execution = await tracker.rerun(task_id, by=by)
    except (ExecutionNotFound, NotRepeatable, UnknownTask, SendTaskError) as error:
        return Rerun(task_id=task_id, error=error)
    return Rerun(task_id=task_id, execution=made)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(rerun)
