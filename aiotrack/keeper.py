"""The journal as the recorder sees it: grouped, in a thread of its own, replayed in pieces."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any, ParamSpec, TypeVar

from aiotrack.backlog import weigh
from aiotrack.culprits import PARTS, Unanswered
from aiotrack.journal import Journal, Orphan
from aiotrack.report import Report

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PIECE = 500
"""Reports that are replayed at once, between two groups of fresh ones; half as many after each
piece that fails: it may be too large for the time that a statement has."""

STREAK = 8
"""Pieces of one size that go well before the next is twice as large: to meet the limit again is an
outage each time."""

AT_STOP = 5000
"""Reports that are appended at once at a stop: their frames are in memory, too."""

AT_ONCE = 1024 * 1024
"""Bytes, as they count in memory, that are appended at once while hooks wait: so a disk that is
slow is told from one that stands still."""

STALL = 1.0
"""Seconds in which no append ends, after which no hook waits for the disk."""

LATE = 0.1
"""Seconds by which a timer comes late when a body has blocked the loop."""

LOOK_AGAIN = 60.0
"""Seconds between two looks for journals of processes that are gone."""

Write = Callable[[Sequence[Report]], Awaitable[Sequence[Report] | None]]
"""Commits reports; gives those that the journal has to keep."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A report that is to be kept, and who asks for it."""

    report: Report
    hook: asyncio.Future[bool]
    kept: asyncio.Future[bool] | None
    is_patient: bool

    def tell(self, is_kept: bool) -> None:  # noqa: FBT001 - nothing else it could mean
        if is_kept and self.kept is not None:
            self.kept.set_result(True)  # first: the hook looks at it
        if not self.hook.done():
            self.hook.set_result(is_kept)


class _StandsStillError(Exception):
    """The journal's disk did not answer in time."""


