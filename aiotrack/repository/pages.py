"""The rows of one page, by statements that an index serves, however rare or old the matches are.

A filter with one value has an index in the order of creation. Where several values are allowed, or
a prefix that several names share, no index gives all of them in order: the newest rows of each are
found by themselves, and the newest of those are the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    RowMapping,
    Select,
    bindparam,
    func,
    select,
    text,
    true,
    tuple_,
    union,
)
from sqlalchemy import column as named

from aiotrack.clock import to_datetime
from aiotrack.model import TaskStatus
from aiotrack.repository.containment import storable
from aiotrack.repository.cursor import Order, Position
from aiotrack.repository.filters import Filters, begins, next_text
from aiotrack.repository.limited import Fetch
from aiotrack.repository.tables import ExecutionRow

MAX_EACH: Final = 50
"""Values that are looked up one by one: the newest 51 of each of 50 take some milliseconds."""

Each = tuple[str, Sequence[Any], str | None]
"""A column and its allowed values; and the prefix, where a task_id may have it as well."""

_SUCCESS: Final = {"status": (TaskStatus.SUCCESS.value,)}
"""So common that a plan would walk from the newest row, through whatever waits to be done: it is
looked up like one of several."""

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
        shown: Reads what is shown of each row.
        filters: What the rows match.
        order: How they are sorted.
        dialect: ``postgresql`` or ``sqlite``.
        keys: Metadata keys that have an index.
    """

    def __init__(
        self,
        shown: Select[Any],
        filters: Filters,
        order: Order,
        dialect: str,
        keys: frozenset[str] = frozenset(),
    ) -> None:
        self._shown = shown
        self._filters = filters
        self._order = order
        self._dialect = dialect
        self._keys = keys
        self._sorted_by = (_table.c[order.column], _table.c.id)

    async def rows(self, fetch: Fetch, start: Position | None, wanted: int) -> list[RowMapping]:
        """Give the rows with a value, then those without, each by a statement of its own."""
        order, (column, row_id) = self._order, self._sorted_by
        rows: list[RowMapping] = []
        if start is None or start.value is not None:
            place: list[ColumnElement[bool]] = [column.is_not(None)] if order.is_nullable else []
            if start is not None:
                here, there = tuple_(column, row_id), (_value(start, order), start.id)
                place.append(here < there if order.descending else here > there)
            rows += await fetch(self._select(await self._each(fetch), place, wanted))
            start = None
        if order.is_nullable and len(rows) < wanted:
            place = [column.is_(None)]
            if start is not None:
                place.append(row_id < start.id if order.descending else row_id > start.id)
            conditions = self._filters.conditions(self._dialect, self._keys)
            rest = self._shown.where(*conditions, *place)
            by_id = row_id.desc() if order.descending else row_id.asc()
            rows += await fetch(rest.order_by(by_id).limit(wanted - len(rows)))
        return rows

    async def last(self, fetch: Fetch, rows: int) -> RowMapping | None:
        """Give the last of the first *rows*; None when there are fewer.

        Where all rows have a value the database walks past the others: none of them is sent.
        """
        if self._order.is_nullable:
            found = await self.rows(fetch, None, rows)
            return found[-1] if len(found) == rows else None
        first = self._select(await self._each(fetch), [], rows).subquery()
        query = self._sorted(select(first), first.c).offset(rows - 1).limit(1)
        return next(iter(await fetch(query)), None)

    async def _each(self, fetch: Fetch) -> Each | None:
        """Give the filter whose values are looked up one by one; None when there is no need."""
        filters = self._filters
        if self._order.column != "created_at" or filters.is_empty:
            return None
        if filters.text:
            names = await self._names(fetch, filters.text)
            return None if names is None else ("task_name", names, filters.text)
        several = [
            (name, values, None)
            for name, values in filters.exact.items()
            if 1 < len(values) <= MAX_EACH
        ]
        if not several and filters.exact == _SUCCESS:
            return ("status", filters.exact["status"], None)
        return min(several, key=lambda one: len(one[1]), default=None)

    async def _names(self, fetch: Fetch, prefix: str) -> list[str] | None:
        """Give the task names that begin with *prefix*; None when there are too many."""
        last = next_text(prefix)
        if last is None or not storable(prefix):
            return None
        values = {"first": prefix, "last": last, "most": MAX_EACH + 1}
        found = await fetch(NAMES[self._dialect].bindparams(**values))
        return None if len(found) > MAX_EACH else [row["name"] for row in found]

    def _select(
        self, each: Each | None, place: list[ColumnElement[bool]], wanted: int
    ) -> Select[Any]:
        filters, dialect = self._filters, self._dialect
        query = self._sorted(self._shown)
        if each is None:
            conditions = filters.conditions(dialect, self._keys)
            return query.where(*conditions, *place).limit(wanted)
        name, values, prefix = each
        left_out = name if prefix is None else "text"
        rest = [*filters.conditions(dialect, self._keys, without=left_out), *place]
        if prefix is None:
            return query.where(_table.c.id.in_(self._first_of(name, values, rest, wanted)))
        by_id = [begins("task_id", prefix, dialect), *rest]
        if not values:  # most often: no name begins so
            return query.where(*by_id).limit(wanted)
        with_id = self._sorted(select(*self._sorted_by).where(*by_id)).limit(wanted)
        named_so = self._first_of(name, values, rest, wanted, self._sorted_by[0])
        every = union(select(with_id.subquery()), select(named_so.subquery())).subquery()
        first = self._sorted(select(every.c.id), every.c).limit(wanted)
        return query.where(_table.c.id.in_(first))

    def _first_of(
        self,
        name: str,
        values: Sequence[Any],
        rest: list[ColumnElement[bool]],
        wanted: int,
        *more: ColumnElement[Any],
    ) -> Select[Any]:
        """Find the ids (and *more*) of the first *wanted* rows that have one of *values*.

        Each value's own first rows, by a statement of the same size for any number of values.
        """
        column, row_id = _table.c[name], _table.c.id
        if len(values) == 1:
            query = select(*more, row_id).where(column == values[0], *rest)
            return self._sorted(query).limit(wanted)
        if self._dialect == "sqlite":
            one = func.json_each(json.dumps(values)).table_valued("value")
            rows: Any = _table.alias()
            first = self._sorted(select(row_id).where(column == one.c.value, *rest))
            has_it: Any = rows.c.id.in_(first.limit(wanted).correlate(one))
        else:
            listed = bindparam(None, list(values), ARRAY(column.type))
            one = func.unnest(listed).table_valued(named("value", column.type)).render_derived()
            first = self._sorted(select(*self._sorted_by).where(column == one.c.value, *rest))
            rows, has_it = first.limit(wanted).lateral(), true()
        found = select(*(rows.c[of.name] for of in (*more, row_id)))
        return self._sorted(found.select_from(one.join(rows, has_it)), rows.c).limit(wanted)

    def _sorted(self, query: Select[Any], columns: Any = _table.c) -> Select[Any]:
        down = self._order.descending
        by = [columns[one.name] for one in self._sorted_by]
        return query.order_by(*(one.desc() if down else one.asc() for one in by))


def _value(position: Position, order: Order) -> Any:
    return position.value if order.column == "duration" else to_datetime(int(position.value or 0))
