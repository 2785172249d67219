"""The program: how verbs are found, and how what goes wrong is told: one line, and an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from aiotrack import __version__
from aiotrack.cli.codes import DONE, FAULT, UNREAD, exit_code
from aiotrack.cli.verbs import GROUPS, VERBS
from aiotrack.errors import AioTrackError
from aiotrack.terminal import block, one_line

EPILOG: Final = (
    "Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 a server is away, 4 unknown id. "
    "A verb's own help tells more: aiotrack list --help."
)


class Program(TyperGroup):
    """Loads a verb when it is asked for, and tells errors of aiotrack as a line."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, verb in VERBS.items():
            self.commands[name] = TyperCommand(name, help=verb.told)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that is meant."""
        if args and args[0] in VERBS:
            self.commands.update(loaded(VERBS[args[0]].module))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs by what they are for."""
        del ctx
        for title, verbs in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, verb.told) for name, verb in verbs.items()])

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            given = super().invoke(ctx)
            sys.stdout.flush()
        except AioTrackError as error:
            typer.echo(f"aiotrack: {one_line(str(error))}", err=True)
            raise typer.Exit(exit_code(error)) from error
        except BrokenPipeError as error:
            # What is still in the buffer would be a traceback when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(UNREAD) from error
        return given


def loaded(module: str) -> dict[str, Any]:
    """Give the verbs that a module adds."""
    holder = typer.Typer(rich_markup_mode=None)
    import_module(f"aiotrack.cli.{module}").add_to(holder)
    return dict(typer.main.get_group(holder).commands)


app = typer.Typer(
    cls=Program,
    help="See what the tasks of a TaskIQ project did.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: it is quick, and reads the same in a pipe
    context_settings={"help_option_names": ["-h", "--help"]},
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


class _Harmless(logging.Formatter):
    """Lets no foreign text in a log steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return block(super().format(record))


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def run(arguments: Sequence[str], name: str = "aiotrack") -> int:
    """Run one command and give its exit code."""
    # Python has no such stream where a shell or a service manager has closed it.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    told = logging.StreamHandler()
    told.setFormatter(_Harmless("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[told])
    try:
        app(list(arguments), prog_name=name)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception:
        traceback.print_exc()
        return FAULT
    return DONE
