"""The table of log lines: written by group, read page by page.

Lines of a run are numbered. What is written twice is written once, so that a write may be repeated
when nobody knows how it ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quote
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg
from sqlalchemy import RowMapping, Select, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.clock import to_datetime, to_micros
from aiotrack.errors import InvalidQuery, StoreUnavailable
from aiotrack.model import MARKER, LogLine, Page
from aiotrack.repository.batch import PoisonError
from aiotrack.repository.containment import storable
from aiotrack.repository.cursor import decode, encode, is_int, moment_of, not_ours
from aiotrack.repository.dialects import at_once
from aiotrack.repository.tables import ExecutionRow, LogRow

if TYPE_CHECKING:
    from aiotrack.repository.store import Repository

MAX_LIMIT: Final = 10_000
"""Lines of one page: an attempt has about 4,000 at most, unless ``log_max_bytes`` is raised."""

COMMAND_TIMEOUT: Final = 2.0
"""Seconds for one statement of a write."""

LIMIT: Final = 5.0
"""Seconds for a whole write: an engine that was given to us may have no limits."""

_POISON: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
"""What blames the data."""

_table = LogRow.__table__
_place = (_table.c.began_at, _table.c.run_id, _table.c.seq)
_shown = [
    *(_table.c[name] for name in ("at", "level", "logger", "message", "attempt")),
    *_place,
]


NAMES: Final = (
    *("task_id", "began_at", "run_id", "seq", "attempt", "at"),
    *("level_number", "level", "logger", "message"),
)
"""Columns of a line in the order in which it is written; times in microseconds, ``attempt`` None
for the one that the execution is at."""

CUT_NAMES: Final = ("task_id", "began_at", "run_id", "first", "last")
"""What names lines that newer ones took the place of: from *first* to *last*, both included."""

Line = tuple[str, int, str, int, int | None, int, int, str, str, str]
Cut = tuple[str, int, str, int, int]


class RunKey(NamedTuple):
    """Names a run of an execution, in the order in which they began."""

    began_at: int
    run_id: str


def _moment(name: str) -> str:
    return f"'epoch'::timestamptz + r.{name} * interval '1 microsecond'"


_ATTEMPT = "COALESCE({0}, (SELECT e.attempt FROM aiotrack_executions e WHERE e.task_id = {1}), 1)"
_NAMES = ", ".join(NAMES)
_CONFLICT = (
    "ON CONFLICT (task_id, began_at, run_id, seq) DO UPDATE SET at = excluded.at, "
    "level_number = excluded.level_number, level = excluded.level, logger = excluded.logger, "
    "message = excluded.message"
)
_POSTGRES_INSERT = (
    f"INSERT INTO aiotrack_logs ({_NAMES}) SELECT r.task_id, {_moment('began_at')}, r.run_id, "
    f"r.seq, {_ATTEMPT.format('r.attempt', 'r.task_id')}, {_moment('at')}, r.level_number, "
    "r.level, r.logger, r.message FROM json_to_recordset($1::json) AS r(task_id text, "
    "began_at bigint, run_id text, seq integer, attempt integer, at bigint, level_number integer, "
    f"level text, logger text, message text) {_CONFLICT}"
)
_POSTGRES_CUT = (
    "WITH cut AS (DELETE FROM aiotrack_logs l USING json_to_recordset($2::json) AS "
    "r(task_id text, began_at bigint, run_id text, first integer, last integer) "
    f"WHERE l.task_id = r.task_id AND l.began_at = {_moment('began_at')} "
    "AND l.run_id = r.run_id AND l.seq BETWEEN r.first AND r.last) "
)
_SQLITE_INSERT = (
    f"INSERT INTO aiotrack_logs ({_NAMES}) VALUES (?1, ?2, ?3, ?4, "
    f"{_ATTEMPT.format('?5', '?1')}, ?6, ?7, ?8, ?9, ?10) {_CONFLICT}"
)
_SQLITE_CUT = (
    "DELETE FROM aiotrack_logs WHERE task_id = ? AND began_at = ? AND run_id = ? "
    "AND seq BETWEEN ? AND ?"
)


class LogStore:
    """Log lines in a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def write(self, lines: Sequence[Line], cuts: Sequence[Cut]) -> None:
        """Commit *lines* and delete what *cuts* name, together, by one statement.

        Raises:
            PoisonError: The database blames the data; nothing is stored.
            StoreUnavailable: Nobody knows how it ended; write it again.
        """
        repository = self._repository
        if not repository.is_ready:
            await repository.connect()
        if repository.dialect == "sqlite":
            await repository.in_sqlite(lambda connection: _write_sqlite(connection, lines, cuts))
        else:
            await repository.apart(self._write_postgres(lines, cuts))

    async def _write_postgres(self, lines: Sequence[Line], cuts: Sequence[Cut]) -> None:
        given = [f"[{','.join(map(_render, lines))}]"]
        statement = _POSTGRES_INSERT
        if cuts:
            given.append(json.dumps([dict(zip(CUT_NAMES, cut, strict=True)) for cut in cuts]))
            statement = _POSTGRES_CUT + statement
        try:
            async with asyncio.timeout(LIMIT):
                await self._execute(statement, given)
        except TimeoutError as error:
            raise StoreUnavailable(f"a write of logs took over {LIMIT:g} s") from error

    async def _execute(self, statement: str, given: Sequence[str]) -> None:
        # Not over the connection that writes reports: a long text must not delay an end.
        async with self._repository.connection() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                await driver.execute(statement, *given, timeout=COMMAND_TIMEOUT)
            except _POISON as error:
                raise PoisonError(str(error)) from error
            except BaseException:
                await connection.invalidate()  # what goes wrong in the driver, the pool cannot see
                raise

    async def page(
        self,
        task_id: str,
        *,
        attempt: int | None,
        level: int | None,
        limit: int,
        after: str | None,
    ) -> Page[LogLine] | None:
        """Give lines in the order in which runs began and logged; None: no execution, nor a line.

        Args:
            task_id: As it is stored.
            attempt: Only its lines.
            level: The lowest level; lines that stand for left out ones are always given.
            limit: Lines, 1 to 10,000.
            after: ``Page.next`` of the page before, with the same filters.

        Raises:
            InvalidQuery: A limit, attempt or cursor that cannot be served.
            StoreUnavailable: The database did not answer.
        """
        if not is_int(limit) or not 1 <= limit <= MAX_LIMIT:
            raise InvalidQuery(f"limit must be a whole number from 1 to {MAX_LIMIT}")
        if attempt is not None and not is_int(attempt):
            raise InvalidQuery("attempt must be a whole number")
        told = json.dumps([task_id, attempt, level])
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        query = select(*_shown).where(_table.c.task_id == task_id)
        if attempt is not None:
            query = query.where(_table.c.attempt == attempt)
        if level is not None:
            query = query.where(or_(_table.c.level_number >= level, _table.c.logger == MARKER))
        if after is not None:
            query = query.where(tuple_(*_place) > _read_cursor(after, digest))
        rows = await self._rows(query.order_by(*_place).limit(limit + 1))
        if not rows and not await self._is_known(task_id):
            return None
        last = None if len(rows) <= limit else _write_cursor(rows[limit - 1], digest)
        return Page([_shown_line(row) for row in rows[:limit]], last)

    async def _is_known(self, task_id: str) -> bool:
        """Tell whether an id has a record, or lines alone: what no worker runs has none."""
        for column in (ExecutionRow.task_id, _table.c.task_id):
            if await self._rows(select(column).where(column == task_id).limit(1)):
                return True
        return False

    async def ends(self, task_id: str) -> dict[RunKey, int]:
        """Give the number of the last line of every run, in the order in which they began."""
        last = func.max(_table.c.seq).label("last")
        query = (
            select(_table.c.began_at, _table.c.run_id, last)
            .where(_table.c.task_id == task_id)
            .group_by(_table.c.began_at, _table.c.run_id)
            .order_by(_table.c.began_at, _table.c.run_id)
        )
        rows = await self._rows(query)
        return {RunKey(to_micros(row["began_at"]), row["run_id"]): row["last"] for row in rows}

    async def since(
        self, task_id: str, run: RunKey, seq: int, limit: int
    ) -> list[tuple[int, LogLine]]:
        """Give numbered lines of one run that come after *seq*."""
        query = (
            select(*_shown)
            .where(
                _table.c.task_id == task_id,
                _table.c.began_at == to_datetime(run.began_at),
                _table.c.run_id == run.run_id,
                _table.c.seq > seq,
            )
            .order_by(_table.c.seq)
            .limit(limit)
        )
        return [(row["seq"], _shown_line(row)) for row in await self._rows(query)]

    async def marker(self, task_id: str, run: RunKey) -> int | None:
        """Give the number of the line that tells what of a run was left out; None: nothing was."""
        query = select(func.max(_table.c.seq).label("seq")).where(
            _table.c.task_id == task_id,
            _table.c.began_at == to_datetime(run.began_at),
            _table.c.run_id == run.run_id,
            _table.c.logger == MARKER,
        )
        found: int | None = (await self._rows(query))[0]["seq"]
        return found

    async def _rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            await at_once(connection)
            rows: Sequence[RowMapping] = (await connection.execute(query)).mappings().all()
            return rows

        return await self._repository.ask(work)


