"""``aiotrack rerun``: the same task again, sent by the project's own broker."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from taskiq import SendTaskError

from aiotrack import Execution, Rerun, Tracker
from aiotrack.cli.codes import AWAY, NO, UNKNOWN
from aiotrack.cli.connect import Broker, By, Modules, started
from aiotrack.cli.output import Json, execution_data, print_json
from aiotrack.cli.records import found
from aiotrack.errors import ExecutionNotFound, NotRepeatable, UnknownTask
from aiotrack.terminal import one_line


def rerun(
    broker: Broker,
    keys: Annotated[
        list[str], typer.Argument(metavar="ID", help="Task_ids, or numbers of records.")
    ],
    modules: Modules = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Send executions again, with the arguments that they had.

    Exit code 1 when one of them could not be sent, 3 when only the broker was at fault.
    """
    told = asyncio.run(_rerun(broker, modules or [], keys, by))
    if as_json:
        print_json({"items": [_data(one) for one in told]})
    for one in told:
        if one.error is not None:
            typer.echo(f"aiotrack: {one_line(str(one.error))}", err=True)
        elif one.execution is not None and not as_json:
            typer.echo(f"{one_line(one.task_id)} runs again as {one.execution.task_id}")
    faults = [one.error for one in told if one.error is not None]
    if faults:
        raise typer.Exit(_code(faults))


def _code(faults: list[Exception]) -> int:
    if all(isinstance(one, ExecutionNotFound) for one in faults):
        return UNKNOWN
    return AWAY if all(isinstance(one, SendTaskError) for one in faults) else NO


def _data(one: Rerun) -> dict[str, object]:
    made = None if one.execution is None else execution_data(one.execution)
    error = None if one.error is None else str(one.error)
    return {"task_id": one.task_id, "execution": made, "error": error}


async def _rerun(spec: str, modules: list[str], keys: list[str], by: str | None) -> list[Rerun]:
    async with started(spec, modules) as tracker:
        return [await _one(tracker, key, by) for key in keys]


async def _one(tracker: Tracker, key: str, by: str | None) -> Rerun:
    task_id = key
    try:
        task_id = (await found(tracker, key)).task_id
        made: Execution = await tracker.rerun(task_id, by=by)
    except (ExecutionNotFound, NotRepeatable, UnknownTask, SendTaskError) as error:
        return Rerun(task_id=task_id, error=error)
    after = {"task_id": made.task_id}
    await tracker.audit.append("execution.rerun", f"execution:{task_id}", by=by, after=after)
    return Rerun(task_id=task_id, execution=made)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(rerun)
