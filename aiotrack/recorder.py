"""Group commit: reports gather while a group is being written, and go together in the next.

A hook that must be durable waits for the group that holds its report, but never longer than the
budget. A group starts at once when every run in flight waits for it (more waiting would gain
nothing), else after a short gather (2 to 5 rows a commit without it, 6 to 20 with it).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from aiotrack.errors import StoreError
from aiotrack.keeper import Keeper
from aiotrack.report import Report, Witness, combine

log = logging.getLogger(__name__)

GATHER = 0.003
"""Seconds that a waiting report gathers others while runs are still busy (measured: 2 to 4 ms)."""

LINGER = 0.05
"""Seconds that a report nobody waits for (STARTED, progress) may lie; a quick task's end passes
it, so that the task costs one row write."""

GROUP = 500
"""Reports in one write at most."""

BACKOFF_FIRST, BACKOFF_LAST = 0.05, 2.0
"""Seconds between tries while the database is away: doubled from the first to the last."""

STOP = 0.5
"""Seconds that a write gets to end when it is cancelled."""

Key = tuple[str, str, int]


def _key(report: Report) -> Key:
    return (report.origin.task_id, report.run_id, report.origin.created_at)


class _Waiting:
    """The hooks that wait for one group, and the timer that lets them go."""

    __slots__ = ("futures", "joined", "timer")

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[bool]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.joined: list[_Waiting] = []

    def release(self, committed: bool) -> None:  # noqa: FBT001 - called by a timer
        if self.timer is not None:
            self.timer.cancel()
        for other in self.joined:
            other.release(committed)
        for future in self.futures:
            if not future.done():
                future.set_result(committed)


class Recorder:
    """The buffer and the writer of one event loop.

    Args:
        write: Commits reports; raises `StoreError` when they must be written again.
        budget: Seconds that `commit` waits at most.
        max_backlog: Reports kept in memory while the database is away.
        keeper: Takes final reports then; without one they are kept in memory.
        block_ack: When nothing can keep a final report, let its task wait instead.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Report]], Awaitable[None]],
        *,
        budget: float = 1.0,
        max_backlog: int = 50_000,
        keeper: Keeper | None = None,
        block_ack: bool = False,
    ) -> None:
        self._write = write
        self._keeper = keeper
        self._blocks = block_ack
        self._budget = budget
        self._max_backlog = max_backlog
        self._buffer: dict[Key, Report] = {}
        self._writing: dict[Key, Report] = {}
        self._waiting = _Waiting()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._failing_since: float | None = None
        self._is_reported = False
        self._is_closing = False
        self._live = 0
        self._peak = 0
        self.counters: Counter[str] = Counter()
        """``reports``, ``flushed``, ``groups``, ``failures``, ``late``, ``dropped_<witness>``."""

    @property
    def backlog(self) -> int:
        """Reports that are not committed yet."""
        return len(self._buffer) + len(self._writing)

    @property
    def is_stalled(self) -> bool:
        """Whether the database has been away for longer than the budget: nobody waits for it."""
        since = self._failing_since
        return since is not None and self._loop.time() - since >= self._budget

    def start(self) -> None:
        """Look for journals that other processes left."""
        self._go()

    @property
    def is_busy(self) -> bool:
        """Whether runs are in flight."""
        return self._live > 0

    def enter(self) -> None:
        """Count a run that begins: a group need not start while it may still join."""
        self._live += 1
        self._peak = max(self._peak, self._live)

    def leave(self) -> None:
        """Count a run that is over."""
        self._live -= 1
        if self._waiting.futures and self._is_complete():
            self._go()

    def add(self, report: Report) -> None:
        """Take a report that nobody waits for."""
        self._put(report)
        self._schedule(LINGER)

    async def commit(self, report: Report, *, at_once: bool = False) -> bool:
        """Take a report and wait until it is committed.

        Args:
            report: What to record.
            at_once: Do not gather: the caller is no run in flight.

        Returns:
            False when the budget was over first: the report is kept and written later.
        """
        if self.is_stalled:
            return await self._keep(report, is_taken=False)
        self._put(report)
        waiter = self._wait()
        if at_once or (not self._writing and self._is_complete()):
            self._go()
        else:
            self._schedule(GATHER)
        return await waiter or await self._keep(report, is_taken=True)

    async def _keep(self, report: Report, *, is_taken: bool) -> bool:
        """Take a report that the database does not take in time; False: it is not committed."""
        self.counters["late"] += 1
        is_last_word = report.witness in {Witness.HANDED_BACK, Witness.ENDED}
        is_kept = False
        try:
            if is_last_word and self._keeper is not None:
                is_kept = await self._keeper.keep(report)
        finally:  # also when the hook was cancelled
            if is_kept:
                self.counters["journaled"] += 1
                self.counters["reports"] += not is_taken
                self._forget(report)
            elif not is_taken:
                self._put(report)
            self._go()
        key = _key(report)
        while self._blocks and is_last_word and (key in self._buffer or key in self._writing):
            await self._next()  # nothing else keeps it
        return False

    def _forget(self, report: Report) -> None:
        for group in (self._buffer, self._writing):
            if group.get(_key(report)) is report:
                del group[_key(report)]

    def _next(self) -> asyncio.Future[bool]:
        """Give what ends with the group that is written next, however long that takes."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.futures.append(future)
        self._go()
        return future

    async def flush(self, timeout: float | None = None) -> bool:
        """Write all that was taken, the journal's too; False when *timeout* (seconds) is over."""
        try:
            async with asyncio.timeout(timeout):
                while self.backlog or (self._keeper is not None and self._keeper.is_holding):
                    await self._next()
        except TimeoutError:
            return False
        return True

    async def close(self, timeout: float = 3.0) -> list[Report]:
        """Write what is left for at most *timeout* seconds, and stop; the journal takes the rest.

        It has to end within the five seconds that TaskIQ leaves a broker.

        Returns:
            The reports that nothing took.
        """
        end = self._loop.time() + timeout
        while self.backlog and not self.is_stalled and (left := end - self._loop.time()) > 0:
            await asyncio.wait({self._next()}, timeout=min(left, 0.1))
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=STOP)  # a rollback may hang, too
            self._task = None
        if self._timer is not None:
            self._timer.cancel()
        rest = sorted(self.drain(), key=lambda report: report.witness, reverse=True)
        keeper, self._keeper = self._keeper, None
        self._waiting.release(False)
        if keeper is not None:
            kept = await keeper.keep_all(rest)
            self.counters["journaled"] += kept
            rest = rest[kept:]
            await keeper.close()
        self._is_closing = False
        return rest

    def drain(self) -> list[Report]:
        """Hand over what is not committed, to a recorder of another loop."""
        left = [*self._writing.values(), *self._buffer.values()]
        self._writing, self._buffer = {}, {}
        return left

    def _is_complete(self) -> bool:
        """Whether all wait that are in flight, and as many as were lately: no more will come."""
        return len(self._waiting.futures) >= max(self._live, self._peak)

    def _wait(self) -> asyncio.Future[bool]:
        waiting = self._waiting
        future: asyncio.Future[bool] = self._loop.create_future()
        waiting.futures.append(future)
        if waiting.timer is None:
            waiting.timer = self._loop.call_later(self._budget, self._give_up, waiting)
        return future

    def _give_up(self, waiting: _Waiting) -> None:
        """Let the hooks go on: their budget is over, and nobody waits before an answer comes."""
        stalled = self._loop.time() - self._budget
        self._failing_since = min(stalled, self._failing_since or stalled)
        if waiting is self._waiting:
            self._waiting = _Waiting()
        waiting.release(False)

    def _put(self, report: Report) -> None:
        key = _key(report)
        known = self._buffer.get(key)
        self._buffer[key] = report if known is None else combine(known, report)
        self.counters["reports"] += 1
        if self.backlog > self._max_backlog:
            self._make_room()

    def _make_room(self) -> None:
        """Let a twentieth go, the least important and oldest first: starts before final reports."""
        if self.counters["dropped"] == 0:
            log.error("the backlog of %d reports is full: reports are lost", self._max_backlog)
        room = max(self._max_backlog // 20, self.backlog - self._max_backlog)
        for witness in Witness:
            found = (key for key, report in self._buffer.items() if report.witness is witness)
            keys = list(islice(found, room))
            for key in keys:
                del self._buffer[key]
            self.counters["dropped"] += len(keys)
            self.counters[f"dropped_{witness.name.lower()}"] += len(keys)
            room -= len(keys)

    def _go(self) -> None:
        self._wake.set()
        if (self._task is None or self._task.done()) and not self._is_closing:
            context = contextvars.Context()  # the writer belongs to no run
            self._task = self._loop.create_task(
                self._work(), name="aiotrack-recorder", context=context
            )

    def _schedule(self, delay: float) -> None:
        """Start a group in *delay* seconds, or sooner if one was to start sooner."""
        at = self._loop.time() + delay
        if self._timer is not None:
            if self._due <= at:
                return
            self._timer.cancel()
        self._due = at  # uvloop's handles do not always tell when they are due
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._buffer:
            self._go()

    async def _work(self) -> None:
        """Write one group after the other, for as long as the loop runs."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting = _Waiting()
            is_done = False
            try:
                await self._write_all(waiting)
                is_done = True
            finally:
                waiting.release(is_done)  # only now: one write may not have held all of theirs
            await self._catch_up()

    async def _write_all(self, waiting: _Waiting) -> None:
        """Write all that is there; while the database is away, also what comes meanwhile."""
        self._take(waiting)
        self._peak = max(self._live, self._peak // 2)
        backoff = BACKOFF_FIRST
        while self._writing or self._failing_since is not None:
            was_away = self._failing_since is not None
            if await self._try():
                backoff = BACKOFF_FIRST
                if was_away:
                    self._take(waiting)
            else:
                self._give_back()
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_LAST)
                self._take(waiting, GROUP)

    def _take(self, waiting: _Waiting, count: int | None = None) -> None:
        """Make a group of what is there, or of *count* of it, and let all who wait join it."""
        waiting.joined.append(self._waiting)
        self._waiting = _Waiting()
        if count is None:
            self._buffer, taken = {}, self._buffer
        else:
            taken = {key: self._buffer.pop(key) for key in list(islice(self._buffer, count))}
        self._writing |= taken

    def _give_back(self) -> None:
        """Put a group that was not written before the rest: newer reports may join its own."""
        for key in self._writing.keys() & self._buffer.keys():
            self._buffer[key] = combine(self._writing[key], self._buffer[key])
        self._buffer = self._writing | self._buffer
        self._writing = {}

    async def _catch_up(self) -> None:
        """Replay one piece of the journal, and come again for the next."""
        if self._keeper is not None and self._keeper.has_work:
            try:
                await self._keeper.replay()
            except Exception as error:  # as below
                self._failed(error)
            self._wake.set()

    async def _try(self) -> bool:
        """Write at most `GROUP` reports once; False when they have to be written again."""
        group = self._writing
        if len(group) > GROUP:
            group = dict(islice(group.items(), GROUP))
        try:
            if group:
                await self._write(list(group.values()))
            elif self._keeper is not None:
                await self._keeper.replay()  # also the probe that tells when the database is back
        except Exception as error:  # also a fault of ours: the writer must outlive it
            self._failed(error)
            return False
        self._recovered()
        self.counters["groups"] += 1
        self.counters["flushed"] += len(group)
        if group is self._writing:
            self._writing = {}
        else:
            for key in group:
                self._writing.pop(key, None)
        return True

    def _failed(self, error: Exception) -> None:
        self.counters["failures"] += 1
        if not self._is_reported:
            self._is_reported = True
            fault = None if isinstance(error, StoreError) else error
            log.error("executions are not being recorded for now: %s", error, exc_info=fault)
        if self._failing_since is None:
            self._failing_since = self._loop.time()

    def _recovered(self) -> None:
        if self._failing_since is not None and self._is_reported:
            away = self._loop.time() - self._failing_since
            log.warning("recording goes on after %.1f s, %d reports wait", away, self.backlog)
        self._failing_since, self._is_reported = None, False
