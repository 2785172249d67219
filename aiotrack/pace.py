"""When a group of reports starts: soon enough for those who wait, late enough to hold many.

Three things start it: all runs in flight wait for it; half of them do, or a third of few, where it
is known that no more fit (TaskIQ's ``--max-async-tasks`` shows in that nobody joins), so that some
are written while the others work; or a short time has passed in which no run began, joined or
ended. A lone task never meets a timer. Measured: a fixed wait costs a lone task 1.5 ms, none at all
makes groups of 2 to 5 rows.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from typing import Any

STEP = 0.0015
"""Seconds in which nothing moves, after which a group waits for nobody else."""

GATHER = 0.01
"""Seconds that a group gathers at most, however many still come."""

RECENT = 0.05
"""Seconds for which the most runs at once are remembered, and as long again."""

FEW = 20
"""Runs at once up to which a third of them makes a group: what so few others do is over before a
commit is, and the smaller the group, the more others there are. Five at a time left a worker idle
for a sixth of its time with halves, for a tenth with thirds."""

STRIDE = 8
"""Hooks that go on in one turn of the loop. Fifty messages that are acknowledged in the same moment
take as many connections, and what they hold does not fit into a processor's cache: 20 µs a task."""

HOLD = 0.005
"""Seconds for which hooks are let go by strides: a body that blocks the loop may run in between."""

LATE = 0.1
"""Seconds by which a timer comes late when a body has blocked the loop."""

GRACE = 0.2
"""Seconds for an answer that came while the loop was blocked: who wrote may read it first."""

UNKNOWN = 1 << 62
"""No limit of runs at once was met so far."""


class Waiting:
    """The hooks that wait for one group."""

    __slots__ = ("_loop", "by_key", "finals", "futures", "since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.futures: list[asyncio.Future[bool]] = []
        self.finals: list[asyncio.Future[bool]] = []
        self.by_key: dict[Any, asyncio.Future[bool]] = {}
        """Those who wait for one report, by its key."""
        self.since: float | None = None
        """When the first of those came whose time is limited; None when all were let go."""

    def release(self, committed: bool) -> None:  # noqa: FBT001 - nothing else it could mean
        """Let all go; *committed* tells them what came of it."""
        self.since = None
        if self.futures:
            self._let_go(committed, 0, self._loop.time() + HOLD)

    def _let_go(self, committed: bool, first: int, until: float) -> None:  # noqa: FBT001 - as above
        is_patient = committed and self._loop.time() < until
        last = first + STRIDE if is_patient else len(self.futures)
        for future in self.futures[first:last]:
            if not future.done():
                future.set_result(committed)
        if last < len(self.futures):
            self._loop.call_soon(self._let_go, committed, last, until)

    def hurry(self) -> None:
        """Let the hooks go whose reports the journal can take."""
        for future in self.finals:
            if not future.done():
                future.set_result(False)


class Alarm:
    """Tells of groups whose budget is over: one timer for all, one for each costs a lone task 5 µs.

    Args:
        loop: Where the timer runs.
        budget: Seconds that a group may wait.
        groups: Gives those that wait, the oldest first.
        give_up: Called with each that has waited for so long.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        budget: float,
        groups: Callable[[], Iterable[Waiting]],
        give_up: Callable[[Waiting], None],
    ) -> None:
        self._loop = loop
        self._budget = budget
        self._groups = groups
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None
        self._is_spared = False

    def watch(self, group: Waiting) -> None:
        """Begin a group's budget."""
        group.since = self._loop.time()
        if self._timer is None:
            self._set(group.since + self._budget)

    def let_go(self, dropped: Iterable[Any]) -> list[Any]:
        """Let those go whose reports no group holds any more, and forget them; gives their keys."""
        waited_for = []
        for group in self._groups():
            for key in () if group.since is None else group.by_key.keys() & dropped:
                if not group.by_key[key].done():
                    group.by_key.pop(key).set_result(False)
                    waited_for.append(key)
        return waited_for

    def stop(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, due: float) -> None:
        context = contextvars.Context()  # of no run: it would keep what belongs to it
        self._timer = self._loop.call_at(due, self._ring, context=context)

    def _ring(self) -> None:
        timer, self._timer = self._timer, None
        is_late = timer is not None and self._loop.time() - timer.when() > LATE
        self._is_spared = is_late and not self._is_spared
        if self._is_spared:
            self._set(self._loop.time() + GRACE)
            return
        for group in self._groups():
            if group.since is None:
                continue
            due = group.since + self._budget
            if self._loop.time() < due:
                self._set(due)
                return
            self._give_up(group)


class Pace:
    """Says when the next group starts.

    Args:
        loop: Where its timers run.
        go: Starts a group, or lets it follow the one that is being written.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, go: Callable[[], None]) -> None:
        self._loop = loop
        self._go = go
        self.waiting = Waiting(loop)
        self.live = 0
        self._peak = self._peak_before = 0
        self._turn = 0.0
        self._limit = UNKNOWN
        self._written = 0
        self._timer: asyncio.TimerHandle | None = None
        self._moves = 0
        self._seen = 0
        self._last = 0.0
        self._following: asyncio.Future[bool] | None = None

    def begin(self) -> None:
        """Count a run that begins: it may join the group."""
        self._moves += 1
        self.live += 1
        if self.live > self._peak:
            self._peak = self.live
            if self.live > self._limit:
                self._limit = UNKNOWN

    def end(self) -> None:
        """Count a run that is over: another may take its place."""
        self._moves += 1
        self.live -= 1

    def join(self, *, at_once: bool) -> asyncio.Future[bool]:
        """Wait for the next group; *at_once*: whoever joins is no run in flight."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._moves += 1
        self.waiting.futures.append(future)
        if at_once or (not self._written and self._is_enough()):
            self._go()
        elif self._timer is None:
            self._seen = self._moves
            self._last = self._loop.time() + GATHER
            self._timer = self._loop.call_later(STEP, self._tick)
        return future

    def next(self) -> asyncio.Future[bool]:
        """Wait for the end of a group, however long that takes: of the next, or that before it."""
        if self._following is None or self._following.done():
            self._following = self.join(at_once=True)
        return asyncio.shield(self._following)  # one for all who ask, also for those who give up

    def take(self) -> Waiting:
        """Give those that wait: their group starts."""
        waiting, self.waiting = self.waiting, Waiting(self._loop)
        self._written += len(waiting.futures)
        now = self._loop.time()
        if now >= self._turn:
            self._peak_before, self._peak = self._peak, self.live
            self._turn = now + RECENT
        return waiting

    def done(self) -> None:
        """Go on after a group: its hooks were let go."""
        self._written = 0
        if self.waiting.futures and self._is_enough():
            self._go()

    def stop(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_enough(self) -> bool:
        parts = 3 if self._limit <= FEW else 2
        return parts * len(self.waiting.futures) >= self._limit or self._is_complete()

    def _is_complete(self) -> bool:
        """Whether all in flight wait, and as many as were lately: then no more fit, or come."""
        count = len(self.waiting.futures)
        if count < self.live or count < self._peak or count < self._peak_before:
            return False
        self._limit = count
        return True

    def _tick(self) -> None:
        self._timer = None
        count = len(self.waiting.futures)
        if not count:
            return
        if self._moves > self._seen and self._loop.time() < self._last:
            self._seen = self._moves
            self._timer = self._loop.call_later(STEP, self._tick)
            return
        if count + self._written >= self.live > 1:
            self._limit = max(self.live, self._peak, self._peak_before)
        self._go()
