"""Writes to SQLite: one thread, one connection, one transaction for a group.

Several processes share the file. WAL and synchronous=FULL keep what is committed; BEGIN IMMEDIATE
avoids the lock upgrade that fails (37 % 'database is locked' when deferred); a file lock beside
the database, held only for a transaction, keeps a sender's p99 low beside busy workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from aiotrack.errors import StoreUnavailable
from aiotrack.report import History, Report
from aiotrack.repository import statements as sql
from aiotrack.repository.batch import Batch, PoisonError
from aiotrack.repository.fold import Row, fold, history_of, placeholder, plain_row
from aiotrack.repository.statistics.marks import SQLITE_MARK, Marks, Unmarked, uptime
from aiotrack.repository.statistics.periods import Period

log = logging.getLogger(__name__)

T = TypeVar("T")

BUSY_TIMEOUT = 5.0
"""Seconds that SQLite waits for another process' transaction."""

LONGEST = 20.0
"""Seconds for the work of a transaction; a process that was stopped meanwhile begins again, for
nobody believes its marks any more (``marks``)."""

LOCK_PAUSE = 0.0005
"""Seconds between two tries for the file lock; a transaction takes about a millisecond."""

PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    f"PRAGMA busy_timeout={int(BUSY_TIMEOUT * 1000)}",
    "PRAGMA foreign_keys=ON",
)

_POISON = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeEncodeError,
)
"""What SQLite and its driver raise for a value."""

_execution_values = itemgetter(*sql.EXECUTION_COLUMNS)
_attempt_values = itemgetter(*sql.ATTEMPT_COLUMNS)


class SqliteWriter:
    """Writes groups of reports in a thread of its own."""

    def __init__(self, path: Path, marks: Marks) -> None:
        self._path = path
        self._marks = marks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aiotrack-sqlite")
        self._connection: sqlite3.Connection | None = None

    async def write(self, reports: Sequence[Report]) -> None:
        """Commit all *reports*, each exactly as if it had come alone.

        Raises:
            PoisonError: SQLite blames the data; nothing of the group is stored.
            StoreUnavailable: The file did not take them; they may be written again.
        """
        batch = Batch.of(reports)
        marks = self._marks
        await self.run(lambda connection: _write(connection, batch, marks))

    async def write_either(self, report: Report, stub: Report) -> bool:
        """Commit *report*, or *stub* where SQLite blames its data, in one transaction.

        Returns:
            Whether it took the report.

        Raises:
            PoisonError: It refuses the stub, too.
            StoreUnavailable: The file did not take them; they may be written again.
        """
        whole, rest, marks = Batch.of([report]), Batch.of([stub]), self._marks

        def work(connection: sqlite3.Connection) -> bool:
            connection.execute("SAVEPOINT whole")
            try:
                _write(connection, whole, marks)
            except Exception as error:
                if not _blames_data(error):
                    raise
                is_open = connection.in_transaction  # a trigger may have ended it: RAISE(ROLLBACK)
                connection.execute("ROLLBACK TO whole" if is_open else "BEGIN IMMEDIATE")
                _write(connection, rest, marks)
                return False
            return True

        return await self.run(work)

    async def revise(
        self, task_ids: Iterable[str], change: Callable[[History], Iterable[Report]]
    ) -> list[str]:
        """Add the reports that *change* makes from each history, in one transaction.

        Returns:
            The task_ids of the rows there are.
        """
        marks = self._marks
        return await self.run(lambda connection: _revise(connection, task_ids, change, marks))

    async def execute(self, statement: str, values: Sequence[Any]) -> Sequence[Any]:
        """Run one statement in a transaction of its own, and give its rows."""
        words = _words(statement)
        return await self.run(lambda connection: connection.execute(words, values).fetchall())

    async def send_with(
        self, report: Report, statements: Sequence[tuple[str, Sequence[Any]]]
    ) -> None:
        """Commit a plain send, and statements with it."""
        row = _execution_values(plain_row(report))

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(sql.SQLITE_SEND, row)
            for statement, values in statements:
                connection.execute(_words(statement), values)

        await self.run(work)

    async def claim(self, report: Report) -> bool:
        """Insert a plain report, unless there is a row of its task_id."""
        values = _execution_values(plain_row(report))
        found = await self.run(
            lambda connection: connection.execute(sql.SQLITE_CLAIM, values).fetchone()
        )
        return found is not None

    def be_patient(self, is_patient: bool) -> None:  # noqa: FBT001 - nothing else it could mean
        """Nothing waits for a row here."""

    async def release(self) -> None:
        """Close the connection until the next write; the thread ends with this object."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._disconnect)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do *work* in a transaction of its own, in the thread that writes.

        Raises:
            PoisonError: SQLite blames the data.
            StoreUnavailable: The file did not take it.
        """
        try:
            done = asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)
        except RuntimeError as error:  # no threads any more: the interpreter ends
            raise StoreUnavailable(f"{self._path} cannot be written: {error}") from error
        return await done

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._connection or self._connect()
            while True:
                try:
                    with file_lock(self._path), _transaction(connection):
                        begun = uptime()
                        done = work(connection)
                        if uptime() - begun > LONGEST:
                            raise sqlite3.OperationalError("it took so long that its marks expire")
                        return done
                except Unmarked as found:
                    self._mark(connection, found.periods)
        except _POISON as error:
            raise PoisonError(str(error)) from error
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise StoreUnavailable(f"{self._path} did not take a write: {error}") from error

    def _mark(self, connection: sqlite3.Connection, periods: list[Period]) -> None:
        begun = uptime()
        now = time.time_ns() // 1000
        with file_lock(self._path), _transaction(connection):
            connection.executemany(SQLITE_MARK, [(*period, now) for period in periods])
        self._marks.made(periods, begun)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        for pragma in PRAGMAS:
            connection.execute(pragma)
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _blames_data(error: Exception) -> bool:
    """Whether a write failed for what it holds, by SQLite's word or by a fault of ours."""
    return isinstance(error, _POISON) or not isinstance(error, (sqlite3.Error, OSError, Unmarked))


