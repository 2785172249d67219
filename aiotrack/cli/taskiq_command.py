"""``taskiq track ...``: the command line as a plug-in of TaskIQ's own."""

from __future__ import annotations

from collections.abc import Sequence

from taskiq.abc.cmd import TaskiqCMD

from aiotrack.cli import main


class TrackCommand(TaskiqCMD):
    """Hands everything behind ``taskiq track`` to `aiotrack.cli.main`."""

    short_help = "Look at recorded executions (aiotrack)"

    def exec(self, args: Sequence[str]) -> int | None:
        """Run one command and give its exit code."""
        return main(args, name="taskiq track")
