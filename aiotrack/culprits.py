"""Tasks whose reports the database does not answer for: they wait apart, and all others go on.

A transaction that somebody forgot may hold the lock of a row for hours. What is told of its task is
tried alone then, over a connection of its own, and now and then.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiotrack.errors import StoreUnavailable
from aiotrack.report import Report

log = logging.getLogger(__name__)

PAUSE_FIRST, PAUSE_LAST = 1.0, 60.0
"""Seconds between two tries of a task: doubled from the first to the last."""

SHARE = 10
"""A pause is so many times as long as its try: who waits for a lock is in others' way, too."""

PARTS = 8
"""Into so many a group is divided that got no answer: each search for the culprit takes seconds."""

Write = Callable[[Sequence[Report]], Awaitable[Sequence[Report] | None]]
"""Commits reports; gives those that can never be stored, which were told of in the log."""


class Unanswered(StoreUnavailable):
    """The database is there, and gave no answer to this write in time."""


class Refused(StoreUnavailable):
    """The database blames the data, and took nothing else of the write that would prove it."""


class Culprits:
    """The tasks that wait apart.

    Args:
        loop: Where they are tried.
        write: Commits reports of one task, whatever others write meanwhile.
        find: Gives all that waits of a task.
        written: Called with what was written of a task, and with what of it never can be.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Write,
        find: Callable[[str], list[Report]],
        written: Callable[[Sequence[Report], Sequence[Report]], None],
    ) -> None:
        self._loop = loop
        self._write = write
        self._find = find
        self._written = written
        self.due: dict[str, float] = {}
        """When each is tried again, on the loop's clock, by its task_id."""
        self._pauses: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, task_id: str, error: Exception) -> None:
        """Let a task wait apart."""
        what = "the database gives no answer for task %s; others are recorded without it: %s"
        log.warning(what, task_id, error)
        self._pauses[task_id] = PAUSE_FIRST
        self.due[task_id] = self._loop.time() + PAUSE_FIRST
        self.go()

    async def leave_out(
        self, reports: Sequence[Report], write: Write
    ) -> tuple[list[Report], Sequence[Report]]:
        """Write what is told of other tasks; one report that gets no answer waits apart, too.

        Returns:
            What waits apart, and what can never be stored.
        """
        apart = [report for report in reports if report.origin.task_id in self.due]
        others = [report for report in reports if report.origin.task_id not in self.due]
        lost: Sequence[Report] = ()
        if others:
            try:
                lost = await write(others) or ()
            except Unanswered as error:
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
            begun = self._loop.time()
            if begun < self.due[task_id]:
                await asyncio.sleep(min(self.due[task_id] - begun, PAUSE_FIRST))  # some may hurry
                continue
            if not await self._try(task_id):
                pause = min(2 * self._pauses[task_id], PAUSE_LAST)
                now = self._loop.time()
                self._pauses[task_id] = pause
                self.due[task_id] = now + max(pause, SHARE * (now - begun))

    async def _try(self, task_id: str) -> bool:
        """Write what there is of a task; False when it has to be tried again."""
        reports = self._find(task_id)
        try:
            lost = await self._write(reports) if reports else ()
        except Exception as error:  # also a fault of ours: they must all be tried again
            log.debug("task %s still waits apart: %s", task_id, error)
            return False
        del self.due[task_id], self._pauses[task_id]
        log.warning("task %s is recorded again", task_id)
        self.hurry()
        self._written(reports, lost or ())
        return True
