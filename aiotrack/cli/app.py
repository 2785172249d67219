"""The program: its verbs, and how what goes wrong is told: one line, and an exit code."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aiotrack import __version__
from aiotrack.cli import (
    audit,
    cancel,
    config,
    database,
    demo,
    doctor,
    explain,
    follow,
    locks,
    logs,
    records,
    report,
    rerun,
    schedules,
    serve,
    sweep,
    tasks,
    workers,
)
from aiotrack.errors import AioTrackError, LockUnavailable, ScheduleUnavailable, StoreError
from aiotrack.terminal import block

FAILED = 1  # not found, or a check failed
USAGE = 2  # wrong usage or setting
NO_DATABASE = 3

FAILURES = {"definition-not-found", "demo-failed", "execution-not-found", "server-failed"}
"""Codes of errors that are neither the user's fault nor the database's."""


class Program(TyperGroup):
    """Tells errors of aiotrack as a line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except AioTrackError as error:
            typer.echo(f"aiotrack: {block(str(error))}", err=True)
            raise typer.Exit(exit_code(error)) from error


def exit_code(error: AioTrackError) -> int:
    """Give the exit code for an error."""
    if error.code in FAILURES:
        return FAILED
    is_away = isinstance(error, StoreError | LockUnavailable | ScheduleUnavailable)
    return NO_DATABASE if is_away else USAGE


app = typer.Typer(
    cls=Program,
    help="See what the tasks of a TaskIQ project did.",
    epilog="Exit codes: 0 fine, 1 not found or failed, 2 wrong usage, 3 no database or Redis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aiotrack {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


demo.add_to(app)
doctor.add_to(app)
explain.add_to(app)
follow.add_to(app)
serve.add_to(app)
records.add_to(app)
report.add_to(app)
cancel.add_to(app)
logs.add_to(app)
workers.add_to(app)
audit.add_to(app)
rerun.add_to(app)
tasks.add_to(app)
app.add_typer(locks.app, name="locks")
app.add_typer(schedules.app, name="schedules")
app.add_typer(sweep.app, name="sweep")
app.add_typer(config.app, name="config")
app.add_typer(database.app, name="db")


@app.command()
def version() -> None:
    """Show the version."""
    _print_version(wanted=True)


def run(arguments: Sequence[str], name: str = "aiotrack") -> int:
    """Run one command and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app(list(arguments), prog_name=name)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
