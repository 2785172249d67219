"""What the demo recorded, read back from the database, and whether it is what had to happen."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aiotrack import Attempt, Execution, Stats, Tracker
from aiotrack.demo.board import Board, Row
from aiotrack.demo.screen import WIDE
from aiotrack.terminal import COLOURS, failure, one_line, seconds

LONGEST = 150
"""Characters of one value in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the records lie.

    Attributes:
        url: An SQLAlchemy URL.
        what: What kind of database it is, in words.
        is_kept: Whether it is still there after the demo.
    """

    url: str
    what: str
    is_kept: bool

    @property
    def shown(self) -> str:
        """The URL without its password; of a file, its path."""
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        from aiotrack.repository.dialects import shown_url

        try:
            url = make_url(self.url)
        except ArgumentError:
            return "not a URL"
        if url.get_backend_name() == "sqlite" and url.database:
            return url.database
        return shown_url(url)


async def summarise(
    board: Board, tracker: Tracker, console: Console, *, name: str, place: Place, begun: float
) -> bool:
    """Print what the records say, and tell whether every task ended as it must.

    Args:
        board: What was sent.
        tracker: Reads the records.
        console: Where to print.
        name: How the demo's task ids begin.
        place: Where the records lie.
        begun: When the demo began, on the monotonic clock.
    """
    board.update((await tracker.list(text=f"{name}-", limit=500)).items)
    stats = await tracker.stats(text=f"{name}-")
    table = _table(console)
    faults: list[str] = []
    for row in board.rows:
        if row.execution is None:
            faults.append(f"{row.kind.title}: there is no record")
            continue
        attempts = await tracker.attempts(row.execution.task_id)
        wrong = list(row.kind.faults(row.execution, attempts))
        faults += [f"{row.execution.task_name} ({row.kind.title}): {fault}" for fault in wrong]
        _add(table, row, row.execution, attempts, is_right=not wrong)
    if not board.sweeps:
        faults.append("no sweep was run: did the scheduler send one?")
    if board.states != ["active", "paused", "active"] or len(board.scheduled) < 3:
        faults.append(
            f"the schedule was {', '.join(board.states) or 'never started'} and ran "
            f"{len(board.scheduled)} times; must be active, paused, active, and three"
        )
    if stats.total != len(board.rows):
        faults.append(f"{stats.total} executions were recorded, {len(board.rows)} were expected")
    console.print(table)
    console.print()
    for sweep in board.sweeps[:1]:
        told = f"{sweep.task_name}, sent by the scheduler: {sweep.status}, ended {sweep.result}"
        console.print(Text(told, style="dim"), soft_wrap=True)
    for run in board.scheduled[:1]:
        told = f"{run.task_name}, every second by its definition: {' → '.join(board.states)}"
        told += f", {len(board.scheduled)} runs, the last is {run.task_id}"
        console.print(Text(told, style="dim"), soft_wrap=True)
    console.print(_verdict(stats, faults, time.monotonic() - begun))
    for fault in faults:
        console.print(Text(f"  ✗ {one_line(fault)}", style="red"), soft_wrap=True)
    _where(console, place, name)
    return not faults


def _table(console: Console) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=True)
    table.add_column("", width=1)
    table.add_column("task", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    if console.width >= WIDE:
        table.add_column("what it does", no_wrap=True)
    table.add_column("what the record shows", no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def _add(
    table: Table, row: Row, execution: Execution, attempts: list[Attempt], *, is_right: bool
) -> None:
    is_wide = len(table.columns) == 6
    table.add_row(
        Text("✓", style="green") if is_right else Text("✗", style="bold red"),
        Text(execution.task_name),
        Text(execution.status, style=COLOURS[execution.status]),
        seconds(execution.duration),
        *([row.kind.title] if is_wide else []),
        Text(one_line(row.kind.evidence(execution), LONGEST), style="dim"),
    )
    if len(attempts) > 1:
        for number, attempt in enumerate(attempts, 1):
            table.add_row(
                "",
                Text(f"  run {number}", style="dim"),
                Text(f"  {attempt.status}", style=f"dim {COLOURS[attempt.status]}"),
                Text(seconds(attempt.duration), style="dim"),
                *([Text(f"  {attempt.cause}", style="dim")] if is_wide else []),
                Text(failure(attempt, LONGEST), style="dim"),
            )


def _verdict(stats: Stats, faults: list[str], took: float) -> Text:
    share = f"{100 * stats.failure_rate:.0f} %"
    counted = (
        f"{stats.total} executions in {took:.1f} s: {stats.success} succeeded, "
        f"{stats.failure} failed ({share}) in {len(stats.by_module)} modules. "
    )
    if faults:
        return Text(counted).append(f"Wrong in {len(faults)}:", style="bold red")
    return Text(counted).append("Each ended as it must ✓", style="bold green")


def _where(console: Console, place: Place, name: str) -> None:
    if place.is_kept:
        look = f"  aiotrack list --database '{_typed(place)}' --text {name}"
        words = Text(f"The records are in {place.shown}; this shows them:\n").append(
            look, style="bold"
        )
    else:
        words = Text("The database was temporary; this keeps one:\n").append(
            "  aiotrack demo --keep", style="bold"
        )
    console.print(words, soft_wrap=True)


def _typed(place: Place) -> str:
    """Give the URL as it is typed; a password stays for the reader to fill in."""
    from sqlalchemy.engine import make_url

    from aiotrack.repository.dialects import shown_url

    return shown_url(make_url(place.url))
