"""Reruns: the same task again, under a new task_id, with the arguments that it had."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack

from taskiq.kicker import AsyncKicker

from aiotrack import by_hand, catalog
from aiotrack.body import find_task
from aiotrack.current import INHERITED
from aiotrack.encode import encode_task_id, inexact, revive
from aiotrack.errors import (
    ExecutionNotFound,
    InvalidQuery,
    NotRepeatable,
    StoreError,
    StoreUnavailable,
    UnknownTask,
)
from aiotrack.labels import CONFIG, METADATA, PARENT, RERUN_OF, is_tracked, word
from aiotrack.model import DEPENDS_ON, Execution, Rerun, is_own
from aiotrack.records import Records
from aiotrack.schedules.entry import labels_of

if TYPE_CHECKING:
    import builtins

    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask

    from aiotrack.report import History, Report
    from aiotrack.repository.control.births import Birth
    from aiotrack.repository.filters import Narrowing

log = logging.getLogger(__name__)

RERUN_AS: Final = "rerun_as"
"""Key of an execution's metadata: the task_id of its latest rerun."""

RERUN_BY: Final = "rerun_by"
"""Key of a rerun's metadata: who asked for it."""

OF_ONE: Final = {RERUN_AS, RERUN_BY, DEPENDS_ON}
"""Keys of metadata that say nothing of the next one: a rerun waits for nobody, say."""

RETRY_LABELS: Final = ("max_retries", "retry_on_error")

MOST: Final = 500
"""Reruns of one call."""

PAGE: Final = 500
SWEEP: Final = "a sweep of the tracker's own: its schedule sends it; by hand, call its verb"
OWN: Final = (NotRepeatable, UnknownTask)
"""Errors that are one execution's own: the next may be sent."""

SEEN: Final = 10_000
"""Executions that one call looks at."""


