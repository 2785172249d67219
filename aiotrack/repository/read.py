"""Reads: one execution, its attempts, lists by keyset, counts. No ORM identity map in between."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from sqlalchemy import ColumnElement, RowMapping, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.clock import to_micros
from aiotrack.counts import Stats
from aiotrack.encode import encode_task_id
from aiotrack.errors import ExecutionNotFound, InvalidQuery
from aiotrack.hearsay import is_hearsay, is_outdone
from aiotrack.model import OWN_MODULE, Attempt, Cause, Count, Execution, Page, TaskStatus
from aiotrack.report import UNTIMED
from aiotrack.repository.cursor import Order, Position, is_int, read_cursor, write_cursor
from aiotrack.repository.dialects import at_once
from aiotrack.repository.filters import Filters, Narrowing
from aiotrack.repository.limited import limited
from aiotrack.repository.pages import PageQuery
from aiotrack.repository.statistics.live import prepare
from aiotrack.repository.statistics.stats import count
from aiotrack.repository.tables import AttemptRow, ExecutionRow

if TYPE_CHECKING:
    from aiotrack.repository.store import Repository

T = TypeVar("T")

Row = Mapping[Any, Any]

MAX_LIMIT: Final = 1000
"""Rows of one page: reading them holds the event loop for some 50 ms. The API gives half of it."""

SOME: Final = 500
"""Rows that are read at once where nobody says how many."""

COUNTED: Final = 10_000
"""Rows up to which a count is exact."""

_table = ExecutionRow.__table__
_attempts = AttemptRow.__table__

_RUN_FIELDS: Final = tuple(field.name for field in fields(Attempt) if field.name != "cause")
_NAMES: Final = tuple(field.name for field in fields(Execution))
_SHOWN: Final = select(*(_table.c[name] for name in _NAMES))
_OWN_RUN: Final = [
    *(_table.c[name] for name in _RUN_FIELDS),
    *(_table.c[name] for name in ("run_id", "plain", "rerun_of", "error_class")),
]
_RUNS: Final = [_attempts.c[name] for name in (*_RUN_FIELDS, "run_id", "requeues", "error_class")]

_ESCAPE: Final = re.compile("%(?:u([0-9A-F]{4})|([0-9A-F]{2}))")


class Reader:
    """Answers questions about the executions of a repository.

    Every read runs in a task of its own, so that a caller who gives up never breaks a connection.
    All of them raise `StoreUnavailable` when the database does not answer.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def get(self, task_id: str | int) -> Execution:
        """Give the execution with this task_id, by one SELECT.

        Raises:
            ExecutionNotFound: There is none.
        """
        return await self._one(_table.c.task_id == encode_task_id(task_id), _key(task_id))

    async def get_by_id(self, id: int) -> Execution:  # noqa: A002 - so it is called in the contract
        """Give the execution with this id, by one SELECT.

        Raises:
            ExecutionNotFound: There is none.
            InvalidQuery: It is no whole number.
        """
        if isinstance(id, bool) or not issubclass(type(id), int):
            raise InvalidQuery(f"id must be a whole number, not {type(id).__name__}")
        if not is_int(id):
            raise ExecutionNotFound(id)
        return await self._one(_table.c.id == id, id)

    async def attempts(self, task_id: str | int) -> builtins.list[Attempt]:
        """Give the runs of an execution in the order in which they began, by at most two SELECTs.

        Raises:
            ExecutionNotFound: There is no such execution.
        """
        key = encode_task_id(task_id)

        async def work(
            connection: AsyncConnection,
        ) -> tuple[RowMapping | None, Sequence[RowMapping]]:
            row = await _first(connection, select(*_OWN_RUN).where(_table.c.task_id == key))
            if row is None or row["plain"]:
                return row, []
            found = await connection.execute(select(*_RUNS).where(_attempts.c.task_id == key))
            return row, found.mappings().all()

        row, runs = await self._repository.ask(work, only_reads=True)
        if row is None:
            raise ExecutionNotFound(_key(task_id))
        items: Sequence[Row] = [{**row, "requeues": 0}] if row["plain"] else runs
        return to_attempts(items, is_rerun=row["rerun_of"] is not None)

    async def list(
        self,
        *,
        limit: int = 50,
        after: str | None = None,
        order: str = "-created_at",
        **filters: Unpack[Narrowing],
    ) -> Page[Execution]:
        """Give a page of the executions that match all *filters*; see `Narrowing`.

        Rows with equal values go by id, in the same direction; those that have no ``finished_at``
        or ``duration`` yet come last in both directions. No row is lost or repeated from page to
        page as long as it keeps its place.

        Args:
            limit: Rows of the page, 1 to 1,000.
            after: ``Page.next`` of the page before, with the same order and filters.
            order: ``created_at``, ``finished_at`` or ``duration``, with ``-`` for descending.
            **filters: What to match.

        Raises:
            InvalidQuery: A filter, cursor, limit or order that cannot be served.
            InvalidStatus: A status that nobody knows.
            InvalidValue: A time without an offset.
            QueryTimeout: No index serves it, and two seconds were over.
        """
        if not is_int(limit) or not 1 <= limit <= MAX_LIMIT:
            raise InvalidQuery(f"limit must be a whole number from 1 to {MAX_LIMIT}")
        sort = Order.parse(order)
        narrowed = Filters.of(**filters)
        digest = narrowed.digest()
        start = None if after is None else read_cursor(after, sort, digest)
        repository = self._repository
        query = PageQuery(_SHOWN, narrowed, sort, repository.dialect, repository.keys)

        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            async with limited(connection) as fetch:
                return await query.rows(fetch, start, limit + 1)

        items = [to_execution(row) for row in await self._repository.ask(work, only_reads=True)]
        if len(items) <= limit:
            return Page(items)
        return Page(items[:limit], write_cursor(_position(items[limit - 1], sort), sort, digest))

    async def skip(
        self, rows: int, *, order: str = "-created_at", **filters: Unpack[Narrowing]
    ) -> str | None:
        """Give the cursor of what follows the first *rows* of a list; None: nothing does.

        Args:
            rows: 1 to 10,000: all of them are walked through.
            order: As in `list`.
            **filters: As in `list`.

        Raises:
            InvalidQuery: As `list`, or *rows* is out of bounds.
            QueryTimeout: No index serves it, and two seconds were over.
        """
        if not is_int(rows) or not 1 <= rows <= COUNTED:
            raise InvalidQuery(f"rows must be a whole number from 1 to {COUNTED}")
        sort = Order.parse(order)
        narrowed = Filters.of(**filters)
        repository = self._repository
        shown = select(_table.c.id, _table.c[sort.column])
        query = PageQuery(shown, narrowed, sort, repository.dialect, repository.keys)

        async def work(connection: AsyncConnection) -> RowMapping | None:
            async with limited(connection) as fetch:
                return await query.last(fetch, rows)

        last = await repository.ask(work, only_reads=True)
        if last is None:
            return None
        position = Position(_as_number(last[sort.column]), last["id"])
        return write_cursor(position, sort, narrowed.digest())

    async def ended(
        self, moment: datetime, *, limit: int = SOME, **filters: Unpack[Narrowing]
    ) -> builtins.list[Execution]:
        """Give the last *limit* of those that match all *filters* and ended since a moment.

        Args:
            moment: Aware; the database looks at all that ended since then.
            limit: Rows at most.
            **filters: As in `list`.

        Raises:
            QueryTimeout: Two seconds were over.
        """
        finished = _table.c.finished_at
        query = _SHOWN.where(finished >= moment, *self._conditions(filters))
        query = query.order_by(finished.desc(), _table.c.id.desc()).limit(limit)
        return [to_execution(row) for row in await self._fetch(query)]

    async def slowest(self, limit: int, **filters: Unpack[Narrowing]) -> builtins.list[Execution]:
        """Give the *limit* longest runs that match; whose those may be as in `stats`."""
        duration, conditions = _table.c.duration, self._conditions(filters)
        if not Filters.of(**filters).asks_for_own:
            conditions.append(_table.c.module != OWN_MODULE)
        query = _SHOWN.where(duration.is_not(None), *conditions)
        query = query.order_by(duration.desc(), _table.c.id.desc()).limit(limit)
        return [to_execution(row) for row in await self._fetch(query)]

    async def among(
        self, task_ids: Iterable[str], **filters: Unpack[Narrowing]
    ) -> builtins.list[Execution]:
        """Give those of some executions that match all *filters*, the oldest first.

        Args:
            task_ids: As they are stored.
            **filters: As in `list`.
        """
        ids = sorted(task_ids)
        conditions = self._conditions(filters)

        async def work(connection: AsyncConnection) -> builtins.list[RowMapping]:
            rows: builtins.list[RowMapping] = []
            await at_once(connection)
            for start in range(0, len(ids), SOME):
                some = _table.c.task_id.in_(ids[start : start + SOME])
                found = await connection.execute(_SHOWN.where(some, *conditions))
                rows += found.mappings().all()
            return rows

        found = [to_execution(row) for row in await self._repository.ask(work, only_reads=True)]
        return sorted(found, key=lambda execution: (execution.created_at, execution.id))

    async def count(self, *, limit: int = COUNTED, **filters: Unpack[Narrowing]) -> Count:
        """Count the executions that match all *filters*, as far as *limit*; see `Narrowing`.

        Args:
            limit: Where to stop, 1 to 10,000.
            **filters: What to match.

        Raises:
            InvalidQuery: A filter or limit that cannot be served.
            InvalidStatus: A status that nobody knows.
            InvalidValue: A time without an offset.
            QueryTimeout: No index serves it, and two seconds were over.
        """
        if not is_int(limit) or not 1 <= limit <= COUNTED:
            raise InvalidQuery(f"limit must be a whole number from 1 to {COUNTED}")
        found = select(_table.c.id).where(*self._conditions(filters)).limit(limit + 1).subquery()
        query = select(func.count().label("rows")).select_from(found)
        counted: int = (await self._fetch(query))[0]["rows"]
        return Count(min(counted, limit), is_exact=counted <= limit)

    async def stats(self, **filters: Unpack[Narrowing]) -> Stats:
        """Count the executions that match all *filters*; see `Narrowing` and ``stats``.

        Those of aiotrack's own module are left out unless ``module`` is given.

        Raises:
            InvalidQuery: A filter that cannot be served.
            InvalidStatus: A status that nobody knows.
            InvalidValue: A time without an offset.
            QueryTimeout: No index serves it, and two seconds were over.
        """
        return await self._counted(Filters.of(**filters), is_history=False)

    async def history(self, **filters: Unpack[Narrowing]) -> Stats:
        """Count as `stats`, and what was deleted, too, where rollups serve the filters.

        Raises:
            InvalidQuery: A filter that cannot be served.
            QueryTimeout: No index serves it, and two seconds were over.
        """
        return await self._counted(Filters.of(**filters), is_history=True)

    async def _counted(self, filters: Filters, *, is_history: bool) -> Stats:
        keys = self._repository.keys

        async def work(connection: AsyncConnection) -> Stats:
            await prepare(connection)
            async with limited(connection, is_snapshot=True) as fetch:
                return await count(connection, fetch, filters, keys, is_history=is_history)

        return await self._repository.ask(work, only_reads=True)

    async def _fetch(self, query: Select[Any]) -> Sequence[RowMapping]:
        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            async with limited(connection) as fetch:
                return await fetch(query)

        return await self._repository.ask(work, only_reads=True)

    def _conditions(self, filters: Narrowing) -> builtins.list[ColumnElement[bool]]:
        repository = self._repository
        return Filters.of(**filters).conditions(repository.dialect, repository.keys)

    async def _one(self, condition: ColumnElement[bool], key: str | int) -> Execution:
        query = _SHOWN.where(condition)
        row = await self._repository.ask(
            lambda connection: _first(connection, query), only_reads=True
        )
        if row is None:
            raise ExecutionNotFound(key)
        return to_execution(row)


