"""The worker of one event loop: known, beating, and looking after others in its turn."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
from typing import TYPE_CHECKING, cast

from taskiq import InMemoryBroker

from aiotrack import by_hand, rescue
from aiotrack.clock import to_datetime
from aiotrack.current import Run
from aiotrack.errors import StoreError
from aiotrack.feature import Feature
from aiotrack.guard import complain
from aiotrack.workers import facts
from aiotrack.workers.heart import Heart

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.core import Core
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.repository import Repository
    from aiotrack.repository.control.workers import Beat, Described
    from aiotrack.tracker import Tracker

log = logging.getLogger(__name__)


class Workers(Feature):
    """Registers this process as a worker as soon as it serves a broker.

    An `InMemoryBroker` makes no worker: it has no queue, and its runs end with who sent them.
    """

    def __init__(self, tracker: Lifecycle, core: Core) -> None:
        super().__init__(tracker, core)
        self._heart: Heart | None = None
        self._brokers: list[AsyncBroker] = []
        self._room = facts.Room(())
        self._cpu = facts.Cpu()
        self._versions: dict[str, str] = {}
        self._sweep: asyncio.Task[None] | None = None
        self._waiting = rescue.Unknown()

    def serve(self, broker: AsyncBroker) -> None:
        """Register, or tell at once that another broker is served, too."""
        if isinstance(broker, InMemoryBroker) or any(one is broker for one in self._brokers):
            return
        for task in broker.get_all_tasks().values():
            rescue.wants_requeue(task)
        self._brokers = [*self._brokers, broker]
        self._room = facts.Room(self._brokers)
        if self._heart is None:
            self._cpu, self._versions = facts.Cpu(), facts.versions()
            is_on = self.tracker.options.rescue_lost_enabled
            self._heart = Heart(
                self._open_database, self._describe, self._beat, self._look if is_on else None
            )
        else:
            self._heart.wake()

    async def close(self, *, for_good: bool) -> None:
        """Say farewell; a worker that has runs in flight goes on beating."""
        if not for_good:
            return
        sweep, self._sweep = self._sweep, None
        if sweep is not None:
            sweep.cancel()
        heart, self._heart = self._heart, None
        self._brokers = []
        if heart is not None:
            await heart.stop()

    def _open_database(self) -> Repository:
        from aiotrack.repository.control.workers import twin

        return twin(self.core.repository)

    def _describe(self) -> Described:
        from aiotrack.repository.control.workers import Described

        encoder, brokers = self.tracker.encoder, self._brokers
        return Described(
            id=self.tracker.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            beat_seconds=self.tracker.options.heartbeat_seconds,
            queues=facts.queues_of(brokers, encoder),
            tasks=facts.tasks_of(brokers, encoder),
            concurrency=self._room.size(),
            versions=self._versions,
        )

    def _beat(self) -> Beat:
        from aiotrack.repository.control.workers import Beat

        if self.core.keeper.is_due:  # else only a report would make it look
            self.core.loop.call_soon_threadsafe(self._look_for_journals)
        runs = list(self.core.recorder.running)  # at once: the loop's thread changes it
        return Beat(
            running=[run.run_id for run in runs if isinstance(run, Run)],
            memory=facts.memory(),
            cpu=self._cpu.share(),
        )

    def _look_for_journals(self) -> None:
        """Adopt what other processes left, in the worker's loop: nothing else need happen here."""
        if self._heart is not None and self.core.keeper.is_due:
            self.core.recorder.start()

    def _look(self) -> None:
        """Look after lost workers, in a task of no run; never two at a time."""
        if self._heart is not None and (self._sweep is None or self._sweep.done()):
            loop = asyncio.get_running_loop()
            self._sweep = loop.create_task(
                self._look_after(), name="aiotrack-rescue", context=contextvars.Context()
            )

    async def _look_after(self) -> None:
        """Rescue, and record that if it changed anything."""
        core, tracker = self.core, cast("Tracker", self.tracker)
        now = to_datetime(tracker.clock.now())
        run = by_hand.begin_sweep(tracker, rescue.TASK, f"{now:%Y-%m-%dT%H:%M:%S.%fZ}")
        try:
            rescued = await rescue.rescue(core, is_proven=True)
            run.result = rescued.count + await rescue.judge_unknown(core, self._waiting)
            if rescued.is_left and self._heart is not None:
                self._heart.passes = 1
            if run.result:
                await core.recorder.commit(by_hand.end(tracker, run, None))
        except StoreError as error:
            log.debug("lost workers are looked after at the next turn: %s", error)
        except Exception as error:
            complain("rescue of lost workers", error)
