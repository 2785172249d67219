"""Records as users write and read them by hand: `register`, `update`, `get`, `list`, `stats`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack

from aiotrack import by_hand, rescue, results
from aiotrack.clock import to_stored
from aiotrack.counts import Stats
from aiotrack.encode import encode_task_id
from aiotrack.errors import ExecutionNotFound
from aiotrack.lifecycle import Lifecycle
from aiotrack.model import Attempt, Count, Execution, Page, TaskStatus, Worker
from aiotrack.report import History, Report, Witness

if TYPE_CHECKING:
    import builtins

    from aiotrack.repository.filters import Narrowing

UNSET: Any = object()
"""An argument that was not given, where None means something."""


class Records(Lifecycle):
    """Executions by id and by filter; see `Tracker`."""

    async def register(
        self,
        task_id: str | int,
        task_name: str,
        *,
        module: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        created_by: str | int | None = None,
        metadata: Mapping[str, Any] | None = None,
        status: TaskStatus | str = TaskStatus.PENDING,
        created_at: datetime | None = None,
        started_at: datetime | None = None,
        finished_at: datetime | None = None,
        result: Any = UNSET,
        error: str | BaseException | None = None,
    ) -> Execution:
        """Record work that no broker carries, or add facts to a record. Harmless when repeated.

        Args:
            task_id: Any text; an int is kept as text.
            task_name: What is done.
            module: Business scope; default: the first part of *task_name*.
            args: Positional arguments.
            kwargs: Keyword arguments.
            created_by: Who asked for it; it comes before what a message said.
            metadata: Key-value pairs.
            status: In any vocabulary that `TaskStatus.parse` knows.
            created_at: Aware; default: now, or the earliest of the given times. They let rows of an
                old table be moved.
            started_at: Aware; default: now, when *status* says that it started.
            finished_at: Aware; default: now, when *status* is final.
            result: What it gave.
            error: What went wrong, text or an exception.

        Raises:
            InvalidStatus: Nobody knows the status.
            InvalidValue: A time without an offset, or not of the years 2 to 9998.
            StoreUnavailable: The database did not take it.
        """
        word = TaskStatus.parse(status)
        core = await self._flushed()
        await core.repository.connect()  # it knows what time it is
        origin = by_hand.origin_of(
            self,
            task_id,
            task_name,
            module=module,
            args=args,
            kwargs=kwargs or {},
            created_by=created_by,
            metadata=metadata or {},
        )
        given = by_hand.Given(
            started_at=None if started_at is None else to_stored(started_at, "started_at"),
            finished_at=None if finished_at is None else to_stored(finished_at, "finished_at"),
            result=None if result is UNSET else self.encoder.encode(result).text,
            error=error,
        )
        if created_at is not None:
            origin.created_at = to_stored(created_at, "created_at")
        elif (known := given.earliest()) is not None:
            origin.created_at = min(origin.created_at, known)
        reports = by_hand.register_reports(origin, word, self.clock.now(), given, self)
        try:
            await core.repository.modify(origin.task_id, by_hand.unless_known(reports))
        except ExecutionNotFound:
            await core.repository.add(reports)
        return await core.reader.get(task_id)

    async def update(
        self,
        task_id: str | int,
        status: TaskStatus | str | None = None,
        *,
        result: Any = UNSET,
        error: str | BaseException | None = None,
        traceback: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Execution:
        """Change a record by hand.

        Metadata is merged key by key. After a true final status a status is ignored, metadata is
        still merged, and the stored record is returned; a presumed verdict yields. An end that a
        run's own process tells stays when its code returns; an error that this raises takes the
        place of a failure.

        Args:
            task_id: The execution.
            status: In any vocabulary that `TaskStatus.parse` knows.
            result: Any value; None is kept as a result.
            error: Text or an exception.
            traceback: Text.
            metadata: Keys to set.

        Raises:
            ExecutionNotFound: Unknown *task_id*.
            InvalidStatus: Nobody knows the status.
            InvalidValue: A result, error or traceback without a status.
        """
        change = by_hand.Change(
            status=None if status is None else TaskStatus.parse(status),
            result=None if result is UNSET else self.encoder.encode(result).text,
            error=error,
            traceback=traceback,
            metadata=metadata or {},
        )
        change.check()
        core = await self._flushed()
        await core.repository.connect()
        key, make = encode_task_id(task_id), change.on(self.clock.now(), self)
        made: dict[str, Report] = {}
        if change.status is not None:
            for write_before in core.before_change:
                await write_before(key)

        def remembered(history: History) -> Iterable[Report]:
            reports = list(make(history))
            made.clear()  # a conflict asks again
            made.update((one.run_id, one) for one in reports if one.witness is Witness.ENDED)
            return reports

        await core.repository.modify(key, remembered)
        for run_id, report in made.items():
            run = self.run_of(run_id)
            if run is not None:
                run.told = report
        return await core.reader.get(task_id)

    async def sync(self, task_id: str | int) -> Execution:
        """Fill an unfinished record from the result backends of this tracker's brokers.

        A record with a true final status stays as it is; a presumed verdict yields. Backends that
        keep nothing, or give a result only once, are not asked. One that does not answer within
        two seconds, or with nonsense, is logged, and the record stays as it is.

        Args:
            task_id: The execution.

        Raises:
            ExecutionNotFound: Unknown *task_id*.
            StoreUnavailable: The database did not answer.
        """
        known = await self.get(task_id)
        if known.is_completed and not known.presumed:
            return known
        outcome = await results.ask(self, str(task_id))
        if outcome is None:
            return known
        core = await self._flushed()
        change = outcome.on(self.clock.now(), self)
        await core.repository.modify(encode_task_id(task_id), change)
        return await core.reader.get(task_id)

    async def get(self, task_id: str | int) -> Execution:
        """Give the execution with *task_id*.

        Raises:
            ExecutionNotFound: There is none.
            StoreUnavailable: The database did not answer.
        """
        return await (await self._flushed()).reader.get(task_id)

    async def get_by_id(self, id: int) -> Execution:  # noqa: A002 - the column's name
        """Give the execution with the number *id*.

        Raises:
            ExecutionNotFound: There is none.
        """
        return await (await self._flushed()).reader.get_by_id(id)

    async def attempts(self, task_id: str | int) -> builtins.list[Attempt]:
        """Give every run of an execution in order, each with its own error.

        Raises:
            ExecutionNotFound: There is no such execution.
        """
        return await (await self._flushed()).reader.attempts(task_id)

    async def list(
        self,
        *,
        limit: int = 50,
        after: str | None = None,
        order: str = "-created_at",
        **filters: Unpack[Narrowing],
    ) -> Page[Execution]:
        """Give a page of the executions that match every filter.

        Args:
            limit: Rows of the page, 1 to 1,000.
            after: ``next`` of the page before, with the same order and filters.
            order: ``created_at``, ``finished_at`` or ``duration``; ``-`` for descending.
            **filters: ``module``, ``task_name``, ``status``, ``created_by``, ``since``, ``until``,
                ``metadata``, ``worker``, ``error_class``, ``config_id``, ``schedule_id``,
                ``text``; `aiotrack.repository.filters.Narrowing` says what each takes.

        Raises:
            InvalidQuery: A filter, cursor, limit or order that cannot be served.
            QueryTimeout: No index serves it, and two seconds were over.
        """
        core = await self._flushed()
        return await core.reader.list(limit=limit, after=after, order=order, **filters)

    async def count(self, *, limit: int = 10_000, **filters: Unpack[Narrowing]) -> Count:
        """Count what the filters of `list` match, as far as *limit* (1 to 10,000).

        Raises:
            InvalidQuery: A filter or limit that cannot be served.
            QueryTimeout: No index serves it, and two seconds were over.
        """
        return await (await self._flushed()).reader.count(limit=limit, **filters)

    async def stats(self, **filters: Unpack[Narrowing]) -> Stats:
        """Count what the filters of `list` match; ``module="aiotrack"`` only when asked for.

        By that module, or by a ``task_name`` or ``text`` that begins with ``aiotrack:``.

        Without a filter, or by ``module``, ``task_name``, ``since`` and ``until``, it takes
        milliseconds on any number of rows, as long as `roll_up` runs now and then; any other
        filter is counted row by row.

        Raises:
            InvalidQuery: A filter that cannot be served.
            QueryTimeout: Two seconds were over.
        """
        return await (await self._flushed()).reader.stats(**filters)

    async def roll_up(self) -> int:
        """Add up what ended and is not added up yet, for `stats`; a schedule does it otherwise.

        In short steps; several processes may do it at once.

        Returns:
            How many hours and days were recomputed.

        Raises:
            StoreUnavailable: The database did not answer; what was done until then stays.
        """
        return await (await self._flushed()).repository.rollups.roll_up()

    async def workers(self) -> builtins.list[Worker]:
        """Give the worker processes: who lives, who was lost or stopped within a day.

        Those that live come first, each by its start. A worker is lost when its last three beats
        did not come and it said no farewell, by the database's clock.

        Raises:
            StoreUnavailable: The database did not answer.
        """
        from aiotrack.repository.control.workers import Registry

        return await Registry(self.core().repository).list()

    async def rescue_lost(self) -> int:
        """End what lost workers left: FAILURE, presumed, with the error class ``lost``.

        An execution whose task has the label ``on_lost="requeue"`` is sent again instead, where its
        broker does not redeliver by itself and its arguments are known exactly. Workers do all that
        themselves, by turns; their own late word comes before a presumed verdict.

        Returns:
            How many executions were changed.

        Raises:
            StoreUnavailable: The database did not answer; what was done until then stays.
        """
        return (await rescue.rescue(await self._flushed())).count
