"""Writes to Postgres: one statement for plain reports, a transaction for all others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import asyncpg

from aiotrack.culprits import Unanswered
from aiotrack.errors import StoreUnavailable
from aiotrack.report import History, Report
from aiotrack.repository import statements as sql
from aiotrack.repository.batch import Batch, PoisonError
from aiotrack.repository.faults import is_missing
from aiotrack.repository.fold import Row, fold, history_of, placeholder
from aiotrack.repository.rendering import render, render_rows, told
from aiotrack.repository.session import BROKEN, Session
from aiotrack.repository.statistics.marks import POSTGRES_MARK, Marks, Unmarked, uptime
from aiotrack.repository.statistics.periods import Period

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

COMMAND_TIMEOUT = 2.0
"""Seconds for one statement of a write; a server that accepts and never answers costs no more."""

MOMENT = 0.2
"""Seconds for a statement that only tries whether somebody's lock is still held."""

CONFLICT_TRIES = 20
"""Quick tries after a deadlock or serialization failure, about 10 ms apart."""

MARK_TRIES = 5
"""Tries of one fold that finds an execution in another hour each time: a guess, one is enough."""

_SERVER_CLASSES = {
    *("08", "0A", "25", "26", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "XX"),
}
"""SQLSTATE classes of what befalls any statement: connection, transaction, names, resources, the
operator, the system. All others may blame the data, also those that a trigger makes up."""

_OF_A_ROW = {"42501", "XX001", "XX002"}
"""SQLSTATE of a row that a policy forbids, of a page or an index that is damaged."""

_CONFLICTS = {"40P01", "40001"}

_NO_ANSWER = {"55P03", "57014", *_CONFLICTS}
"""SQLSTATE of a statement that waited too long: lock_timeout, statement_timeout, too many
conflicts."""

_READ_ONLY = "25006"
"""SQLSTATE of a server that was the writer before a fail-over, or is not yet."""


