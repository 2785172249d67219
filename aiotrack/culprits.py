"""Tasks whose reports the database does not take: they wait apart, and all others go on.

A transaction that somebody forgot may hold the lock of a row for hours, a trigger may refuse one:
whether it refuses all is only known when others were tried. What is told of such a task is tried
alone then, over a connection of its own, now and then.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiotrack.errors import StoreUnavailable
from aiotrack.outage import Outage
from aiotrack.report import Report

log = logging.getLogger(__name__)

PAUSE = 2.0
"""Seconds between two tries of a task."""

LONG = 10
"""Of so many tries the last may take long: the others only see whether a lock is still held."""

PARTS = 8
"""Into so many a group is divided that got no answer: each search for the culprit takes seconds."""

Write = Callable[[Sequence[Report]], Awaitable[Sequence[Report] | None]]
"""Commits reports; gives those that can never be stored, which were told of in the log."""


WriteApart = Callable[[Sequence[Report], bool], Awaitable[Sequence[Report] | None]]
"""Does so alone, for a moment only or, when told to be patient, for as long as others may."""


class Unanswered(StoreUnavailable):
    """The database is there, and gave no answer to this write in time."""


class Refused(StoreUnavailable):
    """The database blames the data, and took nothing else of the write that would prove it."""


class Culprits:
    """The tasks that wait apart.

    Args:
        loop: Where they are tried.
        outage: Nobody is tried in one.
        write: Commits reports of one task, whatever others write meanwhile.
        find: Gives all that waits of a task.
        written: Called with what was written of a task, and with what of it never can be.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outage: Outage,
        write: WriteApart,
        find: Callable[[str], list[Report]],
        written: Callable[[Sequence[Report], Sequence[Report]], None],
    ) -> None:
        self._loop = loop
        self._outage = outage
        self._write = write
        self._find = find
        self._written = written
        self.due: dict[str, float] = {}
        """When each is tried again, on the loop's clock, by its task_id."""
        self._tries: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, task_id: str, error: Exception) -> None:
        """Let a task wait apart."""
        what = "the database does not take task %s; others are recorded without it: %s"
        log.warning(what, task_id, error)
        self.due[task_id] = self._loop.time() + PAUSE
        self.go()

    async def leave_out(
        self, reports: Sequence[Report], write: Write
    ) -> tuple[list[Report], Sequence[Report]]:
        """Write what is told of other tasks; one report that is not taken alone waits apart, too.

        Returns:
            What waits apart, and what can never be stored.
        """
        apart = [report for report in reports if report.origin.task_id in self.due]
        others = [report for report in reports if report.origin.task_id not in self.due]
        lost: Sequence[Report] = ()
        if others:
            try:
                lost = await write(others) or ()
            except (Unanswered, Refused) as error:
                if len(others) > 1:
                    raise
                self.add(others[0].origin.task_id, error)
                apart += others
        if any(report.origin.task_id not in self.due for report in apart):  # meanwhile
            apart, more = await self.leave_out(apart, write)
            lost = [*lost, *more]
        return apart, lost

    def hurry(self) -> None:
        """Try all of them now: whatever held them may be over."""
        now = self._loop.time()
        for task_id, due in self.due.items():
            self.due[task_id] = min(due, now)

    def go(self) -> None:
        """Try them when they are due."""
        if self.due and (self._task is None or self._task.done()):
            context = contextvars.Context()  # of no run
            self._task = self._loop.create_task(
                self._try_all(), name="aiotrack-culprits", context=context
            )

    def stop(self) -> None:
        """Try them no more; what is told of them is left."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _try_all(self) -> None:
        while self.due:
            task_id = min(self.due, key=self.due.__getitem__)
            left = self.due[task_id] - self._loop.time()
            if left > 0 or self._outage.since is not None:  # one that waits for it is enough
                await asyncio.sleep(min(max(left, 0.1), PAUSE / 2))  # they may be hurried
            elif not await self._try(task_id):
                self.due[task_id] = self._loop.time() + PAUSE

    async def _try(self, task_id: str) -> bool:
        """Write what there is of a task; False when it has to be tried again."""
        reports = self._find(task_id)
        tries = self._tries[task_id] = self._tries.get(task_id, 0) + 1
        try:
            lost = await self._write(reports, tries % LONG == 0) if reports else ()
        except Exception as error:  # also a fault of ours: they must all be tried again
            log.debug("task %s still waits apart: %s", task_id, error)
            return False
        del self.due[task_id], self._tries[task_id]
        if not lost:
            log.warning("task %s is recorded again", task_id)
        self.hurry()
        self._written(reports, lost or ())
        return True
