"""The command line: ``aiotrack`` and ``taskiq track``. One module for each group of verbs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from aiotrack.errors import MissingExtra

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, *, name: str = "aiotrack") -> int:
    """Run one command and give its exit code.

    Args:
        arguments: What stands behind the program's name; None takes that of this process.
        name: What the program is called in its help.

    Returns:
        One of `aiotrack.cli.codes`: 0 done, 1 the answer is no, 2 wrong use, 3 a server is away,
        4 unknown id, 70 a fault, 130 stopped by Ctrl-C, 141 nobody reads on.
    """
    try:
        from aiotrack.cli.app import run
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"rich", "typer"}:
            raise
        print(f"aiotrack: {MissingExtra(package, 'cli', 'the command line')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while modules load; later on the verbs see to it
        return 130
    return run(sys.argv[1:] if arguments is None else arguments, name)