def _key(task_id: str | int) -> str:
    """Name a task_id as it was given; one that is no text as it would be stored."""
    return task_id if isinstance(task_id, str) else encode_task_id(task_id)


async def _first(connection: AsyncConnection, query: Select[Any]) -> RowMapping | None:
    await at_once(connection)
    row: RowMapping | None = (await connection.execute(query)).mappings().first()
    return row


def _position(last: Execution, order: Order) -> Position:
    return Position(_as_number(getattr(last, order.column)), last.id)


def _as_number(value: Any) -> Any:
    return to_micros(value) if isinstance(value, datetime) else value


def to_execution(row: Row) -> Execution:
    """Turn a row of what is shown into what people read."""
    values: dict[str, Any] = dict(zip(_NAMES, row.values(), strict=True))  # dict(row) is slower
    args, kwargs, metadata = values["args"], values["kwargs"], values["metadata"]
    values.update(
        task_id=decode_task_id(values["task_id"]),
        parent_task_id=_decoded(values["parent_task_id"]),
        rerun_of=_decoded(values["rerun_of"]),
        status=TaskStatus(values["status"]),
        worker=values["worker"] or None,
        args=args if isinstance(args, list) else [] if args is None else [args],
        kwargs=_as_dict(kwargs),
        metadata=_as_dict(metadata),
    )
    return Execution(**values)


