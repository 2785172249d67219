"""What every verb prints with: the console, and JSON for programs."""

from __future__ import annotations

import codecs
import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console

from aiotrack import Attempt, Counts, Execution, Stats
from aiotrack.terminal import UNSEEN

PIPE_WIDTH: Final = 10_000
"""Columns where no terminal says how many there are: nothing is folded or cut for a program."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON; times are UTC.")]


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the program, which ends with a code of its own."""
        raise BrokenPipeError


def console(pipe_width: int = PIPE_WIDTH) -> Console:
    """Give the console on stdout; foreign text is never read as markup or emoji."""
    found = _Console(highlight=False, emoji=False)
    if not found.is_terminal and "COLUMNS" not in found._environ:  # noqa: SLF001
        found.width = pipe_width
    return found


def room(out: Console, width: int) -> int | None:
    """Give the columns that a name may take: any in a pipe, where a program reads it."""
    return width if out.is_terminal else None


def print_json(data: Any) -> None:
    """Print *data* as JSON."""
    sys.stdout.write(json_text(data, indent=2) + "\n")


def print_json_line(data: Any) -> None:
    """Print *data* as a line of JSON, at once."""
    sys.stdout.write(json_text(data) + "\n")
    sys.stdout.flush()


def json_text(data: Any, indent: int | None = None) -> str:
    """Give *data* as JSON that does no harm to a terminal, and that stdout can encode."""
    is_plain = not _takes_unicode(sys.stdout.encoding)
    text = json.dumps(data, indent=indent, ensure_ascii=is_plain, default=simple)
    return text.translate(_ESCAPED)


def _takes_unicode(encoding: str | None) -> bool:
    return encoding is not None and codecs.lookup(encoding).name == "utf-8"


# Outside of texts JSON is ASCII: whatever is found here stands in a text, where an escape means it.
_ESCAPED: Final = {code: json.dumps(chr(code))[1:-1] for code in UNSEEN if code > 127}
_ESCAPED[127] = "\\u007f"


def execution_data(execution: Execution) -> dict[str, Any]:
    """Give an execution as JSON knows it."""
    return asdict(execution) | {
        "wait": execution.wait,
        "is_completed": execution.is_completed,
        "is_running": execution.is_running,
        "is_success": execution.is_success,
    }


def attempt_data(attempt: Attempt) -> dict[str, Any]:
    """Give a run of an execution as JSON knows it."""
    return asdict(attempt)


def stats_data(stats: Stats) -> dict[str, Any]:
    """Give counts as JSON knows them."""
    return _counts_data(stats) | {
        "by_module": {name: _counts_data(part) for name, part in stats.by_module.items()},
        "by_task_name": {name: _counts_data(part) for name, part in stats.by_task_name.items()},
    }


def _counts_data(counts: Counts) -> dict[str, Any]:
    return asdict(counts) | {"failure_rate": counts.failure_rate}


def simple(value: object) -> str:
    """Give what JSON has no word for as text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
