"""Wishes to end executions: asked once, read again and again by every worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, and_, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.clock import to_datetime, to_micros
from aiotrack.repository.control.tables import CancelRow, WorkerRow
from aiotrack.repository.dialects import at_once
from aiotrack.repository.store import Repository

PAGE: Final = 1000
"""Rows of one read."""

_table = CancelRow.__table__
_id, _at = _table.c.task_id, _table.c.asked_at
_ROWS = select(_id, _at, _table.c.reason, _table.c.asked_by)

Row = Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What stands in the database; the time in microseconds."""

    task_id: str
    asked_at: int
    reason: str | None
    by: str | None


class Cancels:
    """The wishes of a repository. All verbs raise `StoreUnavailable`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def ask(
        self, task_ids: Iterable[str], *, now: int, reason: str | None, by: str | None
    ) -> dict[str, Wish]:
        """Commit a wish for each, by one statement; an earlier one stands.

        Args:
            task_ids: As they are stored; a few hundred at most.
            now: The database's time, in microseconds.
            reason: Why.
            by: Who.

        Returns:
            What stands, by task_id: it is ours if its time is *now*.
        """
        at = now if self._repository.dialect == "sqlite" else to_datetime(now)
        rows = [(task_id, at, reason, by) for task_id in sorted(set(task_ids))]
        if not rows:
            return {}
        marks = ", ".join(
            f"(${4 * number + 1}, ${4 * number + 2}, ${4 * number + 3}, ${4 * number + 4})"
            for number in range(len(rows))
        )
        found = await self._repository.execute(
            f"INSERT INTO aiotrack_cancels (task_id, asked_at, reason, asked_by) VALUES {marks} "
            "ON CONFLICT (task_id) DO UPDATE SET task_id = excluded.task_id "
            "RETURNING task_id, asked_at, reason, asked_by",
            [value for row in rows for value in row],
        )
        return {wish.task_id: wish for wish in map(_wish, found)}

    async def withdraw(self, wishes: Iterable[Wish]) -> None:
        """Take back wishes that came too late."""
        is_sqlite = self._repository.dialect == "sqlite"
        for wish in wishes:
            at = wish.asked_at if is_sqlite else to_datetime(wish.asked_at)
            await self._repository.execute(
                "DELETE FROM aiotrack_cancels WHERE task_id = $1 AND asked_at = $2",
                (wish.task_id, at),
            )

    async def since(self, moment: int) -> AsyncIterator[list[Wish]]:
        """Give the wishes asked at a moment or later, the earliest first, in pieces."""
        last: Wish | None = None
        query = _ROWS.where(_at >= to_datetime(moment)).order_by(_at, _id).limit(PAGE)
        while True:
            later = (
                true()
                if last is None
                else or_(
                    _at > to_datetime(last.asked_at),
                    and_(_at == to_datetime(last.asked_at), _id > last.task_id),
                )
            )
            found = await self._read(query.where(later))
            if found:
                last = found[-1]
                yield found
            if len(found) < PAGE:
                return

    async def newest(self, count: int) -> list[Wish]:
        """Give so many of the wishes, the earliest first; read in pieces, which block no loop."""
        wishes: list[Wish] = []
        query = _ROWS.order_by(_at.desc(), _id.desc()).limit(min(PAGE, count))
        while True:
            last = wishes[-1] if wishes else None
            earlier = (
                true()
                if last is None
                else or_(
                    _at < to_datetime(last.asked_at),
                    and_(_at == to_datetime(last.asked_at), _id < last.task_id),
                )
            )
            found = await self._read(query.where(earlier))
            wishes += found
            if len(found) < PAGE or len(wishes) >= count:
                return wishes[:count][::-1]

    async def tasks_of(self, workers: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Give what workers said of their tasks: whether each can be interrupted, by name."""
        ids = sorted(set(workers))
        query = select(WorkerRow.id, WorkerRow.tasks).where(WorkerRow.id.in_(ids))

        found = await self._rows(query) if ids else ()
        return {row[0]: row[1] for row in found if isinstance(row[1], dict)}

    async def _read(self, query: Select[Any]) -> list[Wish]:
        return [_wish(row) for row in await self._rows(query)]

    async def _rows(self, query: Select[Any]) -> list[Row]:
        async def work(connection: AsyncConnection) -> list[Row]:
            await at_once(connection)
            return list(await connection.execute(query))

        return await self._repository.ask(work)


def _wish(row: Row) -> Wish:
    at = row[1] if isinstance(row[1], int) else to_micros(row[1])
    return Wish(task_id=row[0], asked_at=at, reason=row[2], by=row[3])
