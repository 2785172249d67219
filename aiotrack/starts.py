"""The runs in flight, and which of them last: only their starts are reported."""

from __future__ import annotations

from aiotrack.report import Beginning, Report


class Starts:
    """Runs by their age: the young were not here a turn ago."""

    def __init__(self) -> None:
        self.running: dict[Beginning, None] = {}
        """All of them, in the order in which they began."""
        self._young: dict[Beginning, None] = {}
        self._older: dict[Beginning, None] = {}

    def begin(self, run: Beginning) -> None:
        """Take a run that begins."""
        self.running[run] = self._young[run] = None

    def end(self, run: Beginning) -> None:
        """Let a run go that is over."""
        self.running.pop(run, None)
        if run in self._young:
            del self._young[run]
        else:
            self._older.pop(run, None)

    def turn(self) -> list[Report]:
        """Give the starts of the runs that were here a turn ago; the young ones grow older."""
        lasting, self._older, self._young = self._older, self._young, {}
        return [run.started() for run in lasting if not run.is_told]

    def all(self) -> list[Report]:
        """Give every start that was not reported."""
        runs = (*self._older, *self._young)
        self._young, self._older = {}, {}
        return [run.started() for run in runs if not run.is_told]

    @property
    def has_more(self) -> bool:
        """Whether the next turn has a run to look at."""
        return bool(self._older)
