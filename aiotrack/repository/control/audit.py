"""The audit: who did what to what. Only ever appended to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, func, select, tuple_

from aiotrack.clock import to_datetime, to_micros
from aiotrack.errors import InvalidQuery
from aiotrack.model import LASTING, AuditEntry, Page
from aiotrack.repository.control.tables import AuditRow
from aiotrack.repository.cursor import decode, encode, is_int, moment_of, not_ours
from aiotrack.repository.filters import moment, time_of, told
from aiotrack.repository.limited import limited

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from aiotrack.repository.store import Repository

_table = AuditRow.__table__
_COLUMNS = tuple(_table.c)
_place = (_table.c.at, _table.c.id)
_SAID: Final = ("at", "actor", "action", "target", "reason")
_TOLD: Final = ("before", "after")

EACH: Final = 500
"""Targets of one statement; each is some rows of an index."""

_APPEND: Final = """
INSERT INTO aiotrack_audit (at, actor, action, target, reason, before, after)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id
"""

MOST: Final = 1000
"""Rows of one page."""

_FORGET: Final = """
DELETE FROM aiotrack_audit WHERE id IN (
    SELECT a.id FROM aiotrack_audit a
    WHERE a.at < $1 AND (a.action NOT IN ({lasting}) OR EXISTS (
        SELECT 1 FROM aiotrack_audit b
        WHERE b.target = a.target AND b.id > a.id AND b.action IN ({lasting})))
    ORDER BY a.at, a.id LIMIT {size}
) RETURNING id
""".replace("{lasting}", ", ".join(f"'{action}'" for action in sorted(LASTING)))
"""The last lasting deed on each target stays, however old: schedules are made anew from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One row; ``at`` is in microseconds, ``before`` and ``after`` are what JSON has a word for."""

    at: int
    actor: str | None = None
    action: str
    target: str
    reason: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


class Audit:
    """The audit of a repository. All verbs raise `StoreUnavailable`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def append(self, deed: Deed) -> None:
        """Add a row, by one statement."""
        is_sqlite = self._repository.dialect == "sqlite"
        values = (
            deed.at if is_sqlite else to_datetime(deed.at),
            *(deed.actor, deed.action, deed.target, deed.reason),
            *(None if one is None else json.dumps(one) for one in (deed.before, deed.after)),
        )
        await self._repository.execute(_APPEND, values)

    async def forget(self, before: int, size: int) -> int:
        """Delete at most *size* rows from before a moment, the oldest first, by one statement.

        What schedules are made anew from stays: the last deed of `LASTING` on each target.

        Returns:
            How many went; fewer than *size*: there are no more.
        """
        is_sqlite = self._repository.dialect == "sqlite"
        until = before if is_sqlite else to_datetime(before)
        return len(await self._repository.execute(_FORGET.format(size=size), (until,)))

    async def page(
        self,
        *,
        limit: int,
        after: str | None,
        since: object = None,
        until: object = None,
        **exact: str | None,
    ) -> Page[AuditEntry]:
        """Give rows that match every filter, the newest first.

        Args:
            limit: Rows, 1 to 1000.
            after: ``Page.next`` of the page before, with the same filters.
            since: Not before this aware time, or so long ago.
            until: Not after it.
            **exact: ``actor``, ``action`` and ``target``, as they are stored.

        Raises:
            InvalidQuery: A filter, limit or cursor that cannot be served.
            InvalidValue: A time without an offset.
            QueryTimeout: No index serves it, and two seconds were over.
            StoreUnavailable: The database did not answer.
        """
        if not is_int(limit) or not 1 <= limit <= MOST:
            raise InvalidQuery(f"limit must be a whole number from 1 to {MOST}")
        first, last = moment("since", since), moment("until", until)
        said = json.dumps([sorted(exact.items()), told(first), told(last)])
        digest = hashlib.sha256(said.encode()).hexdigest()[:16]
        query = select(*_COLUMNS).order_by(*(one.desc() for one in _place)).limit(limit + 1)
        for column, value in exact.items():
            if value is not None:
                query = query.where(_table.c[column] == value)
        if first is not None:
            query = query.where(_table.c.at >= time_of(first, self._repository.dialect))
        if last is not None:
            query = query.where(_table.c.at <= time_of(last, self._repository.dialect))
        if after is not None:
            query = query.where(tuple_(*_place) < _read_cursor(after, digest))

        async def work(connection: AsyncConnection) -> Sequence[Any]:
            async with limited(connection) as fetch:
                return await fetch(query)

        rows = await self._repository.ask(work, only_reads=True)
        items = [_entry(row) for row in rows[:limit]]
        if len(rows) <= limit:
            return Page(items)
        end = rows[limit - 1]
        return Page(items, encode(["audit", digest, to_micros(end["at"]), end["id"]]))

    async def last_of(self, actions: Iterable[str], targets: Sequence[str]) -> dict[str, Deed]:
        """Give the last deed of these kinds on each target; a statement for every 500."""
        kinds = sorted(actions)
        found: dict[str, Deed] = {}
        for start in range(0, len(targets), EACH):
            part = targets[start : start + EACH]
            wanted = (
                select(func.max(_table.c.id))
                .where(_table.c.target.in_(part), _table.c.action.in_(kinds))
                .group_by(_table.c.target)
            )
            rows = await self._rows(select(*_COLUMNS).where(_table.c.id.in_(wanted)))
            found |= {row["target"]: _deed(row) for row in rows}
        return found

    async def last_since(self, actions: Iterable[str], since: timedelta) -> dict[str, Deed]:
        """Give the last deed of these kinds on each target, if it is not longer ago than *since*.

        One statement, however often one target had its turn.
        """
        wanted = (
            select(func.max(_table.c.id))
            .where(
                _table.c.action.in_(sorted(actions)),
                _table.c.at >= time_of(since, self._repository.dialect),
            )
            .group_by(_table.c.target)
        )
        rows = await self._rows(select(*_COLUMNS).where(_table.c.id.in_(wanted)))
        return {row["target"]: _deed(row) for row in rows}

    async def _rows(self, query: Select[Any]) -> Sequence[Any]:
        async def work(connection: AsyncConnection) -> Sequence[Any]:
            found: Sequence[Any] = (await connection.execute(query)).mappings().all()
            return found

        return await self._repository.ask(work)


def _deed(row: Mapping[str, Any]) -> Deed:
    before, after = (None if row[name] is None else json.loads(row[name]) for name in _TOLD)
    return Deed(
        at=to_micros(row["at"]),
        actor=row["actor"],
        action=row["action"],
        target=row["target"],
        reason=row["reason"],
        before=before,
        after=after,
    )


def _entry(row: Mapping[str, Any]) -> AuditEntry:
    known = {name: None if row[name] is None else json.loads(row[name]) for name in _TOLD}
    values: dict[str, Any] = {name: row[name] for name in _SAID} | known
    return AuditEntry(**values)


def _read_cursor(after: str, digest: str) -> tuple[Any, int]:
    kind, said, at, row_id = decode(after)
    when = moment_of(at)
    if kind != "audit" or when is None or not is_int(row_id):
        raise not_ours()
    if said != digest:
        raise InvalidQuery(
            "this cursor continues an audit with other filters: "
            "keep them from page to page, or leave 'after' out to begin anew"
        )
    return when, row_id
