"""Sends what waited long enough, and fails what would wait for ever.

It asks the rows as they are: whoever calls it, however often and from however many processes, each
message is claimed by one. Only a process that is killed between send and deletion may let a message
be sent twice, and not if a run of it was recorded until its claim is given up.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from taskiq import TaskiqResult

from aiotrack.body import find_task
from aiotrack.classes import PERMANENT
from aiotrack.errors import DependencyFailed, TaskCancelled
from aiotrack.model import TaskStatus
from aiotrack.report import History, Report, Witness
from aiotrack.submission import messages

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.core import Core
    from aiotrack.repository.control.held import Broken, Held

log = logging.getLogger(__name__)

BATCH: Final = 100
"""Messages that are looked at, claimed and sent together."""

GIVEN_UP: Final = 30.0
"""Seconds after which whoever claimed a message does not send it any more: he was killed."""

SEND: Final = 10.0
"""Seconds for a broker to take a message; and the age of a claim at which no send begins is this
much less than `GIVEN_UP`."""

SAVE: Final = 2.0
"""Seconds for a result backend to take the result of what was never sent."""

SHOWN: Final = 200
"""Characters of an error that are repeated in the error of what waited."""


class Releaser:
    """Looks after held messages for one event loop."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._late: set[asyncio.Task[Any]] = set()
        self._sent: set[str] = set()
        """What a broker has taken, and is not deleted yet."""
        self._after = ""

    def rows(self) -> Held:
        """Give the held messages of the tasks that this process can send."""
        from aiotrack.repository.control.held import Held

        encoder = self._core.tracker.encoder
        names = {
            encoder.name(name) for broker in self._core.brokers for name in broker.get_all_tasks()
        }
        return Held(self._core.repository, names)

    async def look(self) -> int:
        """Find what there is something to do about, and do it; of very many, a piece at a time.

        Returns:
            How many messages were found.

        Raises:
            StoreUnavailable: The database did not answer; what was done until then stays.
        """
        await self._core.repository.connect()  # it knows what time it is
        held = self.rows()
        found, self._after = await held.ripe(after=self._after, before=self._given_up())
        await self.settle(found)
        return len(found)

    def _given_up(self) -> int:
        """Give the moment, in microseconds: a claim from before it was given up."""
        return self._core.clock.now() - int(GIVEN_UP * 1e6)

    async def settle(self, task_ids: Iterable[str]) -> None:
        """Send, fail or forget each of these messages that has nothing to wait for any more.

        Raises:
            StoreUnavailable: The database did not answer; what was done until then stays.
        """
        held = self.rows()
        todo = list(dict.fromkeys(task_ids))
        while todo:
            batch, todo = todo[:BATCH], todo[BATCH:]
            waiting = await self._sort_out(held, batch)
            await held.meet(waiting)
            broken = await held.broken(waiting)
            if broken:
                await self._fail(held, broken)
                todo += await held.dependants(broken)
            await self._send(held, [one for one in waiting if one not in broken])

    async def _sort_out(self, held: Held, task_ids: list[str]) -> list[str]:
        """Forget what was cancelled, deleted, or sent before; give what still waits."""
        states = await held.states(task_ids)
        waiting = [
            one
            for one in task_ids
            if one in states and not (states[one].is_over or states[one].runs)
        ]
        over = sorted(set(task_ids) - set(waiting))
        if over:
            cancelled = [
                self._save(states[one].task_name, one, TaskCancelled(one))
                for one in over
                if one in states and states[one].status is TaskStatus.REVOKED
                if not states[one].runs
            ]
            await asyncio.gather(*cancelled)
            await held.drop(over)
        return waiting

    async def _fail(self, held: Held, broken: Mapping[str, Broken]) -> None:
        """End what waits for something that did not succeed."""
        errors = {one.task_id: _error(one) for one in broken.values()}
        encoder, now = self._core.tracker.encoder, self._core.clock.now()
        failed: dict[str, str] = {}

        def change(history: History) -> Iterable[Report]:
            shown = history.shown()
            failed.pop(history.task_id, None)
            is_over = shown.status.is_final and shown.witness is not Witness.PRESUMED
            if is_over or shown.is_run:
                return
            failed[history.task_id] = shown.origin.task_name
            error = errors[history.task_id]
            shown.origin.echoes = True
            yield Report(
                shown.origin,
                Witness.ENDED,
                TaskStatus.FAILURE,
                f"!dependency:{shown.shown_attempt}",
                attempt=shown.shown_attempt,
                finished_at=now,
                error=encoder.text(str(error)),
                error_type=type(error).__name__,
                error_class=PERMANENT,
            )

        await self._core.repository.revise(list(broken), change)
        saves = (self._save(name, task_id, errors[task_id]) for task_id, name in failed.items())
        await asyncio.gather(*saves)
        await held.drop(broken)

    async def _send(self, held: Held, task_ids: list[str]) -> None:
        await self._forget(held)
        if not task_ids:
            return
        now = self._core.clock.now()
        claimed = await held.claim(task_ids, now=now, before=self._given_up())
        if not claimed:
            return
        until = time.monotonic() + GIVEN_UP - SEND
        sends = {_apart(self._kick(*one, until)) for one in claimed.items()}
        forgetting = _apart(self._forget_later(held, sends))
        self._keep(forgetting)
        await asyncio.wait({forgetting}, timeout=SEND)
        await self._forget(held)  # one that hangs does not keep the others

    async def _kick(self, task_id: str, text: str, until: float) -> None:
        """Send a message; what is not sent is claimed again when our claim is given up."""
        try:
            found = find_task(self._core.brokers, messages.name_of(text))
            if found is not None and time.monotonic() <= until:
                await messages.send(text, found[0])
                self._sent.add(task_id)
        except Exception as error:
            log.warning("%s was not sent; again in %g s: %r", task_id, GIVEN_UP, error)

    async def _forget(self, held: Held) -> None:
        """Delete what was sent, before anything else is: it must not be sent again."""
        sent = sorted(self._sent)
        if sent:
            await held.drop(sent)
            self._sent.difference_update(sent)

    async def _forget_later(self, held: Held, sends: Iterable[asyncio.Task[None]]) -> None:
        """Delete what a broker takes its time for, too, and what is sent while we are stopped."""
        await asyncio.wait(sends)
        try:
            await self._forget(held)
        except Exception as error:
            log.debug("what was sent is forgotten at the next look: %s", error)

    async def _save(self, task_name: str, task_id: str, error: Exception) -> None:
        """Let who waits for the result know that there is none."""
        from aiotrack.repository.read import decode_task_id

        found = self._find(task_name)
        if found is None:
            return
        result: TaskiqResult[Any] = TaskiqResult(
            is_err=True, return_value=None, execution_time=0.0, error=error
        )
        try:
            async with asyncio.timeout(SAVE):
                await found.result_backend.set_result(decode_task_id(task_id), result)
        except Exception as fault:
            log.warning("who waits for the result of %s is not told: %r", task_id, fault)

    def _find(self, stored: str) -> AsyncBroker | None:
        """Give the broker of a task by its name as it is stored."""
        encoder = self._core.tracker.encoder
        for broker in self._core.brokers:
            if any(encoder.name(name) == stored for name in broker.get_all_tasks()):
                return broker
        return None

    async def close(self, timeout: float) -> None:
        """Wait a moment for what a broker has not taken yet."""
        if self._late:
            await asyncio.wait(self._late, timeout=timeout)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._late.add(task)
        task.add_done_callback(self._late.discard)


def _error(broken: Broken) -> DependencyFailed:
    from aiotrack.repository.read import decode_task_id

    if broken.status is None:
        reason = "which was deleted before it had succeeded"
    elif broken.status is TaskStatus.REVOKED:
        reason = f"({broken.task_name}), which was cancelled"
    else:
        told = broken.error or broken.error_type or "nobody knows why"
        if broken.error_type not in {None, told, DependencyFailed.__name__}:
            told = f"{broken.error_type}: {told}"
        short = told if len(told) <= SHOWN else f"{told[:SHOWN]}…"
        reason = f"({broken.task_name}), which failed: {short}"
    return DependencyFailed(decode_task_id(broken.needs), reason)


def _apart(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Run in a context that belongs to no run."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())
