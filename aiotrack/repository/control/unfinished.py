"""Executions that did not end: who may have to be ended, and which runs a living worker claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, exists, literal_column, or_, select

from aiotrack.clock import to_datetime, to_micros
from aiotrack.repository.columns import UtcDateTime
from aiotrack.repository.control.tables import HeldRow, SettingRow, WorkerRow
from aiotrack.repository.control.workers import MISSED
from aiotrack.repository.tables import ExecutionRow
from aiotrack.settings import USER

if TYPE_CHECKING:
    from sqlalchemy import RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from aiotrack.repository.store import Repository

LONGEST_SILENCE: Final = timedelta(hours=3)
"""Three of the longest beats that a setting allows: older rows need no look."""

_executions = ExecutionRow.__table__
_held = HeldRow.__table__
_settings = SettingRow.__table__
_workers = WorkerRow.__table__


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An execution that did not end, as a plain read shows it; times in microseconds.

    ``minutes`` is what its creator's own row of ``timeout_minutes`` says.
    """

    id: int
    task_id: str
    module: str
    status: str
    attempt: int
    run_id: str
    created_at: int
    started_at: int | None
    time_limit: float | None
    minutes: float | None


@dataclass(frozen=True, slots=True)
class Living:
    """Workers that beat: their ids, and the run_ids that they name."""

    workers: frozenset[str]
    runs: frozenset[str]


def _page() -> Select[Any]:
    """Ask for a page of one status, with the value of each row's creator: one statement."""
    columns = [
        _executions.c[name]
        for name in ("id", "task_id", "module", "status", "attempt", "run_id", "created_at")
    ]
    created, number = _executions.c.created_at, _executions.c.id
    since = bindparam("since", type_=UtcDateTime)
    mine = and_(
        _settings.c.scope == literal_column(f"'{USER}'"),
        _settings.c.key == literal_column("'timeout_minutes'"),
        _settings.c.owner == _executions.c.created_by,
    )
    return (
        select(
            *columns,
            _executions.c.started_at,
            _executions.c.time_limit,
            _settings.c.value.label("minutes"),
        )
        .select_from(_executions.outerjoin(_settings, mine))
        .where(
            _executions.c.status == bindparam("status"),
            created >= since,
            or_(created > since, number > bindparam("after")),
            created <= bindparam("until", type_=UtcDateTime),
            ~exists().where(_held.c.task_id == _executions.c.task_id),  # it waits for others
        )
        .order_by(created, number)
        .limit(bindparam("size"))
    )


_PAGE: Final = _page()
_LIVING: Final = select(
    _workers.c.id, _workers.c.beat_at, _workers.c.beat_seconds, _workers.c.running
).where(
    _workers.c.stopped_at.is_(None), _workers.c.beat_at >= bindparam("since", type_=UtcDateTime)
)


class Unfinished:
    """What did not end in one database. All verbs raise `StoreUnavailable`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def page(self, status: str, *, after: Open | None, until: int, size: int) -> list[Open]:
        """Give executions of a status in the order of their creation; one statement by its index.

        Args:
            status: Its word.
            after: The last one of the page before.
            until: The latest creation, in microseconds.
            size: How many at most.
        """
        values = {
            "status": status,
            "since": to_datetime(0 if after is None else after.created_at),
            "after": 0 if after is None else after.id,
            "until": to_datetime(until),
            "size": size,
        }
        return [
            Open(
                **{
                    **row,
                    "created_at": to_micros(row["created_at"]),
                    "started_at": row["started_at"] and to_micros(row["started_at"]),
                }
            )
            for row in await self._fetch(_PAGE, values)
        ]

    async def living(self, now: int) -> Living:
        """Give the workers that beat at a time, in microseconds."""
        moment = to_datetime(now)
        assert moment is not None
        rows = [
            row
            for row in await self._fetch(_LIVING, {"since": moment - LONGEST_SILENCE})
            if row["beat_at"] + timedelta(seconds=MISSED * row["beat_seconds"]) > moment
        ]
        return Living(
            frozenset(row["id"] for row in rows),
            frozenset(str(run) for row in rows for run in row["running"]),
        )

    async def _fetch(self, query: Select[Any], values: dict[str, Any]) -> Sequence[RowMapping]:
        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            found: Sequence[RowMapping] = (await connection.execute(query, values)).mappings().all()
            return found

        return await self._repository.ask(work)
