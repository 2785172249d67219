"""Group commit: reports gather while a group is being written, and go together in the next.

A hook that must be durable waits for the group that holds its report, but never longer than the
budget; when a group starts is `Pace`'s to say. A run's start is reported only when the run turns
out to last: the end of a quick one tells it all, in one write.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from aiotrack.backlog import Key, Room, key_of
from aiotrack.culprits import Culprits, Write, WriteApart
from aiotrack.groups import GROUP, Groups
from aiotrack.keeper import Keeper
from aiotrack.outage import Outage
from aiotrack.pace import Alarm, Pace, Waiting
from aiotrack.report import Beginning, Report, Witness
from aiotrack.starts import Starts

PATIENCE = 0.25
"""Seconds that a final report waits for a database that fails: longer than it takes to connect
anew after a cut. Then the journal takes it, and its task goes on before the budget is over."""

LAST_WORDS = (Witness.ENDED, Witness.HANDED_BACK)
"""What only its reporter knows: the journal keeps it. (A tuple: an enum hashes slowly.)"""

PAUSE = 0.005
"""Seconds between two groups of which the first did not hold all that somebody waits for."""

STOP = 0.5
"""Seconds that a write gets to end when it is cancelled."""


class Recorder:
    """The buffer and the writer of one event loop.

    Args:
        write: Commits reports; raises `StoreError` when they must be written again.
        write_apart: Does the same over another connection, for those that hold up all others.
        budget: Seconds that `commit` waits at most.
        max_backlog: Reports kept in memory while the database is away; long ones count for more.
        keeper: Takes final reports then; without one they are kept in memory.
        block_ack: When nothing can keep a final report, let its task wait instead.
    """

    def __init__(
        self,
        write: Write,
        *,
        write_apart: WriteApart | None = None,
        budget: float = 1.0,
        max_backlog: int = 16_000,
        keeper: Keeper | None = None,
        block_ack: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._write = write
        self._keeper = keeper
        self._blocks = block_ack
        self._budget = budget
        self._reports = Groups(min(GROUP, max_backlog))
        self._starts = Starts(self._loop, self._tell)
        self.running = self._starts.running
        """The runs in flight, in the order in which they began."""
        self._held: list[Waiting] = []
        self._is_wanted = False
        self._idle: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage(self._loop)
        self._culprits = Culprits(
            self._loop,
            self._outage,
            write_apart or (lambda reports, _: write(reports)),
            self._reports.of_task,
            self._written,
        )
        self._apart = self._culprits.due
        self._is_closing = False
        self._pace = Pace(self._loop, self._go)
        self._alarm = Alarm(self._loop, budget, self._groups, self._give_up)
        self.counters: Counter[str] = Counter()
        """``reports``, ``flushed``, ``groups``, ``failures``, ``late``, ``dropped_<witness>``."""
        spared = LAST_WORDS if block_ack else ()
        self._room = Room(max_backlog, self.counters, self._alarm.let_go, spared)

    @property
    def backlog(self) -> int:
        """Reports that are not committed yet."""
        return len(self._reports)

    @property
    def is_stalled(self) -> bool:
        """Whether the database has been away for longer than the budget: nobody waits for it."""
        return self._outage.lasted(self._budget)

    def start(self) -> None:
        """Look for journals that other processes left."""
        self._go()

    @property
    def is_busy(self) -> bool:
        """Whether runs are in flight."""
        return self._pace.live > 0

    def begin(self, run: Beginning) -> None:
        """Take a run that begins; its start is reported if it lasts."""
        self._pace.begin()
        self._starts.begin(run)

    def end(self, run: Beginning) -> None:
        """Let a run go that is over."""
        self._starts.end(run)
        self._pace.end()

    def tell_starts(self) -> None:
        """Report every start now."""
        for report in self._starts.all():
            self._put(report)

    def add(self, report: Report) -> None:
        """Take a report that nobody waits for."""
        self._put(report)
        self._starts.linger()

    async def commit(self, report: Report, *, at_once: bool = False) -> bool:
        """Take a report and wait until it is committed.

        Args:
            report: What to record.
            at_once: Do not gather: the caller is no run in flight.

        Returns:
            False when the budget was over first: the report is kept and written later. True also
            for one that is refused for good, which is logged and counted as dropped.
        """
        self.counters["reports"] += 1
        is_final = self._keeper is not None and report.witness in LAST_WORDS
        if self._outage.since is not None or self._apart:
            patience = min(PATIENCE, self._budget) if is_final else self._budget
            if self._outage.lasted(patience) or report.origin.task_id in self._apart:
                return await self._keep(report, is_taken=False)
        key = self._hold(report)
        has_room = key in self._reports.buffer
        waiting = self._pace.waiting
        waiter = waiting.by_key[key] = self._pace.join(at_once=at_once)
        if is_final:
            waiting.finals.append(waiter)
        if waiting.since is None:
            self._alarm.watch(waiting)
        if not has_room:
            self._room.miss({key: report.witness})
        try:
            is_committed = await waiter
        except asyncio.CancelledError:
            if key not in waiting.by_key:  # there was no room for it, and nobody else has it now
                self._hold(report)
                self._starts.linger()
            raise
        return is_committed or await self._keep(report, is_taken=key in waiting.by_key)

    async def _keep(self, report: Report, *, is_taken: bool) -> bool:
        """Keep a report that the database does not take in time; False: it is not committed."""
        self.counters["late"] += 1
        is_last_word = report.witness in LAST_WORDS
        kept: asyncio.Future[bool] = self._loop.create_future()
        kept.add_done_callback(lambda _: self._journaled(report), context=contextvars.Context())
        try:
            if is_last_word and self._keeper is not None:
                await self._keeper.keep(report, kept, is_patient=self._blocks)
        finally:  # also when the hook was cancelled
            if not (is_taken or kept.done()):
                self._hold(report)
            self._go()
        while self._blocks and is_last_word and not kept.done() and key_of(report) in self._reports:
            await asyncio.wait({kept, self._pace.next()}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(PAUSE)  # as in `_until`
        return False

    def _journaled(self, report: Report) -> None:
        self.counters["journaled"] += 1
        self._reports.forget(report)  # its hook may have gone on long ago
        self._go()

    async def flush(self, timeout: float | None = None) -> bool:
        """Write all that was taken, the journal's too; False when *timeout* (seconds) is over."""
        self.tell_starts()
        return await self._until(
            lambda: not (self.backlog or (self._keeper and self._keeper.is_holding)), timeout
        )

    async def catch_up(self, timeout: float) -> None:
        """Write what was taken, if it waits; what waits apart is not waited for."""
        has_other = self._reports.has_other_than
        if has_other(self._apart):
            await self._until(
                lambda: not (has_other(self._apart) or (self._keeper and self._keeper.has_unread)),
                timeout,
            )

    async def _until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while not is_done():
                    await self._pace.next()
                    if (
                        not is_done()
                    ):  # a group without what waits apart, or a disk, is over at once
                        await asyncio.sleep(PAUSE)
        except TimeoutError:
            return False
        return True

    async def close(self, timeout: float = 3.0, *, for_good: bool = True) -> list[Report]:
        """Write what is left for at most *timeout* seconds, and stop; the journal takes the rest.

        Returns:
            The reports that nothing took; not *for_good*, runs in flight will start it again.
        """
        self.tell_starts()
        end = self._loop.time() + timeout
        while self._reports.has_other_than(self._apart) and not self.is_stalled:
            if (left := end - self._loop.time()) <= 0:
                break
            await asyncio.wait({self._pace.next()}, timeout=min(left, 0.1))
        self._is_closing = True
        try:
            return await self._stop(for_good=for_good)
        finally:  # also when it is cancelled: the process may live on
            self._is_closing = False
            for waiting in (self._pace.take(), *self._held):
                waiting.release(False)  # a rollback may hang longer than we wait for it
            self._pace.done()

    async def _stop(self, *, for_good: bool) -> list[Report]:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=STOP)  # a rollback may hang, too
            self._task = None
        self._starts.stop()
        self._culprits.stop()
        self._alarm.stop()
        self._pace.stop()
        rest, keeper = self.left(), self._keeper
        kept = 0 if keeper is None else await keeper.keep_all(rest)
        self.counters["journaled"] += kept
        self._reports.forget(
            *(rest if for_good else rest[:kept])
        )  # not before: it may be cancelled
        if keeper is not None and for_good:
            self._keeper = None
            await keeper.close()
        return rest[kept:]

    def left(self) -> list[Report]:
        """Give what is not committed, the most important first."""
        self.tell_starts()
        return self._reports.left()

    def _groups(self) -> Iterable[Waiting]:
        """Give those that wait, the oldest first."""
        return (*self._held, self._pace.waiting)

    def _give_up(self, waiting: Waiting) -> None:
        """Let the hooks go on: their budget is over, and nobody waits before an answer comes."""
        self._outage.presume(self._budget)
        if waiting is self._pace.waiting:
            self._pace.take()
        waiting.release(False)

    def _put(self, report: Report) -> Key:
        self.counters["reports"] += 1
        return self._hold(report)

    def _hold(self, report: Report) -> Key:
        """Keep a report in memory, if there is room for it."""
        return self._reports.hold(report, self._room, is_calm=self._outage.since is None)

    def _go(self) -> None:
        self._is_wanted = True
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        elif (self._task is None or self._task.done()) and not self._is_closing:
            context = contextvars.Context()  # the writer belongs to no run
            self._task = self._loop.create_task(
                self._work(), name="aiotrack-recorder", context=context
            )

    def _tell(self, starts: Iterable[Report]) -> None:
        """Report the starts of runs that last, and write what lay."""
        for report in starts:
            self._put(report)
        if self._reports.buffer:
            self._go()

    async def _work(self) -> None:
        """Write one group after the other, for as long as the loop runs."""
        self._culprits.go()
        while True:
            if not self._is_wanted:
                self._idle = self._loop.create_future()
                await self._idle
            self._is_wanted = False
            held = self._held = list[Waiting]()
            is_done = False
            try:
                await self._write_all(held)
                is_done = True
            finally:
                for waiting in held:  # only now: one write may not have held all of theirs
                    waiting.release(is_done)
                self._pace.done()
            if self._keeper is not None and self._keeper.has_work:
                await self._catch_up(self._keeper)

    async def _write_all(self, held: list[Waiting]) -> None:
        """Write all that is there; while the database is away, also what comes meanwhile."""
        self._take(held)
        while self._reports.writing or self._outage.since is not None:
            was_away = self._outage.since is not None
            if not await self._try():
                self._reports.give_back()
                await asyncio.sleep(self._outage.pause())
                self._take(held, GROUP)
            elif was_away:
                self._take(held)

    def _take(self, held: list[Waiting], count: int | None = None) -> None:
        """Make a group of what is there, or of *count* of it, and let all who wait join it."""
        held.append(self._pace.take())
        left_out = self._reports.take(count, self._apart)
        if left_out:
            self._alarm.let_go(left_out)

    def _written(self, reports: Sequence[Report], lost: Sequence[Report]) -> None:
        """Forget what was written apart."""
        self._reports.forget(*reports)
        self._count(len(reports), lost)
        if not self._apart and self._keeper is not None:
            self._keeper.begin_anew()
        self._go()

    def _count(self, written: int, lost: Sequence[Report] | None) -> None:
        self.counters["flushed"] += written - len(lost or ())
        self._room.lose(lost or ())

    async def _catch_up(self, keeper: Keeper) -> None:
        """Replay one piece of the journal, and come again for the next."""
        try:
            await keeper.replay()
        except Exception as error:  # as below
            self._failed(error)
        self._is_wanted = True

    async def _try(self) -> bool:
        """Write some reports once; False when they have to be written again."""
        group, lost = self._reports.first(), None
        try:
            if group:
                lost = await self._write(list(group.values()))
            elif self._keeper is not None and not await self._keeper.replay():
                return False  # it is also the probe that tells when the database is back
        except Exception as error:  # also a fault of ours: the writer must outlive it
            self._failed(error)
            culprit = self._reports.divide(group, error)
            if culprit is not None:
                self._culprits.add(culprit.origin.task_id, error)
            return False
        if self._outage.since is not None:
            self._outage.end(self.backlog)
            self._culprits.hurry()
        self._reports.written(group)
        self.counters["groups"] += 1
        self._count(len(group), lost)
        return True

    async def write_kept(self, reports: Sequence[Report]) -> list[Report]:
        """Write reports of a journal.

        Returns:
            Those that wait apart for their task: memory has them, the journal has to keep them.
        """
        apart, lost = await self._culprits.leave_out(reports, self._write)
        self._room.lose(lost)
        for report in apart:
            self._hold(report)
        return apart

    def _failed(self, error: Exception) -> None:
        self.counters["failures"] += 1
        if self._outage.failed(error):
            self._loop.call_later(PATIENCE, self._hurry)

    def _hurry(self) -> None:
        if self._outage.since is not None:
            for waiting in self._groups():
                waiting.hurry()
