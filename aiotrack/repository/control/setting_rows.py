"""The table of settings that are made while the product runs. It takes what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, or_, select

from aiotrack.clock import to_datetime, to_micros
from aiotrack.repository.control.tables import SettingRow
from aiotrack.settings import GLOBAL, NOBODY, USER

if TYPE_CHECKING:
    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from aiotrack.repository.store import Repository

_table = SettingRow.__table__

_PUT: Final = """
INSERT INTO aiotrack_settings (scope, owner, key, value, set_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (scope, owner, key) DO UPDATE SET value = excluded.value, set_at = excluded.set_at
RETURNING key
"""
_REMOVE: Final = """
DELETE FROM aiotrack_settings WHERE scope = $1 AND owner = $2 AND key = $3 RETURNING key
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One row; ``set_at`` is in microseconds."""

    scope: str
    owner: str
    key: str
    value: float
    set_at: int


class SettingRows:
    """The rows of one database. All verbs raise `StoreUnavailable`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def put(self, row: Stored) -> None:
        """Store a row, or replace the one of its scope, owner and key. One statement."""
        is_sqlite = self._repository.dialect == "sqlite"
        at = row.set_at if is_sqlite else to_datetime(row.set_at)
        await self._repository.execute(_PUT, (row.scope, row.owner, row.key, float(row.value), at))

    async def remove(self, scope: str, owner: str, key: str) -> bool:
        """Delete a row; False when there is none. One statement."""
        return bool(await self._repository.execute(_REMOVE, (scope, owner, key)))

    async def read(self, owner: str | None = None, *, is_all: bool = False) -> list[Stored]:
        """Give what holds for everybody and, with *owner*, for that user. One statement.

        Args:
            owner: A user.
            is_all: Give every user's, too.
        """
        query = select(_table).order_by(_table.c.scope, _table.c.owner, _table.c.key)
        if not is_all:
            is_mine = and_(_table.c.scope == USER, _table.c.owner == (owner or NOBODY))
            query = query.where(or_(_table.c.scope == GLOBAL, is_mine))

        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            return (await connection.execute(query)).mappings().all()

        return [
            Stored(**{**row, "set_at": to_micros(row["set_at"])})
            for row in await self._repository.ask(work)
        ]
