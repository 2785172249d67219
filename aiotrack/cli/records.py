"""``aiotrack list``, ``show`` and ``stats``: what was recorded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from aiotrack import Attempt, Count, Execution, LockInfo, Page, Tracker
from aiotrack.cli import filters, pages
from aiotrack.cli.connect import Database, read
from aiotrack.cli.output import (
    Json,
    attempt_data,
    console,
    execution_data,
    print_json,
    stats_data,
)
from aiotrack.errors import ExecutionNotFound, LockUnavailable
from aiotrack.terminal import one_line

DIGITS = 19
"""Digits of the largest id."""

Key = Annotated[str, typer.Argument(metavar="ID", help="A task_id, or the number of a record.")]


def list_(
    *,
    database: Database = None,
    module: filters.Module = None,
    task_name: filters.TaskName = None,
    status: filters.Status = None,
    created_by: filters.CreatedBy = None,
    worker: filters.Worker = None,
    error_class: filters.ErrorClass = None,
    since: filters.Since = None,
    until: filters.Until = None,
    metadata: filters.Metadata = None,
    text: filters.Text = None,
    limit: filters.Limit = 50,
    after: filters.After = None,
    order: Annotated[
        str,
        typer.Option(
            metavar="FIELD", help="created_at, finished_at or duration; - before it: descending."
        ),
    ] = "-created_at",
    as_json: Json = False,
) -> None:
    """List executions, the newest first.

    A filter given twice takes either value; different filters must all match.
    """
    narrowing = filters.narrowing(
        module=module,
        task_name=task_name,
        status=status,
        created_by=created_by,
        worker=worker,
        error_class=error_class,
        since=since,
        until=until,
        metadata=metadata,
        text=text,
    )

    async def work(tracker: Tracker) -> tuple[Page[Execution], Count | None]:
        page = await tracker.list(limit=limit, after=after, order=order, **narrowing)
        is_asked = page.next is not None and not as_json
        return page, await tracker.count(**narrowing) if is_asked else None

    page, counted = read(database, work)
    if as_json:
        print_json({"items": [execution_data(item) for item in page.items], "next": page.next})
    else:
        pages.print_list(console(), page, counted)


def show(
    key: Key,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Show one execution and each of its attempts."""
    execution, attempts, held = read(database, lambda tracker: _find(tracker, key))
    if as_json:
        told = {
            "attempts": [attempt_data(item) for item in attempts],
            "locks": None if held is None else [asdict(lock) for lock in held],
        }
        print_json(execution_data(execution) | told)
    else:
        pages.print_execution(console(), execution, attempts, held or ())


Found = tuple[Execution, list[Attempt], list[LockInfo] | None]


async def _find(tracker: Tracker, key: str) -> Found:
    execution = await found(tracker, key)
    return execution, await tracker.attempts(execution.task_id), await locks_of(tracker, execution)


async def found(tracker: Tracker, key: str) -> Execution:
    """Give the execution with a task_id, or with a number.

    Raises:
        ExecutionNotFound: There is neither.
    """
    try:
        return await tracker.get(key)
    except ExecutionNotFound:
        if not (key.isascii() and key.isdigit() and len(key) < DIGITS):
            raise
        return await tracker.get_by_id(int(key))


async def locks_of(tracker: Tracker, execution: Execution) -> list[LockInfo] | None:
    """Give the locks that an execution holds; None when nobody can say."""
    if tracker.redis is None:
        return None
    try:
        return await tracker.locks.list(task_id=execution.task_id)
    except LockUnavailable as error:
        typer.echo(f"aiotrack: {one_line(str(error))}", err=True)
        return None


def stats(
    *,
    database: Database = None,
    module: filters.Module = None,
    task_name: filters.TaskName = None,
    status: filters.Status = None,
    created_by: filters.CreatedBy = None,
    worker: filters.Worker = None,
    error_class: filters.ErrorClass = None,
    since: filters.Since = None,
    until: filters.Until = None,
    metadata: filters.Metadata = None,
    text: filters.Text = None,
    as_json: Json = False,
) -> None:
    """Count executions by status, module and task.

    The filters are those of list.
    """
    narrowing = filters.narrowing(
        module=module,
        task_name=task_name,
        status=status,
        created_by=created_by,
        worker=worker,
        error_class=error_class,
        since=since,
        until=until,
        metadata=metadata,
        text=text,
    )
    counted = read(database, lambda tracker: tracker.stats(**narrowing))
    if as_json:
        print_json(stats_data(counted))
    else:
        pages.print_stats(console(), counted)


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.command("list")(list_)
    app.command()(show)
    app.command()(stats)
