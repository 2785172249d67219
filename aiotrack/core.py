"""What belongs to one event loop: connections, a buffer, a writer, and the features."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from aiotrack.ends import at_loop_end, at_process_end
from aiotrack.feature import Feature, hooks
from aiotrack.journal import Journal
from aiotrack.keeper import Keeper
from aiotrack.live import Live
from aiotrack.progress_tracker import follow
from aiotrack.recorder import Recorder
from aiotrack.report import Report

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.lifecycle import Lifecycle
    from aiotrack.repository import Repository
    from aiotrack.repository.read import Reader

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Feature)

STOP, STOP_WRITING = 4.0, 2.5
"""Seconds for a stop, and those of them in which reports are still written: TaskIQ leaves five for
all of its broker's."""

READY = 2.0
"""Seconds that a worker waits for a feature before its first message."""


class Core:
    """What belongs to one event loop: connections, buffer, writer."""

    def __init__(self, tracker: Lifecycle) -> None:
        from aiotrack.repository import Repository
        from aiotrack.repository.read import Reader

        self.tracker = tracker
        self.loop = asyncio.get_running_loop()
        settings = tracker.options
        self.clock = tracker.clock
        self.brokers: Sequence[AsyncBroker] = tracker.brokers
        """Those of this process whose middleware reports here."""
        self.live = Live(tracker.redis, settings.namespace)
        self.repository: Repository = Repository(
            tracker.database,
            clock=tracker.clock,
            pgbouncer=settings.pgbouncer,
            keys=settings.indexed_metadata,
            on_commit=self._committed,
        )
        self.reader: Reader = Reader(self.repository)
        name = hashlib.sha256(self.repository.name.encode()).hexdigest()[:16]
        journal = Journal(tracker.journals / name)
        self.keeper = Keeper(journal, self._write_kept)
        self.recorder = Recorder(
            self.repository.write,
            write_apart=self.repository.write_apart,
            budget=settings.commit_budget,
            max_backlog=settings.max_backlog,
            keeper=self.keeper,
            block_ack=settings.on_store_failure == "block_ack",
        )
        self.features = tuple(kind(tracker, self) for kind in tracker.features)
        self.on_begin = hooks(self.features, "on_begin")
        self.on_raise = hooks(self.features, "on_raise")
        self.before_change = hooks(self.features, "before_change")
        self._on_commit = (self._tell_live, *hooks(self.features, "on_commit"))
        self._served: list[AsyncBroker] = []
        self._runs, self._runs_name = itertools.count(), os.urandom(12).hex()
        self.at_loop_end = at_loop_end(functools.partial(tracker.end, self))
        self.at_process_end = at_process_end(self._save)

    async def stop(self, *, for_good: bool) -> None:
        """Write or keep what was reported, and close the connections.

        Args:
            for_good: Otherwise runs are in flight: what they report opens them again.
        """
        end = asyncio.get_running_loop().time() + STOP
        left = await self.recorder.close(STOP_WRITING, for_good=for_good)
        if left and for_good:
            log.error("%d reports were not written: the database is away", len(left))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                for feature in self.features:
                    await _closed(feature, for_good=for_good)
                await self.live.close()
                await (self.repository.close() if for_good else self.repository.release())
        if for_good:
            self.at_process_end()

    def name_run(self) -> str:
        """Give a run_id that no other run has, here or elsewhere; without a system call each."""
        return f"{self._runs_name}{next(self._runs):08x}"

    def serve(self, broker: AsyncBroker) -> None:
        """Begin what a worker does. Harmless when repeated."""
        if any(one is broker for one in self._served):
            return
        self._served.append(broker)
        for feature in self.features:
            try:
                feature.serve(broker)
            except Exception:
                log.exception("%s does not serve this worker", type(feature).__name__)
        follow(broker)  # the last: whatever a user's result backend is, the features serve

    async def prepare(self, broker: AsyncBroker) -> None:
        """Serve a worker's broker, and wait until the features are ready for messages."""
        self.serve(broker)
        for ready in hooks(self.features, "ready"):
            try:
                async with asyncio.timeout(READY):
                    await ready()
            except TimeoutError:
                log.warning("a worker begins before all of its features are ready")
            except Exception:
                log.exception("a feature is not ready for messages")

    def feature(self, kind: type[F]) -> F:
        """Give this loop's feature of a kind.

        Raises:
            LookupError: The tracker has none.
        """
        for one in self.features:
            if isinstance(one, kind):
                return one
        raise LookupError(f"the tracker has no {kind.__name__}")

    async def _write_kept(self, reports: Sequence[Report]) -> Sequence[Report]:
        return await self.recorder.write_kept(reports)

    def _committed(self, reports: Sequence[Report]) -> None:
        """Let everybody know what is durable now; whatever fails here, it stays so."""
        for hear in self._on_commit:
            try:
                hear(reports)
            except Exception:
                log.exception("a feature failed on what was committed")

    def _tell_live(self, reports: Sequence[Report]) -> None:
        if self.live.is_heard:
            self.live.tell({report.origin.task_id for report in reports})

    def hand_over(self, heir: Recorder) -> None:
        """Give what is left to another loop's recorder: this one's loop has gone."""
        self.at_process_end.cancel()
        self.keeper.let_go()
        for report in self.recorder.left():
            heir.add(report)

    def _save(self) -> None:
        """Keep what is left: the process ends, or nobody writes it here any more."""
        left = self.recorder.left()
        kept = self.keeper.save(left)
        if kept:
            log.warning("%d reports wait in the journal: they came too late to be written", kept)
        if len(left) > kept:
            log.error("%d reports were not written: nobody stopped the tracker", len(left) - kept)


async def _closed(feature: Feature, *, for_good: bool) -> None:
    try:
        await feature.close(for_good=for_good)
    except Exception:
        log.exception("a feature did not close")
