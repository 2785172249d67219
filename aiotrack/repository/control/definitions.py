"""Task definitions: rows that take what they are given; what may stand there, others check."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Select, func, or_, select

from aiotrack.clock import to_datetime, to_micros
from aiotrack.model import TaskDefinition
from aiotrack.repository.containment import storable
from aiotrack.repository.control.tables import DefinitionRow
from aiotrack.repository.cursor import is_int

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from aiotrack.repository.store import Repository

_table = DefinitionRow.__table__
_COLUMNS = tuple(_table.c)

FIELDS: Final = (
    "name",
    "description",
    "task_type",
    "schedule_kind",
    "schedule",
    "parameters",
    "max_retries",
    "timeout_seconds",
    "priority",
    "queue",
)
"""What users say of a definition."""

SCHEDULE: Final = "task_"
"""How the id of a definition's schedule begins; its own id follows."""

DIGITS: Final = 19
"""Of the largest id."""

_JSON: Final = frozenset({"schedule", "parameters"})
_PLACES: Final = ", ".join(f"${number + 1}" for number in range(len(FIELDS) + 2))

_CREATE: Final = (
    f"INSERT INTO aiotrack_task_definitions ({', '.join(FIELDS)}, created_at, updated_at) "
    f"VALUES ({_PLACES}) ON CONFLICT (name) DO NOTHING RETURNING id"
)

_UPDATE: Final = (
    "UPDATE aiotrack_task_definitions SET "
    + ", ".join(f"{name} = ${number + 1}" for number, name in enumerate(FIELDS))
    + f", updated_at = ${len(FIELDS) + 1} "
    f"WHERE id = ${len(FIELDS) + 2} AND updated_at = ${len(FIELDS) + 3} RETURNING id"
)

_DELETE: Final = "DELETE FROM aiotrack_task_definitions WHERE id = $1 RETURNING id"


class DefinitionRows:
    """The definitions of a repository. All verbs raise `StoreUnavailable`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def create(self, fields: Mapping[str, Any], *, now: int) -> int | None:
        """Store a new one, by one statement, and give its id; None when the name is taken.

        Args:
            fields: All of `FIELDS`.
            now: The database's time, in microseconds.
        """
        at = self._time(now)
        found = await self._repository.execute(_CREATE, (*_values(fields), at, at))
        return int(found[0][0]) if found else None

    async def replace(self, known: TaskDefinition, fields: Mapping[str, Any], *, now: int) -> bool:
        """Store other values, by one statement; False when it is not as *known* any more."""
        seen = to_micros(known.updated_at)
        at = max(now, seen + 1)  # else a second change within a microsecond would look like none
        values = (*_values(fields), self._time(at), known.id, self._time(seen))
        return bool(await self._repository.execute(_UPDATE, values))

    async def delete(self, definition_id: int) -> bool:
        """Delete one; False when there is none."""
        return bool(await self._repository.execute(_DELETE, (definition_id,)))

    async def find(self, key: int | str) -> TaskDefinition | None:
        """Give the one with an id (int) or a name (text)."""
        if isinstance(key, str) and not storable(key):
            return None
        column = _table.c.name if isinstance(key, str) else _table.c.id
        found = await self._read(select(*_COLUMNS).where(column == key))
        return found[0] if found else None

    async def meant(self, key: int | str) -> TaskDefinition | None:
        """Give the one that somebody names: by its id, its name, or its schedule's id."""
        if isinstance(key, str):
            found = await self.find(key)
            digits = key.removeprefix(SCHEDULE)
            if found is not None or not (digits.isascii() and digits.isdigit()):
                return found
            if len(digits) > DIGITS:
                return None
            key = int(digits)
        return await self.find(key) if is_int(key) else None

    async def select(
        self,
        *,
        task_type: str | None = None,
        name: str | None = None,
        schedule_kind: str | None = None,
        text: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[TaskDefinition]:
        """Give those that match, in the order of their ids.

        Args:
            task_type: Of this task.
            name: With this name.
            schedule_kind: Of this kind.
            text: With this in the name, the description or the task's name, in any case;
                SQLite, and PostgreSQL with the locale C, know the case of ASCII letters only.
            after: Only with a higher id.
            limit: So many at most.
        """
        exact = {"task_type": task_type, "name": name, "schedule_kind": schedule_kind}
        if not all(value is None or storable(value) for value in (*exact.values(), text)):
            return []
        query = select(*_COLUMNS).where(_table.c.id > after).order_by(_table.c.id).limit(limit)
        for column, value in exact.items():
            if value is not None:
                query = query.where(_table.c[column] == value)
        if text is not None:
            query = query.where(_contains(text))
        return await self._read(query)

    async def ids(self) -> list[int]:
        """Give all ids."""
        return [row[0] for row in await self._rows(select(_table.c.id).order_by(_table.c.id))]

    async def count_by_type(self) -> dict[str, int]:
        """Tell how many there are of each task."""
        column = _table.c.task_type
        query = select(column, func.count()).group_by(column).order_by(column)
        return {row[0]: row[1] for row in await self._rows(query)}

    def _time(self, moment: int) -> Any:
        return moment if self._repository.dialect == "sqlite" else to_datetime(moment)

    async def _read(self, query: Select[Any]) -> list[TaskDefinition]:
        return [_definition(row) for row in await self._rows(query)]

    async def _rows(self, query: Select[Any]) -> Sequence[Any]:
        async def work(connection: AsyncConnection) -> Sequence[Any]:
            found: Sequence[Any] = (await connection.execute(query)).all()
            return found

        return await self._repository.ask(work)


def _contains(text: str) -> ColumnElement[bool]:
    """Find a part of a text; the database lowers both, since not all know every alphabet."""
    columns = (_table.c.name, _table.c.description, _table.c.task_type)
    part = func.lower("%" + re.sub("([/%_])", r"/\1", text) + "%")
    return or_(*(func.lower(one).like(part, escape="/") for one in columns))


def _values(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(json.dumps(fields[name]) if name in _JSON else fields[name] for name in FIELDS)


def _definition(row: Any) -> TaskDefinition:
    told = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's name for it
    return TaskDefinition(**told | {name: json.loads(told[name]) for name in _JSON})
