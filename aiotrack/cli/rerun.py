"""``aiotrack rerun``: the same task again, sent by the project's own broker."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from taskiq import AsyncBroker, SendTaskError
from taskiq.cli.utils import add_cwd_in_path, import_object

from aiotrack import Execution, Rerun, Tracker, TrackerMiddleware
from aiotrack.cli.output import Json, execution_data, print_json
from aiotrack.errors import ExecutionNotFound, InvalidValue, NotRepeatable, UnknownTask
from aiotrack.terminal import block


def rerun(
    broker: Annotated[
        str, typer.Argument(metavar="MODULE:BROKER", help="The broker, as for taskiq worker.")
    ],
    task_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Executions.")],
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="A module with tasks; may be repeated."),
    ] = None,
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
    broker, tracker = _found(spec, modules)
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


def _found(spec: str, modules: list[str]) -> tuple[AsyncBroker, Tracker]:
    """Import a broker and the modules with its tasks, and find its tracker.

    Raises:
        InvalidValue: There is no such broker, or it has no tracker.
    """
    try:
        broker = import_object(spec)
        with add_cwd_in_path():
            for module in modules:
                __import__(module)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidValue(f"{spec}: {error}; write it as for taskiq worker") from error
    if not isinstance(broker, AsyncBroker):
        raise InvalidValue(f"{spec} is no broker, but {type(broker).__name__}")
    for middleware in broker.middlewares:
        if isinstance(middleware, TrackerMiddleware):
            return broker, middleware.tracker
    raise InvalidValue(f"{spec} has no TrackerMiddleware: nothing of it is recorded")


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(rerun)