class Keeper:
    """Keeps reports in a journal while the database is away.

    Args:
        journal: Where to.
        write: Commits reports, and gives those that wait apart; raises when the database is away
            again.
    """

    def __init__(self, journal: Journal, write: Write) -> None:
        self._journal = journal
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aiotrack-journal")
        self._queue: list[_Entry] = []
        self._late: list[_Entry] = []
        """What the disk did not take in time: it is in memory, too."""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._replayed = 0
        self._adopted = 0
        self._keeps = self._begins_anew = False
        self._piece = PIECE
        self._streak = 0
        self._orphans: list[Orphan] = []
        self._next_look = 0.0
        self._is_broken = self._is_blind = self._is_full = False
        self._is_stalled = self._is_slow = False

    @property
    def has_work(self) -> bool:
        """Whether something waits to be replayed."""
        return not self._is_stalled and (self.has_unread or bool(self._orphans) or self.is_due)

    @property
    def has_unread(self) -> bool:
        """Whether the journal of this process was not replayed to its end, or can be cleared."""
        is_read = self._keeps and not self._begins_anew and self._replayed >= self._journal.size
        return self._journal.size > 0 and not is_read

    @property
    def is_due(self) -> bool:
        """Whether to look for journals of processes that are gone."""
        return time.monotonic() >= self._next_look

    @property
    def is_holding(self) -> bool:
        """Whether reports of this process wait in the journal."""
        return self._journal.size > 0 or bool(self._queue)

    async def keep(
        self,
        report: Report,
        kept: asyncio.Future[bool] | None = None,
        *,
        is_patient: bool = False,
    ) -> bool:
        """Keep one report; True when it is on the disk, False when it has to stay in memory.

        Args:
            report: What to keep.
            kept: Is done when it is on the disk; where that stood still, long after the answer.
            is_patient: To be tried until then, however many there are: its task waits for *kept*.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(report, loop.create_future(), kept, is_patient)
        if self._is_stalled:
            if is_patient:
                self._late.append(entry)
            return False
        self._queue.append(entry)
        if self._task is None or self._task.done():
            context = contextvars.Context()  # of no run: it would keep what belongs to it
            self._task = loop.create_task(self._append_all(), context=context)
        return await entry.hook

    async def keep_all(self, reports: Sequence[Report]) -> int:
        """Keep many at a stop, the first ones first; gives how many."""
        self._late.clear()  # memory had them, so they are among these
        kept = 0
        while kept < len(reports):
            count = await self._append(reports[kept : kept + AT_STOP])
            kept += count
            if count < AT_STOP:
                break
        return kept

    def save(self, reports: Sequence[Report]) -> int:
        """Keep many without a loop, at the end of a process; gives how many of *reports*.

        In a file of their own: the thread may be writing to the other. What waits for that thread
        goes along.
        """
        journal = self._journal.another()
        try:
            return min(
                len(reports), journal.append([*reports, *(one.report for one in self._queue)])
            )
        except OSError as error:
            log.error("the journal cannot be written: %s", error)
            return 0
        finally:
            journal.close()

    def let_go(self) -> None:
        """Let the files go, without a loop: others adopt what they hold."""
        for orphan in self._orphans:
            orphan.close()
        self._orphans = []
        self._journal.close()
        self._thread.shutdown(wait=False)

    def after_fork(self) -> None:
        """Let the parent's files go in a child."""
        for orphan in self._orphans:
            orphan.close()
        self._journal.after_fork()

    async def replay(self) -> bool:
        """Write one piece of what is kept, of this process or of those that are gone.

        A fault of the disk is no outage of the database: it is logged, and what it left is looked
        at again in a minute.

        Returns:
            False when all of the piece waits apart: nobody heard from the database.

        Raises:
            StoreError: The database is away again; nothing is lost.
        """
        if self._is_stalled:  # the thread waits for the disk: fresh reports shall not
            return True
        try:
            return await self._replay()
        except _StandsStillError:
            return True

    async def _replay(self) -> bool:
        if not self._orphans and self.is_due:
            await self._adopt()
        if self.has_unread:
            return await self._replay_own()
        return not self._orphans or await self._replay_orphan(self._orphans[-1])

    async def _adopt(self) -> None:
        """Look for journals of processes that are gone."""
        self._next_look = time.monotonic() + LOOK_AGAIN
        try:
            self._orphans = await self._ask(self._journal.adopt)
            self._is_blind = False
        except OSError as error:
            if not self._is_blind:
                self._is_blind = True
                log.error("the journals of other processes cannot be looked for: %s", error)
        if self._orphans:
            self._next_look = 0.0

    def begin_anew(self) -> None:
        """Nothing waits apart any more: replay the journal once more from its begin, to clear it.

        What waited was in memory, too, and is written; some of it may have had no room there.
        """
        self._begins_anew = self._keeps

    async def _replay_own(self) -> bool:
        if self._begins_anew:
            self._begins_anew, self._keeps, self._replayed = False, False, 0
        try:
            reports, after = await self._ask(self._journal.read, self._replayed, self._piece)
            if after == self._replayed and not self._keeps:
                self._replayed = 0  # at once: a stop may cancel this, and the thread clears it
                if await self._ask(self._journal.clear, after):
                    return True
        except OSError as error:
            log.error("the journal cannot be used; it is left where it is: %s", error)
            await self._call(self._journal.leave)
            self._keeps, self._replayed = False, 0
            return True
        apart = await self._write_piece(reports) if reports else ()
        self._keeps = self._keeps or bool(apart)
        self._replayed = after
        return not apart or len(apart) < len(reports)

    async def _replay_orphan(self, orphan: Orphan) -> bool:
        try:
            reports, after = await self._ask(orphan.read, self._adopted, self._piece)
        except OSError as error:
            log.error("%s cannot be read; it is left where it is: %s", orphan.path, error)
            await self._leave(orphan)
            return True
        apart = await self._write_piece(reports) if reports else ()
        if apart and await self._append(apart) < len(apart):
            await self._leave(orphan)
        elif after > self._adopted:
            self._adopted = after
        else:
            if self._adopted:
                log.warning("the journal of a process that is gone was replayed: %s", orphan.path)
            await self._let_go(orphan.remove)
        return not apart or len(apart) < len(reports)

    async def _leave(self, orphan: Orphan) -> None:
        """Leave the last orphan to others, or to a later look."""
        await self._let_go(orphan.close)
        self._next_look = time.monotonic() + LOOK_AGAIN

    async def _write_piece(self, reports: Sequence[Report]) -> Sequence[Report]:
        try:
            apart = await self._write(reports) or ()
        except Exception as error:
            parts = PARTS if isinstance(error, Unanswered) else 2
            self._piece, self._streak = max(1, len(reports) // parts), 0
            raise
        self._streak += 1
        if self._streak == STREAK:
            self._piece, self._streak = min(PIECE, 2 * self._piece), 0
        return apart

    async def _let_go(self, how: Callable[[], None]) -> None:
        """Be done with the last orphan."""
        orphan = self._orphans.pop()
        self._adopted = 0
        try:
            await self._call(how)
        except OSError as error:
            log.error("%s cannot be removed: %s", orphan.path, error)
            self._next_look = time.monotonic() + LOOK_AGAIN

    async def close(self) -> None:
        """Let the files go."""
        if self._task is not None:
            await asyncio.wait({self._task})  # the end of a loop may have cancelled it
        for orphan in self._orphans:
            await self._call(orphan.close)
        await self._call(self._journal.close)
        self._thread.shutdown(wait=False)
        self._next_look = math.inf

    async def _append_all(self) -> None:
        while waiting := self._queue or self._late:
            piece = waiting[: _cut(waiting)]
            del waiting[: len(piece)]
            self._watch(piece)
            try:
                count = await self._append([one.report for one in piece])
            finally:
                if self._timer is not None:
                    self._timer.cancel()
                self._is_slow = self._is_stalled
                self._is_stalled = False
            for position, one in enumerate(piece):
                one.tell(position < count)

    def _watch(self, piece: Sequence[_Entry], *, is_spared: bool = False) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + STALL

        def ring() -> None:
            if loop.time() - due > LATE and not is_spared:
                self._watch(piece, is_spared=True)  # the thread may have stood as still as the loop
            else:
                self._stall(piece)

        self._timer = loop.call_at(due, ring)

    def _stall(self, piece: Sequence[_Entry]) -> None:
        """Let the hooks go; the append goes on in its thread, and so does what follows it."""
        self._is_stalled = True
        self._tell_stalled()
        rest = [*self._late, *self._queue]
        few = _cut(rest)  # of those that nobody waits for: memory is bounded, and counts its losses
        self._queue = []
        self._late = [one for at, one in enumerate(rest) if at < few or one.is_patient]
        for one in (*piece, *rest):
            one.tell(False)

    async def _append(self, reports: Sequence[Report]) -> int:
        was_empty = self._journal.size == 0
        try:
            count = await self._call(self._journal.append, reports)
        except Exception as error:
            if not self._is_broken:
                self._is_broken = True
                log.error("the journal cannot be written: %s", error)
            return 0
        self._is_broken = False
        if was_empty:
            self._is_full = False
        if count < len(reports) and not self._is_full:
            self._is_full = True
            log.error("the journal is full at %d bytes: the rest is in memory", self._journal.size)
        return count

    async def _ask(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do as `_call`, for a second: a disk that stands still is no outage of the database."""
        done = asyncio.ensure_future(self._call(work, *args, **kwargs))
        await asyncio.wait({done}, timeout=STALL)
        if done.done():
            return done.result()
        self._is_stalled = True
        self._tell_stalled()
        done.add_done_callback(self._goes_on)
        raise _StandsStillError

    def _goes_on(self, done: asyncio.Future[Any]) -> None:
        self._is_stalled = False
        if not done.cancelled():
            done.exception()  # heard: it is read again

    def _tell_stalled(self) -> None:
        if not self._is_slow:  # told when the one before it went well
            log.error("the journal's disk does not answer: final reports stay in memory until then")
        self._is_slow = True

    async def _call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))


def _cut(entries: Sequence[_Entry]) -> int:
    """Give how many of them are appended at once."""
    sizes = accumulate(weigh(one.report) for one in entries)
    return max(1, sum(1 for _ in takewhile(lambda size: size <= AT_ONCE, sizes)))
