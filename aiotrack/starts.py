"""The runs in flight, and which of them last: only their starts are reported."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable

from aiotrack.report import Beginning, Report

LINGER = 0.05
"""Seconds that a report nobody waits for (progress) may lie, and a run's start at least."""


class Starts:
    """Runs by their age: the young were not here a turn ago.

    Args:
        loop: Where the turns are.
        tell: Called at each turn with the starts of the runs that last.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tell: Callable[[Iterable[Report]], None]
    ) -> None:
        self._loop = loop
        self._tell = tell
        self.running: dict[Beginning, None] = {}
        """All of them, in the order in which they began."""
        self._young: dict[Beginning, None] = {}
        self._older: dict[Beginning, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, run: Beginning) -> None:
        """Take a run that begins."""
        self.running[run] = self._young[run] = None
        if self._timer is None:
            self.linger()

    def end(self, run: Beginning) -> None:
        """Let a run go that is over."""
        self.running.pop(run, None)
        if run in self._young:
            del self._young[run]
        else:
            self._older.pop(run, None)

    def all(self) -> list[Report]:
        """Give every start that was not reported."""
        runs = (*self._older, *self._young)
        self._young, self._older = {}, {}
        return [run.started() for run in runs if not run.is_told]

    def linger(self) -> None:
        """Have a turn soon, if none is to come."""
        if self._timer is None:
            context = contextvars.Context()  # of no run: it would keep what belongs to it
            self._timer = self._loop.call_later(LINGER, self._turn, context=context)

    def stop(self) -> None:
        """Have no more turns."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        """Tell of the runs that were here a turn ago; the young ones grow older."""
        self._timer = None
        lasting, self._older, self._young = self._older, self._young, {}
        if self._older:
            self.linger()
        self._tell([run.started() for run in lasting if not run.is_told])