def _render(line: Line) -> str:
    """Give the JSON object of a line: a third of the time of `json.dumps`."""
    task_id, began_at, run_id, seq, attempt, at, number, level, logger, message = line
    return (
        f'{{"task_id":{quote(task_id)},"began_at":{began_at},"run_id":{quote(run_id)},"seq":{seq},'
        f'"attempt":{"null" if attempt is None else attempt},"at":{at},"level_number":{number},'
        f'"level":{quote(level)},"logger":{quote(logger)},"message":{quote(message)}}}'
    )


def _write_sqlite(
    connection: sqlite3.Connection, lines: Sequence[Line], cuts: Sequence[Cut]
) -> None:
    connection.executemany(_SQLITE_CUT, cuts)
    connection.executemany(_SQLITE_INSERT, lines)


def _shown_line(row: RowMapping) -> LogLine:
    return LogLine(
        at=row["at"],
        level=row["level"],
        logger=row["logger"],
        message=row["message"],
        attempt=row["attempt"],
    )


def _write_cursor(row: RowMapping, digest: str) -> str:
    return encode([digest, to_micros(row["began_at"]), row["run_id"], row["seq"]])


def _read_cursor(text: object, digest: str) -> tuple[Any, str, int]:
    told = decode(text)
    began_at, run_id, seq = told[1:]
    moment = moment_of(began_at)
    if moment is None or not isinstance(run_id, str) or not storable(run_id) or not is_int(seq):
        raise not_ours()
    if told[0] != digest:
        raise InvalidQuery(
            "this cursor continues the logs of another execution, attempt or level: "
            "keep them from page to page, or leave 'after' out to begin anew"
        )
    return (moment, run_id, seq)
