"""What executions were sent with, for those who send them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.repository.dialects import at_once
from aiotrack.repository.tables import ExecutionRow

if TYPE_CHECKING:
    from aiotrack.repository.store import Repository

_table = ExecutionRow.__table__
_BIRTH = select(*(_table.c[name] for name in ("task_id", "exact", "metadata", "stamps")))


@dataclass(frozen=True, slots=True)
class Birth:
    """Whether the stored arguments are the real ones, and the metadata that came with them."""

    exact: bool
    metadata: Mapping[str, Any]


async def births(repository: Repository, task_ids: Sequence[str]) -> dict[str, Birth]:
    """Read how executions were sent, those there are, by one SELECT.

    Args:
        repository: Where they are.
        task_ids: As they are stored; some hundreds at most.

    Raises:
        StoreUnavailable: The database did not answer.
    """

    async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
        await at_once(connection)
        found = await connection.execute(_BIRTH.where(_table.c.task_id.in_(task_ids)))
        return found.mappings().all()

    return {row["task_id"]: _birth(row) for row in await repository.ask(work)}


def _birth(row: RowMapping) -> Birth:
    written = (row["stamps"] or {}).get("patch", {})
    metadata = row["metadata"] if isinstance(row["metadata"], dict) else {}
    # A stamp begins with the attempt that wrote the key: none wrote what it was sent with.
    sent = {key: value for key, value in metadata.items() if not written.get(key, (0,))[0]}
    return Birth(bool(row["exact"]), sent)