class Reruns(Records):
    """The same work again; see `Tracker`."""

    async def rerun(self, task_id: str | int, *, by: str | int | None = None) -> Execution:
        """Send the task of an execution again, with the arguments that it had.

        The new execution has a task_id of its own, ``rerun_of`` names the old one, and ``cause`` of
        its first attempt is ``rerun``. It has the same creator, module, metadata (as it was sent),
        queue, priority and time limit, and the retries that its definition gives now; the old one's
        ``metadata["rerun_as"]`` names it. Nothing is asked of the old one: it may still run, and
        what it waited for does not count. Checkpoints go on where they were.

        Args:
            task_id: The execution.
            by: Who asks for it, kept as ``metadata["rerun_by"]``.

        Returns:
            The new execution.

        Raises:
            ExecutionNotFound: Unknown *task_id*.
            NotRepeatable: Arguments were redacted, cut, or are not stored as they were; or one has
                a name that TaskIQ does not take: ``self``; or it is a sweep's, which its schedule
                sends, and which may delete: the verb does that, by hand.
            UnknownTask: No broker of this tracker, in this process, knows the task.
            StoreUnavailable: The database did not answer.
            taskiq.SendTaskError: The broker did not take it.
        """
        execution = await self.get(task_id)
        if is_own(execution.task_name):
            raise NotRepeatable(execution.task_id, {"task_name": SWEEP})
        births = await self._births([execution])
        new_id = await self._again(execution, births, by, once=False)
        assert new_id is not None
        return await self._sent(execution.task_id, new_id)

    async def rerun_many(
        self,
        *,
        limit: int = 100,
        by: str | int | None = None,
        **filters: Unpack[Narrowing],
    ) -> builtins.list[Rerun]:
        """Rerun what the filters of `list` match, the oldest first.

        Executions that are not over, those with a rerun already, and sweeps are passed over:
        calling it again goes on where it stopped, and two who call it at once send nothing twice.
        It looks at 10,000 executions at most.

        Args:
            limit: Executions at most, 1 to 500.
            by: Who asks for it.
            **filters: As in `list`.

        Returns:
            Each execution with its rerun, or with the error that says why there is none. A broker
            that does not take one ends the list: those after it were not tried.

        Raises:
            InvalidQuery: A filter or limit that cannot be served.
            QueryTimeout: No index serves the filter, and two seconds were over.
            StoreUnavailable: The database did not answer; what was sent until then is sent.
        """
        if type(limit) is not int or not 1 <= limit <= MOST:
            raise InvalidQuery(f"limit must be a whole number from 1 to {MOST}")
        told: list[Rerun] = []
        made: set[str] = set()
        after: str | None = None
        for _ in range(SEEN // PAGE):
            page = await self.list(limit=PAGE, after=after, order="created_at", **filters)
            found = [one for one in page.items if _is_wanted(one) and one.task_id not in made]
            births = await self._births(found)
            for execution in found:
                outcome = await self._tried(execution, births, by)
                if outcome is None:
                    continue
                told.append(outcome)
                if outcome.execution is not None:
                    made.add(outcome.execution.task_id)
                goes_on = outcome.error is None or isinstance(outcome.error, OWN)
                if len(told) == limit or not goes_on:
                    return told
            after = page.next
            if after is None:
                break
        return told

    async def _tried(
        self, execution: Execution, births: Mapping[str, Birth], by: str | int | None
    ) -> Rerun | None:
        try:
            new_id = await self._again(execution, births, by, once=True)
            if new_id is None:
                return None  # somebody else does it
            sent = await self._sent(execution.task_id, new_id)
            return Rerun(task_id=execution.task_id, execution=sent)
        except ExecutionNotFound:
            return None  # it was deleted meanwhile
        except StoreError:
            raise
        except Exception as error:  # it is told, and those before it are not lost
            return Rerun(task_id=execution.task_id, error=error)

    async def _sent(self, task_id: str, new_id: str) -> Execution:
        try:
            return await self.get(new_id)
        except (ExecutionNotFound, StoreUnavailable) as error:
            raise StoreUnavailable(
                f"{task_id!r} was sent again as {new_id!r}, whose record cannot be read for now"
            ) from error

    async def _births(self, executions: Iterable[Execution]) -> Mapping[str, Birth]:
        from aiotrack.repository.control.births import births

        ids = [encode_task_id(one.task_id) for one in executions]
        return await births(self.core().repository, ids) if ids else {}

    async def _again(
        self,
        execution: Execution,
        births: Mapping[str, Birth],
        by: str | int | None,
        *,
        once: bool,
    ) -> str | None:
        """Send it again, and give the new task_id; None if somebody did, and that is enough."""
        birth = births.get(encode_task_id(execution.task_id))
        if birth is None:
            raise ExecutionNotFound(execution.task_id)
        broker, task = self._task(execution.task_name)
        args, kwargs = arguments(execution, is_exact=birth.exact)
        if wrong := catalog.unsendable(kwargs):
            raise NotRepeatable(execution.task_id, {"arguments": "; ".join(wrong)})
        labels = task.labels | await self._retries(execution)
        labels |= _labels(execution, labels, broker)
        metadata = {k: v for k, v in birth.metadata.items() if k not in OF_ONE}
        if by is not None:
            metadata[RERUN_BY] = str(by)
        if metadata:
            labels[METADATA] = self.encoder.encode_kwargs(metadata).text
        new_id: str = broker.id_generator()
        is_ours, before = await self._link(
            execution.task_id, new_id, over=lambda known: known is None or not once
        )
        if not is_ours:
            return None
        kicker: AsyncKicker[..., Any] = AsyncKicker(execution.task_name, broker, labels)
        token = INHERITED.set(None)  # what it was born with counts, not who repeats it
        try:
            await kicker.with_task_id(new_id).kiq(*args, **kwargs)
        except Exception:
            await self._unlink(execution.task_id, new_id, before)
            raise
        finally:
            INHERITED.reset(token)
        return new_id

    async def _retries(self, execution: Execution) -> dict[str, Any]:
        """Give what its definition, as it is now, says of retries: no record has that."""
        from aiotrack.repository.control.definitions import DefinitionRows

        if execution.config_id is None:
            return {}
        found = await DefinitionRows(self.core().repository).meant(execution.config_id)
        if found is None or found.task_type != execution.task_name:
            return {}
        told = labels_of(found)
        return {name: told[name] for name in RETRY_LABELS if name in told}

    def _task(self, name: str) -> tuple[AsyncBroker, AsyncTaskiqDecoratedTask[Any, Any]]:
        found = find_task(self.brokers, name)
        if found is None:
            raise UnknownTask(name, brokers=len(self.brokers))
        return found

    async def _link(
        self, task_id: str, new_id: str | None, *, over: Callable[[Any], bool]
    ) -> tuple[bool, Any]:
        """Let the old record name its rerun, before it is sent: of two callers one may.

        Args:
            task_id: The old one.
            new_id: The new one.
            over: Whether it takes the place of the one that is named, or of None.

        Returns:
            Whether it does, and the one that was named.
        """
        change = by_hand.Change(
            status=None, result=None, error=None, traceback=None, metadata={RERUN_AS: new_id}
        ).on(self.clock.now(), self)
        is_ours, before = True, None

        def claim(history: History) -> Iterable[Report]:
            nonlocal is_ours, before
            known = history.patch.get(RERUN_AS)
            before = None if known is None else json.loads(known[1])
            is_ours = over(before)
            return change(history) if is_ours else []

        core = await self._flushed()
        await core.repository.connect()  # it knows what time it is
        await core.repository.modify(encode_task_id(task_id), claim)
        return is_ours, before

    async def _unlink(self, task_id: str, new_id: str, before: Any) -> None:
        """Let the old record name the rerun before the one that was not sent; it never raises."""
        try:
            await self._link(task_id, before, over=lambda known: known == new_id)
        except Exception as error:  # why it was not sent is what the caller has to know
            log.warning("%r names the rerun %r, which was not sent: %r", task_id, new_id, error)


def arguments(execution: Execution, *, is_exact: bool) -> tuple[list[Any], dict[str, Any]]:
    """Give the arguments that an execution had.

    Raises:
        NotRepeatable: They are not stored as they were.
    """
    args, kwargs = execution.args, execution.kwargs
    try:
        if is_exact:
            return [revive(one) for one in args], {key: revive(one) for key, one in kwargs.items()}
    except ValueError:  # more digits than this process reads
        raise NotRepeatable(execution.task_id, {"arguments": "too long a number"}) from None
    if not args and not kwargs:
        raise NotRepeatable(execution.task_id, {"arguments": "not stored"})
    fields = dict([*inexact(args, "args"), *inexact(kwargs, "kwargs")])
    raise NotRepeatable(
        execution.task_id, fields or {"arguments": "something that JSON has no word for, or a mask"}
    )


def _is_wanted(execution: Execution) -> bool:
    is_free = execution.is_completed and execution.metadata.get(RERUN_AS) is None
    return is_free and not is_own(execution.task_name)


def _labels(execution: Execution, known: Mapping[str, Any], broker: AsyncBroker) -> dict[str, Any]:
    """Give the labels that make the new execution what the old one was, as far as they differ.

    Args:
        execution: The old one.
        known: Labels that the new one has anyway.
        broker: Sends it.
    """
    told: dict[str, Any] = {
        RERUN_OF: execution.task_id,
        "module": execution.module,
        "created_by": execution.created_by,
        PARENT: execution.parent_task_id,
        CONFIG: execution.config_id,
        "priority": execution.priority,
        "timeout": execution.time_limit,
    }
    queue = execution.queue
    named = word(known.get("queue")) or word(known.get("queue_name"))
    if queue not in {None, named or getattr(broker, "queue_name", None)}:
        told |= {"queue": queue, "queue_name": queue}  # brokers read the one or the other
    if not is_tracked(known):
        told["track"] = True
    return {label: value for label, value in told.items() if value is not None}
