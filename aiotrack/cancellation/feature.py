"""Hears of cancels, and obeys: what has not begun does not, what runs is interrupted.

Each worker keeps the cancels of late in memory, so that a run costs one look into a dictionary.
They come by messages through Redis, where there is one; and whatever Redis does, from the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from aiotrack.current import Cancel, Run
from aiotrack.errors import InvalidSetting, StoreError
from aiotrack.feature import Feature
from aiotrack.report import History, Report, Witness
from aiotrack.verdicts import revoke

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.core import Core
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.redis.bulletin import Bulletin
    from aiotrack.repository.control.cancels import Wish

log = logging.getLogger(__name__)

MOST: Final = 50_000
"""Cancels that a process remembers, the newest: some 10 MB. (A dictionary of them is what makes a
run pay nothing; who cancels more at once than this should stop the workers first.)"""

POLL, POLL_ALONE = 2.0, 0.5
"""Seconds between two looks into the table: while messages arrive, and while they do not."""

OVERLAP: Final = 30_000_000
"""Microseconds that each look reaches back: a wish may become visible later than it was asked."""

_HANDED_BACK: Final = Witness.HANDED_BACK  # looked up once: an enum's members are slow to reach

HANDED_BACK: Final = 1000
"""Executions whose last run ended in a retry or a requeue that are remembered."""

PATIENCE: Final = 0.4
"""Seconds at a close for what is under way."""


class Cancellation(Feature):
    """The cancels that one event loop knows."""

    def __init__(self, tracker: Lifecycle, core: Core) -> None:
        super().__init__(tracker, core)
        self._known: dict[str, Cancel] = {}
        self._handed_back: dict[str, None] = {}
        self._seen: int | None = None
        self._is_serving = False
        self._is_loaded = asyncio.Event()
        self._wake = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._dropping: set[asyncio.Task[None]] = set()
        self._bulletin: Bulletin | None = None
        self._is_reported = False

    # ── a worker's life ─────────────────────────────────────────────────────────────────────────
    def serve(self, broker: AsyncBroker) -> None:  # noqa: ARG002 - all brokers share the cancels
        """Begin to listen."""
        self._is_serving = True
        self.listen()

    async def ready(self) -> None:
        """Wait until the cancels of before are known: their messages may still be queued."""
        await self._is_loaded.wait()

    def listen(self) -> None:
        """Hear of cancels from now on. Harmless when repeated."""
        if self._watching is None or self._watching.done():
            self._watching = _apart(self._watch())

    async def close(self, *, for_good: bool) -> None:  # noqa: ARG002 - a run begins it again
        """Hear of nothing any more, until the next run."""
        watching, self._watching = self._watching, None
        bulletin, self._bulletin = self._bulletin, None
        if watching is not None:
            watching.cancel()
        under_way = {*self._dropping, *({watching} if watching is not None else ())}
        if under_way:
            await asyncio.wait(under_way, timeout=PATIENCE)
        if bulletin is not None:
            await bulletin.close()

    # ── runs ────────────────────────────────────────────────────────────────────────────────────
    def on_begin(self, run: Run) -> None:
        """Keep a body from running, if somebody asked for it before."""
        cancel = self._known.get(run.origin.task_id)
        if cancel is not None:
            self._obey(run, cancel)
        self.listen()

    def on_raise(self, run: Run, error: BaseException) -> None:  # noqa: ARG002 - whatever it is
        """Let no retry middleware send a cancelled execution again, whatever its body raised."""
        if run.cancel is not None:
            run.labels["retry_on_error"] = False

    def on_commit(self, reports: Sequence[Report]) -> None:
        """Drop what was handed back and has been cancelled; the wish may come later, too."""
        for report in reports:
            if report.witness is _HANDED_BACK:
                self._handed_back[report.origin.task_id] = None
                if report.origin.task_id in self._known:
                    self._drop([report.origin.task_id])
                _trim(self._handed_back, HANDED_BACK)

    # ── cancels ─────────────────────────────────────────────────────────────────────────────────
    def hear(self, cancels: Mapping[str, Cancel]) -> None:
        """Take wishes, by task_id; those known before change nothing."""
        new = {task_id: one for task_id, one in cancels.items() if task_id not in self._known}
        if not new:
            return
        self._known.update(new)
        if _trim(self._known, MOST):
            log.debug("more than %d cancels: the oldest are forgotten here", MOST)
        for run in self._runs():
            cancel = new.get(run.origin.task_id)
            if cancel is not None:
                self._obey(run, cancel)
        late = [task_id for task_id in new if task_id in self._handed_back]
        if late:
            self._drop(late)

    async def tell(self, wishes: Iterable[Wish]) -> None:
        """Let this process and all others know of wishes that are stored."""
        groups: dict[Cancel, list[str]] = {}
        for wish in wishes:
            groups.setdefault(Cancel(wish.reason, wish.by), []).append(wish.task_id)
        for cancel, task_ids in groups.items():
            self.hear(dict.fromkeys(task_ids, cancel))
        bulletin = self._connected()
        if bulletin is not None:
            for cancel, task_ids in groups.items():
                told = {"reason": cancel.reason, "by": cancel.by, "ids": task_ids}
                await bulletin.tell(json.dumps(told))

    def is_in_thread(self, run_id: str) -> bool:
        """Whether a run is the call of a tracked sync function of this process."""
        return any(run.run_id == run_id for run in tuple(self.tracker.in_threads))

    def _runs(self) -> Iterator[Run]:
        for run in (*self.core.recorder.running, *tuple(self.tracker.in_threads)):
            if isinstance(run, Run):
                yield run

    def _obey(self, run: Run, cancel: Cancel) -> None:
        """End a run, or let it know at least; what cannot be interrupted now is tried again."""
        run.cancel = run.cancel or cancel
        if run.body is not None and not any(_is_inside(one, run) for one in self._runs()):
            run.interrupt(cancel)

    def _drop(self, task_ids: list[str]) -> None:
        task = _apart(self._revoke(task_ids))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _revoke(self, task_ids: list[str]) -> None:
        """Let what waits for its next run wait no more."""

        def change(history: History) -> Iterable[Report]:
            cancel = self._known.get(history.task_id)
            if cancel is None:
                return ()
            now = self.tracker.clock.now()
            report = revoke(history, now=now, reason=cancel.reason, by=cancel.by)
            return () if report is None else (report,)

        try:
            await self.core.repository.revise(task_ids, change)
        except StoreError as error:  # its next run is refused all the same
            log.warning("a retry that was cancelled is shown as waiting: %s", error)

    # ── hearing ─────────────────────────────────────────────────────────────────────────────────
    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            try:
                self._remind()
                await self._look()
                self._is_reported = False
            except Exception as error:
                self._complain(error)
            is_pushed = self._bulletin is not None and self._bulletin.is_open
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL if is_pushed else POLL_ALONE):
                    await self._wake.wait()

    def _remind(self) -> None:
        """Obey the wishes that are known, where that did not happen at once."""
        for run in self._runs():
            cancel = run.cancel or self._known.get(run.origin.task_id)
            if cancel is not None and not run.is_interrupted:
                self._obey(run, cancel)

    async def _look(self) -> None:
        """Read what was asked since the last look, and a while before it."""
        bulletin = self._connected()
        if bulletin is not None:
            await bulletin.listen()
        if not self._is_serving and not any(True for _ in self._runs()):
            return  # nothing runs here that could be cancelled
        from aiotrack.repository.control.cancels import Cancels

        repository = self.core.repository
        await repository.connect()  # it knows what time it is
        cancels = Cancels(repository)
        now = self.tracker.clock.now()
        if self._seen is None:
            self._take(await cancels.newest(MOST))
        else:
            async for wishes in cancels.since(self._seen - OVERLAP):
                self._take(wishes)
        self._seen = now
        self._is_loaded.set()

    def _take(self, wishes: Iterable[Wish]) -> None:
        known = self._known
        one = Cancel()
        new: dict[str, Cancel] = {}
        for wish in wishes:
            if wish.task_id not in known:
                if (wish.reason, wish.by) != (one.reason, one.by):  # those of one bulk share it
                    one = Cancel(wish.reason, wish.by)
                new[wish.task_id] = one
        self.hear(new)

    def _connected(self) -> Bulletin | None:
        if self._bulletin is None and self.tracker.redis is not None:
            from aiotrack.redis.bulletin import Bulletin
            from aiotrack.redis.keys import cancels_channel

            try:
                self._bulletin = Bulletin(
                    self.tracker.redis,
                    cancels_channel(self.tracker.options.namespace),
                    on_message=self._read,
                    on_change=self._wake.set,
                )
            except InvalidSetting as error:
                self._complain(error)
        return self._bulletin

    def _read(self, message: bytes) -> None:
        try:
            told = json.loads(message)
            cancel = Cancel(_text(told["reason"]), _text(told["by"]))
            task_ids = [str(task_id) for task_id in told["ids"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            log.debug("a message of cancels that cannot be read: %s", error)
            self._wake.set()  # there may be more in the table
        else:
            self.hear(dict.fromkeys(task_ids, cancel))

    def _complain(self, error: Exception) -> None:
        if not self._is_reported:
            self._is_reported = True
            log.warning("cancels are not heard of for now: %s", error)


def _is_inside(inner: Run, run: Run) -> bool:
    """Whether a task is carried out inside another's body, by a broker that does so in place.

    To cancel there might hit TaskIQ between two bodies, and its callback would die.
    """
    watch = inner.watch
    if watch is None or inner is run or watch[0] is not run.body:
        return False
    outer = inner.outer
    while outer is not None and outer is not run:
        outer = outer.outer
    return outer is run


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError("no text")


def _trim(known: dict[str, Cancel] | dict[str, None], most: int) -> int:
    """Forget the oldest beyond so many; give how many."""
    over = len(known) - most
    for _ in range(over):
        del known[next(iter(known))]
    return max(0, over)


def _apart(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Run in a context that belongs to no run."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())
