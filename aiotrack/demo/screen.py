"""The demo while it runs: a live table in a terminal, one line for each change elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from aiotrack import Execution, LogLine, TaskStatus
from aiotrack.demo.board import Board, Row
from aiotrack.terminal import COLOURS, SIGNS, one_line, seconds

BAR = 14
"""Columns of a progress bar."""

HEARD = 3
"""Lines of logs that are shown at a time."""

WIDE = 108
"""Columns from which on there is room for what each task shows."""

_WORDS = {
    TaskStatus.PENDING: "waiting",
    TaskStatus.STARTED: "running",
    TaskStatus.RETRY: "to be retried",
    TaskStatus.SUCCESS: "succeeded",
    TaskStatus.FAILURE: "failed",
    TaskStatus.REVOKED: "revoked",
}


class Screen(AbstractContextManager["Screen"], Protocol):
    """Shows a board whenever it is told to."""

    def show(self, board: Board, note: str = "") -> None:
        """Show *board* as it is now, under a *note* in place of the counts."""
        ...


def screen_for(console: Console) -> Screen:
    """Give the live table where the cursor can move, else lines."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveScreen(console)
    return PlainScreen(console)


class LiveScreen:
    """A table that is drawn again in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, board: Board, note: str = "") -> None:
        """Draw the headline and a line for each task."""
        self._spinner.update(text=self._headline(board, note))
        table = _table(board, wide=self._console.width >= WIDE)
        lines = [_heard(name, line) for name, line in board.heard[-HEARD:]]
        self._live.update(Group(self._spinner, Text(), table, Text(), *lines), refresh=True)

    def _headline(self, board: Board, note: str) -> Text:
        line = Text(f"{time.monotonic() - self._begun:4.1f} s  ", style="dim")
        if not board.has_begun:
            note = "the worker is starting …"
        return line.append(note, style="default") if note else line.append_text(counts(board))


class PlainScreen:
    """A line for each status that a task comes to."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[str, tuple[TaskStatus, int]] = {}
        self._heard = 0
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to put back."""

    def show(self, board: Board, note: str = "") -> None:
        """Print what changed since the last time, and the *note*."""
        for row in board.rows:
            execution = row.execution
            if execution is None:
                continue
            state = (execution.status, execution.attempt)
            if self._seen.get(execution.task_id) != state:
                self._seen[execution.task_id] = state
                self._console.print(self._line(execution), soft_wrap=True, markup=False)
        for name, logged in board.heard[self._heard :]:
            told = f"{self._clock()}  {logged.level:<8} {name:<18} {one_line(logged.message, 80)}"
            self._console.print(told, soft_wrap=True, markup=False)
        self._heard = len(board.heard)
        if note:
            self._console.print(f"{self._clock()}  {note}", soft_wrap=True)

    def _clock(self) -> str:
        return f"{time.monotonic() - self._begun:5.1f} s"

    def _line(self, execution: Execution) -> str:
        words = f"{self._clock()}  {execution.status:<8} {execution.task_name:<18}"
        if execution.attempt > 1:
            words += f" attempt {execution.attempt}"
        if execution.is_completed:
            words += f" in {seconds(execution.duration)}"
        if execution.error is not None:
            words += f": {one_line(execution.error, 80)}"
        return words.rstrip()


def counts(board: Board) -> Text:
    """Give one line of how many tasks are in which status."""
    found = board.counts()
    parts = [
        Text(f"{found[status]} {word}", style=COLOURS[status])
        for status, word in _WORDS.items()
        if found.get(status)
    ]
    return Text(" · ", style="dim").join(parts)


def _table(board: Board, *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("task", no_wrap=True)
    if wide:
        table.add_column("what it shows", style="dim", no_wrap=True)
    table.add_column("status", no_wrap=True, min_width=9)
    table.add_column("try", justify="right")
    table.add_column("progress", no_wrap=True, min_width=BAR + 5)
    table.add_column("worker", justify="right", style="dim")
    table.add_column("time", justify="right", no_wrap=True, min_width=6)
    for row in board.rows:
        cells = _cells(row)
        if wide:
            cells.insert(1, row.kind.title)
        table.add_row(*cells)
    return table


def _cells(row: Row) -> list[Text | str]:
    execution = row.execution
    if execution is None:
        return [Text("not sent yet", style="dim"), "", "", "", "", ""]
    return [
        Text(execution.task_name),
        status_text(execution.status),
        str(execution.attempt) if execution.runs else "",
        _bar(execution.metadata.get("progress_percent")),
        _process(execution),
        seconds(_age(execution)),
    ]


def _heard(name: str, line: LogLine) -> Text:
    told = Text(f"{line.at:%H:%M:%S} ", style="dim").append(f"{line.level:<8}", style="cyan")
    return told.append(f"{name}: ", style="dim").append(one_line(line.message, 80), style="default")


def status_text(status: TaskStatus) -> Text:
    """Give a status with its sign, in its colour."""
    return Text(f"{SIGNS[status]} {status}", style=COLOURS[status])


def _bar(percent: object) -> Text:
    if not isinstance(percent, int):
        return Text()
    done = BAR * percent // 100
    style = "green" if percent == 100 else "cyan"
    bar = Text("━" * done, style=style).append("━" * (BAR - done), style="bright_black")
    return bar.append(f" {percent:3d}%", style="dim")


def _process(execution: Execution) -> str:
    """Give the process id out of a worker's id, ``host:pid:hex``."""
    parts = (execution.worker or "").split(":")
    return one_line(parts[1]) if len(parts) == 3 else one_line(execution.worker or "", 12)


def _age(execution: Execution) -> float | None:
    if execution.is_running and execution.started_at is not None:
        return max(0.0, (datetime.now(UTC) - execution.started_at).total_seconds())
    return execution.duration