class PostgresWriter:
    """Writes groups of reports over one connection that it keeps.

    Args:
        engine: Gives the connection.
        on_left: Called when the server does not write any more, or says nothing.
        on_missing: Called when a part of the schema is not there.
        is_durable: Its sessions wait for the disk at each commit; else every write says so itself.
        marks: Says which hours must be marked before a write.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        on_left: Callable[[], Awaitable[None]],
        on_missing: Callable[[], None],
        is_durable: bool,
        marks: Marks,
    ) -> None:
        self._on_left = on_left
        self._on_missing = on_missing
        self._is_durable = is_durable
        self._marks = marks
        known = (sql.POSTGRES_SEND, sql.POSTGRES_SEND_ONE, sql.POSTGRES_RUN, sql.POSTGRES_RUN_ONE)
        hot = known if is_durable else tuple(map(sql.durably, known))
        self._sends, self._send, self._runs, self._run = hot
        self._session = Session(engine)
        self._lock = asyncio.Lock()
        self._patience = COMMAND_TIMEOUT

    def write(self, reports: Sequence[Report]) -> Awaitable[None]:
        """Commit all *reports*, each exactly as if it had come alone.

        Raises:
            PoisonError: The database blames the data; nothing of the failing statement is stored.
            StoreUnavailable: The database did not take them; they may be written again.
        """
        return self._connected(self._write, Batch.of(reports))

    async def write_either(self, report: Report, stub: Report) -> bool:
        """Commit *report*, or *stub* where the database blames its data.

        Both are tried in one transaction that nobody changes a trigger in: one that goes between
        the two tries would leave the stub of a report that is refused no more.

        Returns:
            Whether it took the report.

        Raises:
            PoisonError: It refuses the stub, too.
            StoreUnavailable: It took neither; they may be written again.
        """

        async def work(connection: Any) -> bool:
            async with self._transaction(connection):
                await connection.execute(sql.POSTGRES_STEADY, timeout=self._patience)
                try:
                    async with connection.transaction():
                        await self._write(connection, Batch.of([report]))
                        await connection.execute(sql.POSTGRES_CHECKED, timeout=self._patience)
                        return True
                except Exception as error:
                    if not _blames_data(error):
                        raise
                    self._marks.forget()  # those of the first try are undone
                await self._write(connection, Batch.of([stub]))
                return False

        try:
            return await self._connected(work)
        finally:
            self._marks.forget()  # as all of it may be

    async def revise(
        self, task_ids: Iterable[str], change: Callable[[History], Iterable[Report]]
    ) -> list[str]:
        """Lock rows and add the reports that *change* makes from each history.

        Returns:
            The task_ids of those there are.
        """
        ids = sorted(task_ids)
        known: list[str] = []

        async def work(connection: Any) -> None:
            rows, attempts = await _locked(connection, ids, self._patience)
            known[:] = [row["task_id"] for row in rows]
            await self._store(
                connection,
                rows,
                attempts,
                lambda row, items: fold(row, items, change(history_of(row, items))),
            )

        await self._connected(self._transact, work)
        return known

    async def execute(self, statement: str, values: Sequence[Any]) -> Sequence[Any]:
        """Run one statement in a transaction of its own, and give its rows."""

        async def work(connection: Any) -> Sequence[Any]:
            async with contextlib.AsyncExitStack() as stack:
                if not self._is_durable:
                    await stack.enter_async_context(self._transaction(connection))
                rows: Sequence[Any] = await connection.fetch(
                    statement, *values, timeout=self._patience
                )
                return rows

        return await self._connected(work)

    async def send_with(
        self, report: Report, statements: Sequence[tuple[str, Sequence[Any]]]
    ) -> None:
        """Commit a plain send, and statements with it."""

        async def work(connection: Any) -> None:
            await self._put(connection, self._sends, self._send, [report])
            for statement, values in statements:
                await connection.execute(statement, *values, timeout=self._patience)

        await self._connected(self._transact, work)

    async def claim(self, report: Report) -> bool:
        """Insert a plain report, unless there is a row of its task_id."""

        async def work(connection: Any) -> bool:
            return bool(
                await connection.fetch(sql.POSTGRES_CLAIM, *told(report), timeout=self._patience)
            )

        return await self._connected(work)

    def be_patient(self, is_patient: bool) -> None:  # noqa: FBT001 - nothing else it could mean
        """Let a statement of the writes to come take its time, or a moment only."""
        self._patience = COMMAND_TIMEOUT if is_patient else MOMENT

    async def release(self) -> None:
        """Close the connection until the next write."""
        async with self._lock:
            await self._session.close()

    async def _connected(
        self, work: Callable[Concatenate[Any, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do *work* with the connection, alone, again after a conflict; say whose fault a fault is.

        A function and no context manager: a task that runs alone waits for every step here.
        """
        tries = CONFLICT_TRIES
        session = self._session
        await self._lock.acquire()
        try:
            session.begin()
            while True:
                if session.driver is None or session.driver.is_closed():
                    await session.open()
                try:
                    done = await work(session.driver, *args, **kwargs)
                    if session.driver is None:  # a cancelled COMMIT says yes; no standby has it
                        raise TimeoutError
                    return done
                except BROKEN as error:
                    await self._after_cut(error, is_safe=work == self._write)
                except asyncpg.PostgresError as error:
                    if session.driver is None:  # its time was over, and the cancel was ours
                        await self._after_cut(error, is_safe=False)
                    tries -= 1
                    if error.sqlstate not in _CONFLICTS or not tries:
                        await self._after_error(error)
                except asyncio.CancelledError:
                    session.drop()
                    raise
                await asyncio.sleep(random.uniform(0.005, 0.015))
        finally:
            session.until = math.inf
            self._lock.release()

    @contextlib.asynccontextmanager
    async def _transaction(self, connection: Any) -> AsyncIterator[None]:
        async with connection.transaction():
            if not self._is_durable:
                await connection.execute(sql.POSTGRES_DURABLY, timeout=self._patience)
            yield

    async def _after_cut(self, error: Exception, *, is_safe: bool) -> None:
        may_repeat = self._session.may_repeat(error, is_safe=is_safe)
        self._session.drop()
        await self._on_left()  # others may wait for the same silence
        if not may_repeat:
            kind = Unanswered if isinstance(error, TimeoutError) else StoreUnavailable
            raise kind(f"the database did not take a write: {error!r}") from error

    async def _after_error(self, error: asyncpg.PostgresError) -> NoReturn:
        state = error.sqlstate or ""
        if _blames_data(error):
            raise PoisonError(str(error)) from error
        self._session.drop()
        if is_missing(error):
            self._on_missing()
        if state == _READ_ONLY:  # the other connections lead to the same server
            await self._on_left()
        kind = Unanswered if state in _NO_ANSWER else StoreUnavailable
        raise kind(f"the database refused a write: {error!r}") from error

    async def _transact(self, connection: Any, work: Callable[[Any], Awaitable[None]]) -> None:
        """Run *work* in a transaction, and again when it met an hour that must be marked first."""
        for attempt in range(MARK_TRIES):
            try:
                async with self._transaction(connection):
                    await work(connection)
                    return
            except Unmarked as found:
                if attempt == MARK_TRIES - 1:
                    raise StoreUnavailable("executions moved from hour to hour") from found
                await self._mark(connection, found.periods)

    async def _mark(self, connection: Any, periods: Sequence[Period]) -> None:
        begun = uptime()
        text = json.dumps([{"span": span, "start": start} for span, start in periods])
        await connection.execute(POSTGRES_MARK, text, timeout=self._patience)
        self._marks.made(periods, begun)

    async def _write(self, connection: Any, batch: Batch) -> None:
        periods = self._marks.missing(batch.ends())
        if periods:
            await self._mark(connection, periods)
        slow = dict(batch.slow)
        if batch.sends:
            rows = await self._put(connection, self._sends, self._send, batch.sends)
            batch.sort_sends({task_id for task_id, is_new in rows if not is_new}, slow)
        if batch.runs:
            rows = await self._put(connection, self._runs, self._run, batch.runs)
            if len(rows) != len(batch.runs):
                batch.sort_runs({row[0] for row in rows}, slow)
        if slow:
            await self._fold(connection, slow)

    def _put(
        self, connection: Any, many: str, one: str, reports: Sequence[Report]
    ) -> Awaitable[Sequence[Any]]:
        """Put plain reports into a statement of many or of one."""
        if len(reports) == 1:
            statement, values = one, told(reports[0])
        else:
            statement, values = many, ("[" + ",".join(map(render, reports)) + "]",)
        fetch = self._session.prepared.get(statement)
        if fetch is None:
            return self._fetch(connection, statement, values)
        return fetch(*values, timeout=self._patience)

    async def _fetch(
        self, connection: Any, statement: str, values: tuple[Any, ...]
    ) -> Sequence[Any]:
        """Run a hot statement for the first time on this connection; a pooler's is never ours."""
        fetch = functools.partial(connection.fetch, statement)
        if self._is_durable:
            prepared = await connection.prepare(statement, timeout=self._patience)
            fetch = self._session.prepared[statement] = prepared.fetch
        rows: Sequence[Any] = await fetch(*values, timeout=self._patience)
        return rows

    async def _fold(self, connection: Any, slow: Mapping[str, list[Report]]) -> None:
        ids = sorted(slow)
        holders = [placeholder(slow[task_id][0]) for task_id in ids]

        async def work(connection: Any) -> None:
            await connection.execute(
                sql.POSTGRES_ENSURE,
                render_rows(holders, sql.EXECUTION_COLUMNS),
                timeout=self._patience,
            )
            rows, attempts = await _locked(connection, ids, self._patience)
            await self._store(
                connection,
                rows,
                attempts,
                lambda row, items: fold(row, items, slow[row["task_id"]]),
            )

        await self._transact(connection, work)

    async def _store(
        self,
        connection: Any,
        rows: Sequence[Any],
        attempts: Mapping[str, list[Any]],
        folding: Callable[[Any, list[Any]], tuple[Row, list[Row]] | None],
    ) -> None:
        """Write what *folding* makes of each locked row and its attempts."""
        folded = [(row, it) for row in rows if (it := folding(row, attempts[row["task_id"]]))]
        if not folded:
            return
        self._marks.demand((before, after) for before, (after, _) in folded)
        text = render_rows([after for _, (after, _) in folded], sql.EXECUTION_COLUMNS)
        await connection.execute(sql.POSTGRES_UPDATE, text, timeout=self._patience)
        items = [item for _, (_, items) in folded for item in items]
        if items:
            text = render_rows(items, sql.ATTEMPT_COLUMNS)
            await connection.execute(sql.POSTGRES_ATTEMPT, text, timeout=self._patience)


def _blames_data(error: Exception) -> bool:
    """Whether a write failed for what it holds, by the server's word or by a fault of ours."""
    if isinstance(error, (StoreUnavailable, *BROKEN)):
        return False
    state = getattr(error, "sqlstate", None) or ""
    return state[:2] not in _SERVER_CLASSES or state in _OF_A_ROW


async def _locked(
    connection: Any, ids: Sequence[str], patience: float
) -> tuple[Sequence[Any], Mapping[str, list[Any]]]:
    """Lock the rows there are, in one order, and read them with the attempts of each."""
    rows = await connection.fetch(sql.POSTGRES_LOCK, ids, timeout=patience)
    attempts: dict[str, list[Any]] = {task_id: [] for task_id in ids}
    for item in await connection.fetch(sql.POSTGRES_ATTEMPTS, ids, timeout=patience):
        attempts[item["task_id"]].append(item)
    return rows, attempts
