"""What users call: submit a task, see the queues and the tasks that there are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from taskiq import AsyncTaskiqTask
from taskiq.kicker import AsyncKicker

from aiotrack import catalog
from aiotrack.body import find_task
from aiotrack.errors import ExecutionNotFound, InvalidInput, StoreError, UnknownTask
from aiotrack.labels import METADATA, is_tracked, read_metadata
from aiotrack.lifecycle import Lifecycle
from aiotrack.middleware import TrackerMiddleware
from aiotrack.model import DEPENDS_ON, Queue, TaskInfo, TaskStatus, WorkerStatus, is_own
from aiotrack.submission import depth, messages
from aiotrack.submission.feature import Submission
from aiotrack.submission.wishes import Wish, check

if TYPE_CHECKING:
    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask

log = logging.getLogger(__name__)

NAMED: Final = 20
"""Executions that this metadata names; of more it says how many."""


class HasTaskId(Protocol):
    """An execution, or what a send gives."""

    @property
    def task_id(self) -> str:
        """Names the execution."""


class Submitting(Lifecycle):
    """Sends tasks that are checked before; see `Tracker`."""

    async def submit(
        self,
        task: AsyncTaskiqDecoratedTask[Any, Any] | str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        priority: int | str | None = 1,
        timeout: float | None = None,
        depends_on: str | int | HasTaskId | Iterable[str | int | HasTaskId] = (),
    ) -> AsyncTaskiqTask[Any]:
        """Send a task, or hold it until others have succeeded.

        What is wrong is told before anything is sent. The message is made and sent as by ``kiq()``,
        with `tracking` and through all middlewares of the broker.

        With *depends_on* the execution is PENDING at once, and its ``metadata["depends_on"]`` names
        what it waits for. The message is kept in the database, as JSON, and sent by whichever
        process with this tracker and the task sees that all of them are SUCCESS: the one in which
        the last one ends does it at once, workers look every second. As soon as one of them fails
        for good, is cancelled, or is deleted before it succeeded, the execution is FAILURE with a
        `DependencyFailed`, also as its result, and what waits for it in turn. A retry that is
        coming, or a verdict that is only presumed, decides nothing. `cancel` ends it while it
        waits. Nobody can make a ring: only what exists can be waited for.

        Args:
            task: A task of a broker with this tracker's `TrackerMiddleware`, or its name; no
                kicker, which has labels of its own.
            args: Positional arguments.
            kwargs: Keyword arguments.
            priority: 1, the lowest, to 10, or ``low`` (2), ``medium`` (5), ``high`` (8), ``urgent``
                (10), for brokers that know priorities. A label ``priority`` of the task comes
                before the default.
            timeout: Seconds that a run may take. Default: the task's label ``timeout``, else the
                setting ``task_timeout_seconds``.
            depends_on: A task_id, or what has one: an execution, or what ``submit`` or ``kiq()``
                gave; or several of them, at most 1000.

        Returns:
            What ``kiq()`` gives: ``task_id``, ``wait_result()``.

        Raises:
            UnknownTask: No broker of this tracker, in this process, knows the task.
            InvalidInput: Arguments that do not fit its function, or any other; with every fault.
            ExecutionNotFound: Nobody knows one of *depends_on*.
            QueueFull: ``max_queue`` messages wait in its queue. How many is asked at most once a
                second while there is room; `rerun`, retries and what was held are never refused.
            StoreUnavailable: The database did not answer; only with *depends_on*, and it may be
                held then, or not.
            taskiq.SendTaskError: The broker did not take it.
        """
        broker, known = self._task_of(task)
        wish = check(
            known,
            args,
            kwargs,
            priority=priority,
            timeout=timeout,
            depends_on=depends_on,
            default_timeout=self.options.task_timeout_seconds,
        )
        labels = known.labels | wish.labels
        feature = self.core().feature(Submission)
        if wish.needs:
            told = {**read_metadata(labels), DEPENDS_ON: _named(list(wish.needs.values()))}
            labels[METADATA] = self.encoder.encode_kwargs(told).text
            async with feature.few:
                if await self._is_waiting(feature, wish):
                    await feature.gate.check(broker, labels)
                    return await self._hold(feature, broker, known, labels, wish)
        kicker = known.kicker().with_broker(broker).with_labels(**labels)
        async with feature.gate.place(broker, labels):
            sent: AsyncTaskiqTask[Any] = await kicker.kiq(*wish.args, **wish.kwargs)
        return sent

    async def queues(self) -> list[Queue]:
        """Give the queues of this tracker's brokers in this process, by name.

        Of taskiq-redis' stream brokers on a Redis before 7, and of brokers that neither have
        ``queue_states()`` nor are taskiq-redis' list or stream broker, nothing is known: they are
        left out, as is what does not answer within two seconds. Of a name that several brokers
        have, the first is told. ``consumers`` that a broker does not know are the workers that
        beat.
        """
        found: dict[str, Queue] = {}
        for queues in await asyncio.gather(*map(depth.states, tuple(self.brokers))):
            for queue in queues:
                found.setdefault(queue.name, queue)
        listening = await self._listening() if found else {}
        told = (
            replace(one, consumers=listening.get(one.name, 0))
            if one.consumers is None and listening is not None
            else one
            for one in found.values()
        )
        return sorted(told, key=lambda one: one.name)

    def tasks(self) -> list[TaskInfo]:
        """Give the tasks that can be submitted in this process, by name, with their parameters.

        Those of all brokers with this tracker, but not its own sweeps.
        """
        return [one for one in catalog.tasks(self.brokers) if not is_own(one.name)]

    def _task_of(
        self, task: AsyncTaskiqDecoratedTask[Any, Any] | str
    ) -> tuple[AsyncBroker, AsyncTaskiqDecoratedTask[Any, Any]]:
        """Find a task, and a broker of ours that sends it: its own, if that is one."""
        if isinstance(task, AsyncKicker):  # what it was told, its task_id too, would be lost
            fault = "a kicker is sent by its own kiq(): give its task, or the task's name"
            raise InvalidInput([fault], task.task_name)
        name = task if isinstance(task, str) else getattr(task, "task_name", None)
        if not isinstance(name, str):
            raise UnknownTask(repr(task), brokers=len(self.brokers))
        own = getattr(task, "broker", None)
        found = find_task([one for one in self.brokers if one is own] or self.brokers, name)
        if found is None:
            raise UnknownTask(name, brokers=len(self.brokers))
        return found

    async def _is_waiting(self, feature: Submission, wish: Wish) -> bool:
        """Tell whether anything that is needed has not succeeded yet.

        Raises:
            ExecutionNotFound: Nobody knows one of them.
        """
        await self._flushed()
        states = await feature.releaser.rows().states(wish.needs)
        for task_id, told in wish.needs.items():
            if task_id not in states:
                raise ExecutionNotFound(told)
        return any(one.status is not TaskStatus.SUCCESS for one in states.values())

    async def _hold(
        self,
        feature: Submission,
        broker: AsyncBroker,
        task: AsyncTaskiqDecoratedTask[Any, Any],
        labels: dict[str, Any],
        wish: Wish,
    ) -> AsyncTaskiqTask[Any]:
        if not is_tracked(labels):
            labels["track"] = True  # what nobody recorded could not be released
        task_id: str = broker.id_generator()
        message = messages.make(task_id, task.task_name, labels, wish.args, wish.kwargs)
        ours = next(
            one
            for one in broker.middlewares
            if isinstance(one, TrackerMiddleware) and one.tracker is self
        )
        report = ours.hold(message)
        await feature.hold(report, messages.dump(message), wish.needs)
        return AsyncTaskiqTask(
            task_id=task_id, result_backend=broker.result_backend, return_type=task.return_type
        )

    async def _listening(self) -> Mapping[str, int] | None:
        """Count the workers that listen to each queue; None where the database does not tell."""
        from aiotrack.repository.control.workers import Registry

        counts: dict[str, int] = {}
        try:
            for worker in await Registry(self.core().repository).list():
                if worker.status is WorkerStatus.ALIVE:
                    for queue in worker.queues:
                        counts[queue] = counts.get(queue, 0) + 1
        except StoreError as error:
            log.debug("who listens to the queues is not known: %s", error)
            return None
        return counts


def _named(task_ids: list[str]) -> list[str]:
    more = len(task_ids) - NAMED
    return [*task_ids[:NAMED], *([f"and {more} more"] if more > 0 else ())]
