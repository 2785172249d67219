"""The rows of one page, by statements that an index serves, however rare or old the matches are.

A filter with one value has an index in the order of creation. Where several values are allowed, or
a prefix that several names share, no index gives all of them in order: the newest rows of each are
found by themselves, and the newest of those are the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, Select, select, text, tuple_, union

from aiotrack.clock import to_datetime
from aiotrack.repository.containment import storable
from aiotrack.repository.cursor import Order, Position
from aiotrack.repository.filters import Filters, begins, next_text
from aiotrack.repository.limited import Fetch
from aiotrack.repository.tables import ExecutionRow

MAX_BRANCHES: Final = 30
"""Values that are looked up one by one: the newest 51 of each of 30 take about two milliseconds."""

_table = ExecutionRow.__table__

_NAMES: Final = """
WITH RECURSIVE found(name) AS (
    {first}
    UNION ALL
    SELECT ({next}) FROM found WHERE found.name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL LIMIT :most
"""
_POSTGRES_NEXT: Final = (
    "SELECT task_name FROM aiotrack_executions "
    "WHERE task_name {0} AND task_name ~<~ :last ORDER BY task_name USING ~<~ LIMIT 1"
)
_SQLITE_NEXT: Final = (
    "SELECT min(task_name) FROM aiotrack_executions WHERE task_name {0} AND task_name < :last"
)
NAMES: Final = {
    "postgresql": text(
        _NAMES.format(
            first=f"({_POSTGRES_NEXT.format('~>=~ :first')})",
            next=_POSTGRES_NEXT.format("~>~ found.name"),
        )
    ),
    "sqlite": text(
        _NAMES.format(
            first=_SQLITE_NEXT.format(">= :first"), next=_SQLITE_NEXT.format("> found.name")
        )
    ),
}
"""The task names in a range, each by one look into the index, not one for each row."""


class PageQuery:
    """What is asked for: the rows after a position, in an order, that filters match.

    Args:
        columns: What is read of each row.
        filters: What the rows match.
        order: How they are sorted.
        dialect: ``postgresql`` or ``sqlite``.
        keys: Metadata keys that have an index.
    """

    def __init__(
        self,
        columns: Sequence[ColumnElement[Any]],
        filters: Filters,
        order: Order,
        dialect: str,
        keys: frozenset[str] = frozenset(),
    ) -> None:
        self._columns = columns
        self._filters = filters
        self._order = order
        self._dialect = dialect
        self._keys = keys
        self._sorted_by = (_table.c[order.column], _table.c.id)

    async def rows(self, fetch: Fetch, start: Position | None, wanted: int) -> list[RowMapping]:
        """Give the rows with a value, then those without, each by a statement of its own."""
        order, (column, row_id) = self._order, self._sorted_by
        branches = await self._branches(fetch)
        rows: list[RowMapping] = []
        if start is None or start.value is not None:
            place: list[ColumnElement[bool]] = [column.is_not(None)] if order.is_nullable else []
            if start is not None:
                here, there = tuple_(column, row_id), (_value(start, order), start.id)
                place.append(here < there if order.descending else here > there)
            rows += await fetch(self._select(branches, place, wanted))
            start = None
        if order.is_nullable and len(rows) < wanted:
            place = [column.is_(None)]
            if start is not None:
                place.append(row_id < start.id if order.descending else row_id > start.id)
            rows += await fetch(self._select(branches, place, wanted - len(rows)))
        return rows

    async def _branches(self, fetch: Fetch) -> list[list[ColumnElement[bool]]]:
        """Give lists of conditions, each served by an index: a row matches when one list does."""
        filters, dialect = self._filters, self._dialect
        if self._order.column == "created_at" and not filters.is_empty:
            several = [
                (name, values)
                for name, values in filters.exact.items()
                if 1 < len(values) <= MAX_BRANCHES
            ]
            if filters.text:
                rest = filters.conditions(dialect, self._keys, without="text")
                names = await self._names(fetch, filters.text)
                if names is not None:
                    by_id = begins("task_id", filters.text, dialect)
                    return [[by_id, *rest], *([_table.c.task_name == n, *rest] for n in names)]
            elif several:
                name, values = min(several, key=lambda one: len(one[1]))
                rest = filters.conditions(dialect, self._keys, without=name)
                return [[_table.c[name] == value, *rest] for value in values]
        return [filters.conditions(dialect, self._keys)]

    async def _names(self, fetch: Fetch, prefix: str) -> list[str] | None:
        """Give the task names that begin with *prefix*; None when there are too many."""
        last = next_text(prefix)
        if last is None or not storable(prefix):
            return None
        values = {"first": prefix, "last": last, "most": MAX_BRANCHES + 1}
        found = await fetch(NAMES[self._dialect].bindparams(**values))
        return None if len(found) > MAX_BRANCHES else [row["name"] for row in found]

    def _select(
        self,
        branches: list[list[ColumnElement[bool]]],
        place: list[ColumnElement[bool]],
        wanted: int,
    ) -> Select[Any]:
        query = select(*self._columns)
        if len(branches) == 1:
            query = query.where(*branches[0], *place)
        else:
            parts = [
                self._sorted(select(*self._sorted_by).where(*conditions, *place)).limit(wanted)
                for conditions in branches
            ]
            every = union(*(select(part.subquery()) for part in parts)).subquery()
            query = query.join(every, every.c.id == _table.c.id)
        return self._sorted(query).limit(wanted)

    def _sorted(self, query: Select[Any]) -> Select[Any]:
        """Sort by the value where there is none, too: so the index is told that serves it."""
        down = self._order.descending
        return query.order_by(*(c.desc() if down else c.asc() for c in self._sorted_by))


def _value(position: Position, order: Order) -> Any:
    return position.value if order.column == "duration" else to_datetime(int(position.value or 0))