def _decoded(stored: str | None) -> str | None:
    return None if stored is None else decode_task_id(stored)


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {} if value is None else {"$value": value}


def decode_task_id(stored: str) -> str:
    """Undo `encode_task_id`; what it shortened stays short."""
    if "%" not in stored:
        return stored
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), stored)


def _began(run: Row) -> tuple[int, int, str]:
    started = run["started_at"] or run["finished_at"]  # a start that nobody told was before its end
    return (UNTIMED if started is None else to_micros(started), run["attempt"], run["run_id"])


def to_attempts(items: Sequence[Row], *, is_rerun: bool = False) -> builtins.list[Attempt]:
    """Turn the items of an execution into its runs, in the order in which they began."""
    runs = [item for item in items if item["run_id"] and not item["run_id"].startswith("!")]
    if is_outdone([run["run_id"] for run in runs]):
        runs = [run for run in runs if not is_hearsay(run["run_id"])]
    runs.sort(key=_began)
    found: builtins.list[Attempt] = []
    attempt, requeues = 1, 0
    for run in runs:
        if run["attempt"] > attempt:
            cause = Cause.RETRY
        elif run["requeues"] > requeues:
            cause = Cause.REQUEUE
        elif found:
            cause = Cause.REDELIVERY
        else:
            cause = Cause.RERUN if is_rerun else Cause.FIRST
        attempt, requeues = max(attempt, run["attempt"]), max(requeues, run["requeues"])
        values = {name: run[name] for name in _RUN_FIELDS}
        status = TaskStatus(run["status"])
        if status is TaskStatus.PENDING and run["error_class"] == "lost":
            status = TaskStatus.FAILURE  # the execution waits again: this run of it is over
        values.update(status=status, worker=run["worker"] or None)
        found.append(Attempt(cause=cause, **values))
    return found
