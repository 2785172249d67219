"""Knows what is waited for, and releases it: at once where it ends here, else by a look.

A look asks the database for everything that is ripe, so that nothing depends on who heard of what:
each worker looks every second while something is held, on its beat otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiotrack.errors import InvalidSetting, StoreError
from aiotrack.feature import Feature
from aiotrack.model import FINAL
from aiotrack.submission.depth import Gate
from aiotrack.submission.release import Releaser

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.core import Core
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.redis.bulletin import Bulletin
    from aiotrack.report import Report

log = logging.getLogger(__name__)

LOOK: Final = 1.0
"""Seconds between two looks while something is held."""

SHARE: Final = 30
"""Times longer than a look took is the rest after it, when it found nothing to do."""

MOST_FOUND, MORE = 1000, 0.01
"""Messages that a look finds at the most, and the seconds until the next if there may be more."""

FEW: Final = 4
"""Submits that ask the database at once: more would wait in vain for one of its connections."""

PATIENCE: Final = 0.4
"""Seconds at a close for what is under way."""


class Submission(Feature):
    """The held messages that one event loop knows of."""

    def __init__(self, tracker: Lifecycle, core: Core) -> None:
        super().__init__(tracker, core)
        self.gate = Gate(tracker.options.max_queue)
        self.releaser = Releaser(core)
        self.few = asyncio.Semaphore(FEW)
        self._needed: set[str] = set()
        """What is waited for: the hot path pays one look into it, and only while there is any."""
        self._fresh: set[str] = set()
        """Those of them that were told since the last look began."""
        self._ended: set[str] = set()
        self._is_serving = False
        self._is_closing = False
        self._due = 0.0
        self._wake = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[Any]] = set()
        self._bulletin: Bulletin | None = None
        self._is_reported = False

    def serve(self, broker: AsyncBroker) -> None:  # noqa: ARG002 - all brokers share what is held
        """Look after held messages from now on."""
        self._is_serving = True
        self._watch()

    def on_commit(self, reports: Sequence[Report]) -> None:
        """Hear that something ended which others wait for."""
        if not self._needed:
            return
        needed = self._needed
        ended = {
            report.origin.task_id
            for report in reports
            if report.status in FINAL and report.origin.task_id in needed
        }
        if ended:
            self._ended |= ended
            self._watch()
            self._wake.set()

    async def hold(self, report: Report, message: str, needs: Iterable[str]) -> None:
        """Keep a message until others have succeeded; it may be sent, or fail, before this ends.

        Raises:
            StoreUnavailable: The database did not answer: it may be kept, or not.
        """
        told = set(needs)
        held = self.releaser.rows()
        await held.hold(report, message, told)
        self._add(told)
        self._tell(told)
        try:  # what has ended until now, nobody else may have heard of
            states = await held.states(told)
            if len(states) < len(told) or any(one.is_over for one in states.values()):
                await self.releaser.settle([report.origin.task_id])
        except StoreError as error:
            log.debug("a held message is looked at later: %s", error)
        self._watch()

    async def close(self, *, for_good: bool) -> None:  # noqa: ARG002 - a commit begins it again
        """End what is under way, and look no more."""
        watching, self._watching = self._watching, None
        bulletin, self._bulletin = self._bulletin, None
        end = time.monotonic() + PATIENCE
        if watching is not None:
            self._is_closing = True
            self._wake.set()
            await asyncio.wait({watching}, timeout=PATIENCE)
            watching.cancel()
            self._is_closing = False
        await self.releaser.close(max(0.0, end - time.monotonic()))
        telling = set(self._telling)
        if telling:
            await asyncio.wait(telling, timeout=max(0.0, end - time.monotonic()))
            for one in telling:
                one.cancel()
        if bulletin is not None:
            await bulletin.close()

    # ── looking ─────────────────────────────────────────────────────────────────────────────────
    def _watch(self) -> None:
        if (self._watching is None or self._watching.done()) and not self._is_closing:
            self._wake = asyncio.Event()
            self._due = 0.0
            loop = asyncio.get_running_loop()
            self._watching = loop.create_task(self._look_after(), context=contextvars.Context())

    async def _look_after(self) -> None:
        while not self._is_closing:
            self._wake.clear()
            try:
                await self._turn()
                self._is_reported = False
            except Exception as error:
                self._due = time.monotonic() + LOOK
                self._complain(error)
            if not (self._is_serving or self._needed):
                return  # whoever holds the next message begins it again
            if not self._is_closing:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._due - time.monotonic())):
                        await self._wake.wait()

    async def _turn(self) -> None:
        ended, self._ended = self._ended, set()
        if ended:
            await self.releaser.settle(await self.releaser.rows().dependants(ended))
        begun = time.monotonic()
        if begun < self._due:
            return
        if self._is_serving:
            bulletin = self._connected()
            if bulletin is not None:
                await bulletin.listen()
        self._fresh.clear()
        needed = await self.releaser.rows().needed()
        found = await self.releaser.look()
        self._needed = needed | self._fresh
        now = time.monotonic()
        if found:
            self._due = now + (LOOK if found < MOST_FOUND else MORE)
        else:
            idle = 0.0 if self._needed else self.tracker.options.heartbeat_seconds
            self._due = now + max(LOOK, idle, SHARE * (now - begun))

    def _complain(self, error: Exception) -> None:
        if not self._is_reported:
            self._is_reported = True
            log.warning("what waits for others is not looked after for now: %s", error)

    # ── telling other processes ─────────────────────────────────────────────────────────────────
    def _add(self, task_ids: set[str]) -> None:
        self._needed |= task_ids
        self._fresh |= task_ids
        soon = time.monotonic() + LOOK
        if self._due > soon:
            self._due = soon
            self._wake.set()

    def _tell(self, task_ids: set[str]) -> None:
        bulletin = self._connected()
        if bulletin is not None:
            task = asyncio.get_running_loop().create_task(
                bulletin.tell(json.dumps(sorted(task_ids))), context=contextvars.Context()
            )
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    def _connected(self) -> Bulletin | None:
        if self._bulletin is None and self.tracker.redis is not None:
            from aiotrack.redis.bulletin import Bulletin
            from aiotrack.redis.keys import held_channel

            try:
                self._bulletin = Bulletin(
                    self.tracker.redis,
                    held_channel(self.tracker.options.namespace),
                    on_message=self._read,
                    on_change=self._look_now,
                )
            except InvalidSetting as error:
                self._complain(error)
        return self._bulletin

    def _look_now(self) -> None:
        """Look at once: messages may have been lost."""
        self._due = 0.0
        self._wake.set()

    def _read(self, message: bytes) -> None:
        try:
            told = json.loads(message)
            self._add({one for one in told if isinstance(one, str)})
        except (ValueError, TypeError, RecursionError) as error:
            log.debug("a message of held work that cannot be read: %s", error)
            self._look_now()
