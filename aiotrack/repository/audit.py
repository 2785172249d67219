"""The audit: who did what to what. Only ever appended to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, func, select

from aiotrack.clock import to_datetime, to_micros
from aiotrack.repository.control_tables import AuditRow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from aiotrack.repository.store import Repository

_table = AuditRow.__table__
_COLUMNS = tuple(_table.c)
_TOLD: Final = ("before", "after")

EACH: Final = 500
"""Targets of one statement; each is some rows of an index."""

_APPEND: Final = """
INSERT INTO aiotrack_audit (at, actor, action, target, reason, before, after)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id
"""


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
