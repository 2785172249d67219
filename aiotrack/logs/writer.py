"""The writer of log lines: they gather, and go together, a few times a second."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from aiotrack.errors import SchemaOutdated, SchemaTooNew, StoreUnavailable
from aiotrack.feature import Feature
from aiotrack.logs.hearing import hear
from aiotrack.logs.lines import MESSAGE_BYTES
from aiotrack.logs.listener import leave, listen
from aiotrack.logs.scroll import LINE_BYTES, Line, Part, Scroll
from aiotrack.model import TaskStatus
from aiotrack.report import Witness
from aiotrack.settings import level_of

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.current import Run
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.report import Report
    from aiotrack.repository.logs import LogStore

log = logging.getLogger(__name__)

GATHER = 0.2
"""Seconds between two writes (a guess: five a second look live)."""

MEMORY = 8 * 1024 * 1024
"""Bytes of lines that wait, of all attempts of a loop; above it the oldest give way."""

SCROLL_MEMORY = 1300
"""Bytes of a scroll without lines, its ids among them: 1,250 by tracemalloc."""

WRITE_LINES, WRITE_BYTES = 250, 128 * 1024
"""Of one statement: masking so many takes a millisecond or two of the loop."""

BACKOFF_FIRST, BACKOFF_LAST = 0.2, 5.0
"""Seconds between two tries while the database is away: doubled from the first to the last."""

AWAY = (StoreUnavailable, SchemaOutdated, SchemaTooNew)
"""What ends by itself; anything else is the lines' fault, or ours."""

MAX_NAMES = 1000
"""Names of loggers and levels that are remembered; a program may make any."""

CLOSE = 0.45
"""Seconds for the last lines at a stop."""


class Verdict(Enum):
    """What becomes of the lines that were held."""

    KEPT = 1
    FORGOTTEN = 2


