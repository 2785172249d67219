"""What every verb prints with: the console, and JSON for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from aiotrack import Attempt, Counts, Execution, Stats

PIPE_WIDTH = 160
"""Columns where no terminal says how many there are."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON; times are UTC.")]


def console() -> Console:
    """Give the console on stdout; foreign text is never read as markup or emoji."""
    found = Console(highlight=False, emoji=False)
    if not found.is_terminal and "COLUMNS" not in found._environ:  # noqa: SLF001
        found.width = PIPE_WIDTH
    return found


def print_json(data: Any) -> None:
    """Print *data* as JSON."""
    json.dump(data, sys.stdout, indent=2, ensure_ascii=False, default=simple)
    sys.stdout.write("\n")


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
