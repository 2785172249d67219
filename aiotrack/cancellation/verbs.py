"""What users call: cancel one execution, or many; and look whether one was cancelled."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Unpack

from aiotrack.cancellation.asking import ask
from aiotrack.cancellation.feature import MOST, Cancellation
from aiotrack.cancellation.outcome import CancelOutcome
from aiotrack.current import CURRENT
from aiotrack.encode import encode_task_id
from aiotrack.errors import ExecutionNotFound, InvalidQuery, TaskCancelled
from aiotrack.lifecycle import Lifecycle
from aiotrack.model import TaskStatus

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.repository.filters import Narrowing

BATCH = 500
"""Executions that are locked at once."""

UNFINISHED = (TaskStatus.PENDING, TaskStatus.STARTED, TaskStatus.RETRY)


class Cancelling(Lifecycle):
    """Ends executions; see `Tracker`."""

    async def cancel(
        self, task_id: str | int, *, reason: str | None = None, by: str | int | None = None
    ) -> CancelOutcome:
        """End an execution, wherever it is; the record says who asked, and why.

        What waits, also for a retry, is REVOKED at once, and no worker runs it. The async body of
        one that runs gets a `CancelledError` within a second, and it ends REVOKED; a body that
        swallows it ends as it does. A sync body runs on, unless it calls `raise_if_cancelled`. A
        cancelled execution is never retried; who waits for its result gets `TaskCancelled`. An
        execution that is presumed lost or timed out counts as one that still runs, or waits.
        Cancelling twice does no harm: the first reason stays.

        Args:
            task_id: The execution.
            reason: Why, for the record.
            by: Who asked, for the record; an int is kept as text.

        Returns:
            ``revoked``, ``cancelling``, ``not_interruptible`` or ``finished``.

        Raises:
            ExecutionNotFound: There is no such execution.
            StoreUnavailable: The database did not answer: the wish may be stored, or not.
        """
        core = await self._flushed()
        known = await core.reader.get(task_id)
        if known.is_completed and not known.presumed:
            return CancelOutcome.FINISHED
        key = encode_task_id(task_id)
        found = await self._ask(core, [key], reason, by)
        if key not in found:
            raise ExecutionNotFound(task_id if isinstance(task_id, str) else str(task_id))
        return found[key]

    async def cancel_many(
        self,
        *,
        reason: str | None = None,
        by: str | int | None = None,
        limit: int = 10_000,
        **filters: Unpack[Narrowing],
    ) -> Counter[CancelOutcome]:
        """End the executions that match every filter, the newest first, in batches of 500.

        Args:
            reason: As in `cancel`.
            by: As in `cancel`.
            limit: Executions at most, 1 to 50,000: as many as each worker remembers.
            **filters: As in `list`; without ``status`` all that are not finished.

        Returns:
            How many there were of each outcome.

        Raises:
            InvalidQuery: A filter or limit that cannot be served.
            QueryTimeout: No index serves it, and two seconds were over.
            StoreUnavailable: The database did not answer; what was done until then stays.
        """
        from aiotrack.repository.cursor import is_int

        if not is_int(limit) or not 1 <= limit <= MOST:
            raise InvalidQuery("limit must be a whole number from 1 to 50,000")
        if filters.get("status") is None:
            filters["status"] = UNFINISHED
        core = await self._flushed()
        counted: Counter[CancelOutcome] = Counter()
        after: str | None = None
        while limit > 0:
            page = await core.reader.list(limit=min(BATCH, limit), after=after, **filters)
            limit -= len(page.items)
            over = [one for one in page.items if one.is_completed and not one.presumed]
            left = [encode_task_id(one.task_id) for one in page.items if one not in over]
            counted[CancelOutcome.FINISHED] += len(over)
            counted.update((await self._ask(core, left, reason, by)).values() if left else ())
            after = page.next
            if after is None:
                break
        return +counted

    async def _ask(
        self, core: Core, task_ids: list[str], reason: str | None, by: str | int | None
    ) -> dict[str, CancelOutcome]:
        return await ask(
            self,
            core,
            task_ids,
            reason=None if reason is None else self.encoder.text(reason),
            by=None if by is None else self.encoder.name(str(by)),
        )

    def _hear_cancels(self) -> None:
        """Hear of cancels in the loop that the tracker runs in, called from any thread."""
        loop = self.living_loop()
        if loop is not None:
            try:
                loop.call_soon_threadsafe(lambda: self.core().feature(Cancellation).listen())
            except RuntimeError:  # it was closed just now
                return


def raise_if_cancelled() -> None:
    """End the execution that runs in this context, if somebody cancelled it.

    For sync bodies, which nothing else can end, and for long stretches of async ones without an
    await. Asks nobody: it may be called in every turn of a loop. Outside a run it does nothing.

    Raises:
        TaskCancelled: Let it pass: the record becomes REVOKED.
    """
    run = CURRENT.get()
    if run is not None and run.cancelled and not run.is_over:
        raise TaskCancelled(run.origin.task_id)
