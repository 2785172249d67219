"""``aiotrack watch``, live, and ``aiotrack sync``."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aiotrack import Execution, TaskStatus, Tracker
from aiotrack.cli import filters
from aiotrack.cli.codes import NO
from aiotrack.cli.connect import Broker, Database, Modules, read, started
from aiotrack.cli.output import Json, console, execution_data, print_json, print_json_line
from aiotrack.cli.records import Key, found
from aiotrack.errors import InvalidValue
from aiotrack.terminal import COLOURS, SIGNS, one_line, outcome, seconds

ROWS: Final = 20
"""Executions that are shown at once."""

BAR: Final = 24
"""Columns of a progress bar."""


def watch(
    *,
    key: Annotated[
        str | None, typer.Argument(metavar="ID", help="A task_id, or the number of a record.")
    ] = None,
    database: Database = None,
    module: filters.Module = None,
    task_name: filters.TaskName = None,
    created_by: filters.CreatedBy = None,
    metadata: filters.Metadata = None,
    as_json: Json = False,
) -> None:
    """Follow executions live.

    One until it ends, with exit code 1 when it failed or was cancelled; or all that filters match,
    until Ctrl-C. With --json each change is a line.
    """
    given = filters.narrowing(
        module=module, task_name=task_name, created_by=created_by, metadata=metadata
    )
    narrowing = {name: one for name, one in given.items() if one is not None}
    if key is not None and narrowing:
        raise InvalidValue("watch takes an ID or filters, not both")

    async def follow(tracker: Tracker) -> Execution | None:
        last = None
        chosen: Any = narrowing or {"status": list(TaskStatus)}
        if key is not None:
            chosen = {"task_id": (await found(tracker, key)).task_id}
        shown = _Lines() if as_json else _Board(console())
        with shown:
            async for last in tracker.watch(**chosen):
                shown.show(last)
        return last

    last = read(database, follow)
    if last is not None and last.status in {TaskStatus.FAILURE, TaskStatus.REVOKED}:
        raise typer.Exit(NO)


def sync(
    broker: Broker,
    key: Key,
    modules: Modules = None,
    as_json: Json = False,
) -> None:
    """Fill an unfinished record from the result backend.

    Exit code 1 when it is still unfinished.
    """

    async def ask() -> Execution:
        async with started(broker, modules or []) as tracker:
            execution = await found(tracker, key)
            return await tracker.sync(execution.task_id)

    execution = asyncio.run(ask())
    if as_json:
        print_json(execution_data(execution))
    else:
        console().print(_line(execution))
    if not execution.is_completed:
        raise typer.Exit(NO)


class _Lines:
    """Prints each change as a line of JSON."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, execution: Execution) -> None:
        """Print a change."""
        print_json_line(execution_data(execution))


class _Board:
    """Shows the newest executions in place; where no terminal is, each change as a line."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._shown: dict[str, Execution] = {}
        self._live = Live(console=out, auto_refresh=True, refresh_per_second=8, transient=False)

    def __enter__(self) -> None:
        if self._out.is_terminal:
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._out.is_terminal:
            self._live.stop()

    def show(self, execution: Execution) -> None:
        """Show a change."""
        if not self._out.is_terminal:
            self._out.print(_line(execution))
            return
        self._shown.pop(execution.task_id, None)
        self._shown[execution.task_id] = execution
        while len(self._shown) > ROWS:
            over = (name for name, one in self._shown.items() if one.is_completed)
            del self._shown[next(over, next(iter(self._shown)))]
        self._live.update(_board(list(self._shown.values())))


def _line(it: Execution) -> Text:
    percent = it.metadata.get("progress_percent")
    is_moving = isinstance(percent, int) and not it.is_completed
    told = outcome(it, 80) if it.is_completed else _said(it)
    return Text.assemble(
        (f"{SIGNS[it.status]} {it.status:8}", COLOURS[it.status]),
        f" {one_line(it.task_name)}  {one_line(it.task_id)}",
        (f"  {percent} %" if is_moving else "", "cyan"),
        (f"  {told}" if told else "", "dim"),
    )


def _said(it: Execution) -> str:
    return one_line(str(it.metadata.get("progress_message") or ""), 60)


def _board(shown: list[Execution]) -> Group:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for it in shown:
        percent = it.metadata.get("progress_percent")
        bar: Any = ""
        if it.is_running and isinstance(percent, int):
            bar = ProgressBar(100, percent, BAR, style="dim", complete_style="cyan")
        table.add_row(
            Text(f"{SIGNS[it.status]} {it.status}", COLOURS[it.status]),
            Text(one_line(it.task_name, 40)),
            Text(one_line(it.task_id), "dim"),
            bar,
            Text(outcome(it, 60) if it.is_completed else _said(it)),
            Text(seconds(it.duration), "dim"),
        )
    return Group(table)


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.command()(watch)
    app.command()(sync)