class Logs(Feature):
    """The lines of one event loop's attempts, from the task to the database."""

    def __init__(self, tracker: Lifecycle, core: Core) -> None:
        super().__init__(tracker, core)
        settings = tracker.options
        self.is_on = settings.logs != "off"
        self._holds = settings.logs == "on_failure_only"
        self.level = level_of(settings.log_level)
        """The lowest level that is kept."""
        self.max_bytes = settings.log_max_bytes
        """Kept of one attempt."""
        self.longest = min(2 * MESSAGE_BYTES, self.max_bytes // 2 - LINE_BYTES)
        """Bytes of one line's message, with its traceback."""
        self.counters: Counter[str] = Counter()
        """``lines``, ``written``, ``dropped``, ``writes``, ``failures``."""
        self.loop = asyncio.get_running_loop()
        self._store: LogStore | None = None
        self._inbox: deque[tuple[Scroll, Line | Verdict]] = deque()
        self._lock = threading.Lock()
        # By run_id, the oldest first: those with lines to write, and those whose end must be known.
        self._waiting: dict[str, Scroll] = {}
        self._held: dict[str, Scroll] = {}
        self._memory = 0
        self._names: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_awake = False
        self._under_way: list[Part] = []
        self._is_failing = False
        self._hurry = asyncio.Event()
        self._turn_over = asyncio.Event()
        listen(self, hear)

    # ── taking lines: in any thread, also in the midst of itself ────────────────────────────────
    def scroll_of(self, run: Run) -> Scroll:
        """Make the scroll of a run."""
        return self.scroll(run.origin.task_id, run.run_id, run.attempt, run.started_at)

    def scroll(self, task_id: str, run_id: str, attempt: int | None, began_at: int) -> Scroll:
        """Make a scroll; ids as they are stored."""
        made = Scroll(self, task_id, run_id, attempt, began_at)
        made.is_held = self._holds
        return made

    def put(self, scroll: Scroll, line: Line) -> None:
        """Take a line."""
        self._post(scroll, line)

    def decide(self, scroll: Scroll, *, is_kept: bool) -> None:
        """Take how the attempt of a scroll ended, after its lines."""
        self._post(scroll, Verdict.KEPT if is_kept else Verdict.FORGOTTEN)

    def _post(self, scroll: Scroll, item: Line | Verdict) -> None:
        """Take one thing after the other, without ever waiting.

        Whoever does not get the lock leaves its thing to the one who has it. That may be itself: a
        finalizer or a signal's handler that logs while a line is taken.
        """
        if not self.is_on:  # or it was closed: a run outlived its loop
            return
        self._inbox.append((scroll, item))
        if self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()
        if not self._is_awake:
            self._is_awake = True
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody writes any more
                self.loop.call_soon_threadsafe(self._wake)

    def _drain(self) -> None:
        while self._inbox:
            scroll, item = self._inbox.popleft()
            if isinstance(item, Verdict):
                self._decide(scroll, is_kept=item is Verdict.KEPT)
            elif not scroll.is_gone:
                self._take(scroll, item)

    def _take(self, scroll: Scroll, line: Line) -> None:
        group = self._held if scroll.is_held else self._waiting
        if scroll.run_id not in group:
            group[scroll.run_id] = scroll
            self._memory += SCROLL_MEMORY
        self.counters["lines"] += 1
        self._memory += scroll.add(line)
        if self._memory > MEMORY:
            self._make_room()

    def _make_room(self) -> None:
        """Leave out the oldest lines: tails first, then what else is not written."""
        enough = MEMORY * 7 // 8
        for shed in (Scroll.shed_tail, Scroll.shed):
            for scroll in [*self._waiting.values(), *self._held.values()]:
                before = scroll.left_lines
                self._memory -= shed(scroll)
                self.counters["dropped"] += scroll.left_lines - before
                if shed is Scroll.shed:
                    self._forget(scroll)
                if self._memory <= enough:
                    return

    def _forget(self, scroll: Scroll) -> None:
        """Wait no longer for a scroll that has nothing to write."""
        for group in (self._waiting, self._held):
            if group.pop(scroll.run_id, None) is not None:
                self._memory -= SCROLL_MEMORY

    # ── outcomes ────────────────────────────────────────────────────────────────────────────────
    def on_commit(self, reports: Sequence[Report]) -> None:
        """Hear how attempts ended: now it is known whether held lines are kept."""
        if not self._held and not self._waiting and not self._inbox:
            return
        with self._lock:
            self._drain()
            for report in reports:
                scroll = self._held.get(report.run_id) or self._waiting.get(report.run_id)
                if scroll is not None and report.witness in {Witness.ENDED, Witness.HANDED_BACK}:
                    self._decide(scroll, is_kept=report.status is not TaskStatus.SUCCESS)

    def _decide(self, scroll: Scroll, *, is_kept: bool) -> None:
        """Write what was held of a scroll, or forget it."""
        scroll.is_over = True
        if not scroll.is_held:
            return
        was_held = self._held.pop(scroll.run_id, None) is not None
        scroll.is_held = False
        scroll.is_gone = not is_kept
        if is_kept and was_held:
            self._waiting[scroll.run_id] = scroll
        elif was_held:
            self._memory -= scroll.clear() + SCROLL_MEMORY

    async def before_change(self, task_id: str) -> None:
        """Write a collector's lines while the execution is at the attempt that they are of."""
        with self._lock:
            self._drain()
            waiting = [*self._waiting.values()]
        if any(one.task_id == task_id and one.attempt is None for one in waiting):
            await self.flush(self.tracker.options.commit_budget)

    # ── writing: in the loop ────────────────────────────────────────────────────────────────────
    def _wake(self) -> None:
        if self._task is None or self._task.done():
            context = contextvars.Context()  # of no run: what it logs is not a task's
            self._task = self.loop.create_task(self._work(), name="aiotrack-logs", context=context)

    async def _work(self) -> None:
        """Write a turn after the other for as long as there are lines."""
        try:
            while True:
                await self._turn()
                self._is_awake = False  # before the look: who puts a line now is seen, or wakes us
                if not self._inbox and not self._waiting and not self._hurry.is_set():
                    return
                self._is_awake = True
        except Exception:
            log.exception("the writer of task logs failed; the next line starts it again")
        finally:
            self._is_awake = False

    async def _turn(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER):
                await self._hurry.wait()
        is_flush = self._hurry.is_set()
        self._hurry.clear()
        if self._under_way:  # a write that was broken off at the end of a loop
            await self._write_and_forget(self._under_way)
        for parts in self._groups(is_flush=is_flush):
            await self._write_and_forget(parts)
        self._turn_over.set()
        self._turn_over = asyncio.Event()

    def _groups(self, *, is_flush: bool) -> Iterator[list[Part]]:
        """Yield what is to be written, a statement's worth at a time."""
        with self._lock:
            self._drain()
            turn = deque(self._waiting.values())
        now = float("inf") if is_flush else self.loop.time()
        while turn:
            parts: list[Part] = []
            lines, size = WRITE_LINES, WRITE_BYTES
            with self._lock:
                while turn and lines > 0 and size > 0:
                    part = turn[0].take(lines, size, now)
                    if part is not None:
                        parts.append(part)
                        lines -= len(part.lines)
                        size -= sum(line.size for _, line in part.lines)
                    if lines > 0 and size > 0:
                        turn.popleft()
            if parts:
                yield parts

    async def _write_and_forget(self, parts: list[Part]) -> None:
        self._under_way = parts
        await self._write(parts)
        self._under_way = []
        with self._lock:
            for part in parts:
                self._memory -= part.weight
                if not part.scroll.pending:
                    self._forget(part.scroll)

    async def _write(self, parts: list[Part]) -> None:
        """Write until it is written; what the database refuses costs only itself."""
        backoff = BACKOFF_FIRST
        while True:
            try:
                await self._try(parts)
                break
            except AWAY as error:
                self._failed(error)
                await asyncio.sleep(backoff * random.uniform(0.8, 1.2))
                backoff = min(2 * backoff, BACKOFF_LAST)
            except Exception as error:
                await self._without_poison(parts, error)
                return
        if self._is_failing:
            self._is_failing = False
            log.warning("task logs are written again; %d lines were lost", self.counters["dropped"])
        self.core.live.tell({part.scroll.task_id for part in parts})

    async def _try(self, parts: list[Part]) -> None:
        if not self.core.repository.is_ready:
            await self.core.repository.connect()  # it knows what time it is
        settle = self.tracker.clock.settle
        lines, cuts = [], []
        for part in parts:
            scroll = part.scroll
            key = (scroll.task_id, settle(scroll.began_at), scroll.run_id)
            lines += [self._stored(key, scroll.attempt, seq, line) for seq, line in part.lines]
            if part.cut is not None:
                cuts.append((*key, *part.cut))
        await self.store.write(lines, cuts)
        self.counters["writes"] += 1
        self.counters["written"] += len(lines)

    def _stored(
        self, key: tuple[str, int, str], attempt: int | None, seq: int, line: Line
    ) -> tuple[str, int, str, int, int | None, int, int, str, str, str]:
        """Give a line as it is stored, in the order of `aiotrack.repository.logs.NAMES`."""
        encoder = self.tracker.encoder
        return (
            *key,
            seq,
            attempt,
            self.tracker.clock.settle(line.at),
            line.level_number,
            self._name(line.level),
            self._name(line.logger),
            encoder.text(line.message, self.longest),
        )

    def _name(self, name: str) -> str:
        """Give the name of a level or a logger as it is stored, and remember it."""
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            known = self._names[name] = self.tracker.encoder.name(name)
        return known

    async def _without_poison(self, parts: list[Part], error: Exception) -> None:
        if len(parts) > 1:
            for part in parts:
                await self._write([part])
            return
        self.counters["dropped"] += len(parts[0].lines)
        log.error("log lines of task %s cannot be stored: %s", parts[0].scroll.task_id, error)

    def _failed(self, error: Exception) -> None:
        self.counters["failures"] += 1
        if not self._is_failing:
            self._is_failing = True
            log.error("task logs are not being written for now: %s", error)

    async def flush(self, timeout: float | None = None) -> bool:
        """Write all lines that came so far, but those that wait for the end of their run.

        Args:
            timeout: Seconds; None waits for as long as it takes.

        Returns:
            False when the time was over first.
        """
        try:
            async with asyncio.timeout(timeout):
                for _ in range(2):  # one turn may be under way
                    if not self._inbox and not self._waiting:
                        break
                    self._hurry.set()
                    self._is_awake = True
                    self._wake()
                    await self._turn_over.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, *, for_good: bool) -> None:
        """Write what is left, for at most half a second."""
        try:
            await self.flush(CLOSE)
        finally:
            if for_good:
                self._end()

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.is_on = False
        leave(self)
        left = sum(len(part.lines) for part in self._under_way)
        left += sum(scroll.pending for scroll in self._waiting.values())
        if left:
            log.error("%d log lines were not written: the database is away", left)
        self._waiting.clear()
        self._held.clear()
        self._inbox.clear()

    # ── reading ─────────────────────────────────────────────────────────────────────────────────
    @property
    def store(self) -> LogStore:
        """The table; SQLAlchemy loads with it."""
        if self._store is None:
            from aiotrack.repository.logs import LogStore

            self._store = LogStore(self.core.repository)
        return self._store