def _words(statement: str) -> str:
    """Write the places of values as SQLite does."""
    return re.sub(r"\$\d+", "?", statement)


@contextlib.contextmanager
def file_lock(database: Path) -> Iterator[None]:
    """Hold ``<database>-lock`` against other processes, for at most `BUSY_TIMEOUT` of waiting.

    Where the system has no such locks, or the time is over, SQLite's own waiting has to do.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with Path(f"{database}-lock").open("ab") as side:
        end = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                fcntl.flock(side, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    log.warning("%s-lock is held for over %g s", database, BUSY_TIMEOUT)
                    break
                time.sleep(LOCK_PAUSE)
        try:
            yield
        finally:  # said aloud: a child that was forked meanwhile has the file, too
            fcntl.flock(side, fcntl.LOCK_UN)


def make_shared(database: Path) -> None:
    """Switch a file to WAL, one process at a time: two that do so at once are refused, unasked.

    Raises:
        sqlite3.Error: It is no database, or cannot be opened.
        OSError: The file beside it cannot be opened.
    """
    with (
        file_lock(database),
        contextlib.closing(sqlite3.connect(database, timeout=BUSY_TIMEOUT)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _write(connection: sqlite3.Connection, batch: Batch, marks: Marks) -> None:
    unmarked = marks.missing(batch.ends())
    if unmarked:
        raise Unmarked(unmarked)
    slow = dict(batch.slow)
    touched: set[str] = set()
    for report in batch.sends:
        values = _execution_values(plain_row(report))
        if connection.execute(sql.SQLITE_CLAIM, values).fetchone() is None:
            touched.update(row[0] for row in connection.execute(sql.SQLITE_SEND, values))
    batch.sort_sends(touched, slow)
    taken = set()
    for report in batch.runs:
        row = connection.execute(sql.SQLITE_RUN, _execution_values(plain_row(report))).fetchone()
        if row is not None:
            taken.add(row[0])
    batch.sort_runs(taken, slow)
    for task_id, reports in slow.items():
        holder = placeholder(reports[0])
        connection.execute(sql.SQLITE_ENSURE, _execution_values(holder))
        _fold(connection, task_id, lambda _: reports, marks)  # noqa: B023 - called at once


def _revise(
    connection: sqlite3.Connection,
    task_ids: Iterable[str],
    change: Callable[[History], Iterable[Report]],
    marks: Marks,
) -> list[str]:
    known = []
    for task_id in sorted(task_ids):
        if connection.execute(sql.SQLITE_ROW, (task_id,)).fetchone() is not None:
            known.append(task_id)
            _fold(connection, task_id, change, marks)
    return known


def _fold(
    connection: sqlite3.Connection,
    task_id: str,
    change: Callable[[History], Iterable[Report]],
    marks: Marks,
) -> None:
    row: Row = dict(connection.execute(sql.SQLITE_ROW, (task_id,)).fetchone())
    attempts = [dict(item) for item in connection.execute(sql.SQLITE_ATTEMPTS, (task_id,))]
    folded = fold(row, attempts, change(history_of(row, attempts)))
    if folded is None:
        return
    written: Row = folded[0]
    marks.demand([(row, written)])
    connection.execute(sql.SQLITE_UPDATE, (*_execution_values(written), task_id))
    for item in folded[1]:
        connection.execute(sql.SQLITE_ATTEMPT, _attempt_values(item))
