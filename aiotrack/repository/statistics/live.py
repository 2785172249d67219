"""Executions counted where they are, in the words of each database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Float,
    Integer,
    Select,
    Text,
    TextClause,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from aiotrack.classes import LOST, TIMEOUT
from aiotrack.clock import to_datetime
from aiotrack.repository.columns import UtcDateTime
from aiotrack.repository.statistics.histogram import LOG, NOTHING, SHORTEST, bucket
from aiotrack.repository.statistics.periods import Range
from aiotrack.repository.statistics.sums import KINDS
from aiotrack.repository.tables import ExecutionRow

SKIPPED: Final = "skipped_by"
"""The metadata key of a run that did nothing because another did the same work."""

_table = ExecutionRow.__table__

UNFINISHED: Final = literal_column("status IN ('PENDING', 'STARTED', 'RETRY')", Boolean)
FINAL: Final = literal_column("status IN ('SUCCESS', 'FAILURE', 'REVOKED')", Boolean)
"""Written out, so that a plan knows how rare each word is."""

_FAILED: Final = "status = 'FAILURE' AND error_class = '{}'"


async def prepare(connection: AsyncConnection) -> None:
    """Teach SQLite, which may have no logarithm, what a bucket is."""
    if connection.dialect.name == "sqlite":
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.create_function("aiotrack_bucket", 1, bucket, deterministic=True)


def within(column: ColumnElement[Any], ranges: Sequence[Range]) -> ColumnElement[bool]:
    """Give the condition that a time is in one of the ranges."""
    values = {key: literal(value, UtcDateTime) for key, value in bounds("", ranges).items()}
    return _within(column, values, len(ranges))


def within_any(column: ColumnElement[Any], name: str, count: int) -> ColumnElement[bool]:
    """Give the same for *count* ranges that `bounds` tells later, under the same *name*."""
    keys = [f"{name}{end}{number}" for number in range(count) for end in ("from", "to")]
    values = {key: bindparam(key, type_=UtcDateTime) for key in keys}
    return _within(column, values, count, name)


def bounds(name: str, ranges: Sequence[Range]) -> dict[str, datetime | None]:
    """Give the parameters of ranges: first and last moment, which every database can hold."""
    found = {}
    for number, (begin, stop) in enumerate(ranges):
        found[f"{name}from{number}"] = to_datetime(begin)
        found[f"{name}to{number}"] = to_datetime(stop - 1)
    return found


def _within(
    column: ColumnElement[Any], values: Mapping[str, Any], count: int, name: str = ""
) -> ColumnElement[bool]:
    parts = [
        and_(column >= values[f"{name}from{number}"], column <= values[f"{name}to{number}"])
        for number in range(count)
    ]
    return or_(*parts) if parts else false()


def slot(dialect: str, unit: int) -> ColumnElement[int]:
    """Give the number of the period of *unit* microseconds in which a row was created."""
    if dialect == "sqlite":
        moment = type_coerce(_table.c.created_at, BigInteger)
        return (moment - ((moment % unit) + unit) % unit) // unit
    seconds = func.date_part("epoch", type_coerce(_table.c.created_at, DateTime))
    return cast(func.floor(seconds / (unit // 1_000_000)), BigInteger)


def _wait(dialect: str) -> ColumnElement[float]:
    started, created = _table.c.started_at, _table.c.created_at
    if dialect == "sqlite":
        passed = type_coerce(started, BigInteger) - type_coerce(created, BigInteger)
        waited = cast(passed, Float) / 1e6
        return case((started.is_not(None), func.max(0.0, waited)))
    length = type_coerce(started, DateTime) - type_coerce(created, DateTime)
    return case((started.is_not(None), func.greatest(0.0, func.date_part("epoch", length))))


def _skipped(dialect: str) -> ColumnElement[int]:
    metadata = _table.c.metadata
    if dialect == "sqlite":
        raw = type_coerce(metadata, Text)
        is_there = and_(
            func.instr(raw, f'"{SKIPPED}"') > 0,  # parsing every row's metadata takes longer
            func.json_type(raw, f"$.{SKIPPED}").is_not(None),
        )
    else:
        is_there = type_coerce(metadata, JSONB).has_key(SKIPPED)
    return case((is_there, 1), else_=0)


def _failed(error_class: str) -> ColumnElement[int]:
    return case((literal_column(_FAILED.format(error_class), Boolean), 1), else_=0)


def rows(
    dialect: str,
    unit: int,
    conditions: Sequence[ColumnElement[bool] | TextClause],
    *,
    is_over: bool = True,
) -> Select[Any]:
    """Give what is counted of each row; *unit* as in `slot`, of what is not over only what it is.

    Not looking into the metadata of each row that is open saves a millisecond for 2,000 of them.
    """
    kinds = (_skipped(dialect), _failed(TIMEOUT), _failed(LOST)) if is_over else (literal(0),) * 3
    return select(
        _table.c.module,
        _table.c.task_name,
        _table.c.status,
        slot(dialect, unit).label("slot"),
        *(found.label(name) for found, name in zip(kinds, KINDS, strict=True)),
        _table.c.duration,
        _wait(dialect).label("wait"),
    ).where(*conditions)


_SUMS: Final = (*KINDS, "duration_count", "duration_sum", "wait_count", "wait_sum")


def sums(source: Any) -> list[ColumnElement[Any]]:
    """Give the columns that count and add up *rows*."""
    return [
        func.count().label("count"),
        *(func.sum(source.c[name]).label(name) for name in KINDS),
        func.count(source.c.duration).label("duration_count"),
        func.coalesce(func.sum(source.c.duration), 0.0).label("duration_sum"),
        func.count(source.c.wait).label("wait_count"),
        func.coalesce(func.sum(source.c.wait), 0.0).label("wait_sum"),
    ]


def counted(source: CTE) -> Any:
    """Count by module, task name and status, and (with no module) by slot and status.

    The rows are read once: what is added up twice is small.
    """
    keys = [source.c[name] for name in ("module", "task_name", "status", "slot")]
    groups = select(*keys, *sums(source)).group_by(*keys).cte("groups")
    added = [cast(func.sum(groups.c[name]), groups.c[name].type) for name in ("count", *_SUMS)]
    named = [groups.c.module, groups.c.task_name, groups.c.status]
    timed = [groups.c.slot, groups.c.status]
    labels = [column.label(name) for column, name in zip(added, ("count", *_SUMS), strict=True)]
    return union_all(
        select(*named, cast(null(), BigInteger).label("slot"), *labels).group_by(*named),
        select(
            cast(null(), Text).label("module"),
            cast(null(), Text),
            groups.c.status,
            groups.c.slot,
            *labels,
        ).group_by(*timed),
    )


def both(source: CTE, dialect: str) -> Any:
    """Give what `counted` and `histograms` do by one statement, which reads the rows once.

    Rows of a histogram have a ``kind``; the others have none, and no ``bucket``.
    """
    counts = counted(source).subquery()
    found = histograms(source, dialect).subquery()
    nothing = [cast(null(), Integer).label(name) for name in ("kind", "bucket")]
    padded = [
        found.c["count"] if column.name == "count" else cast(null(), column.type)
        for column in counts.c
    ]
    return union_all(select(*counts.c, *nothing), select(*padded, found.c.kind, found.c.bucket))


def bucketed(column: ColumnElement[Any], dialect: str) -> ColumnElement[int]:
    """Give the bucket of seconds, NULL for none: see ``histogram``."""
    if dialect == "sqlite":
        return case((column.is_not(None), func.aiotrack_bucket(column, type_=Integer)))
    index = cast(func.ceil(func.ln(column) / LOG), Integer)
    return case((column < SHORTEST, NOTHING), else_=index)


def packed(source: Any, dialect: str, *keys: str) -> Any:
    """Give histograms of durations (kind 0) and waits (kind 1) as JSON, for each of *keys*."""
    counts = histograms(source, dialect, *keys).cte("buckets")
    pack = func.json_group_object if dialect == "sqlite" else func.json_object_agg
    packed = cast(pack(cast(counts.c.bucket, Text), counts.c.count), Text).label("histogram")
    groups = [counts.c[name] for name in ("kind", *keys)]
    return select(*groups, packed).group_by(*groups)


def joint(source: Any, dialect: str) -> Select[Any]:
    """Count by both buckets at once: many rows are read once, for some thousands of groups."""
    both: list[ColumnElement[Any]] = [
        bucketed(source.c.duration, dialect).label("duration"),
        bucketed(source.c.wait, dialect).label("wait"),
    ]
    return select(*both, func.count().label("count")).group_by(*both)


def histograms(source: Any, dialect: str, *keys: str) -> Any:
    """Count durations (kind 0) and waits (kind 1) by bucket, for each of *keys*."""
    parts = []
    for kind, name in enumerate(("duration", "wait")):
        column = source.c[name]
        index = bucketed(column, dialect).label("bucket")
        groups = [*(source.c[key] for key in keys), index]
        query = select(literal(kind).label("kind"), *groups, func.count().label("count"))
        parts.append(query.where(column.is_not(None)).group_by(*groups))
    return union_all(*parts)
