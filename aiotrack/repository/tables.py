"""The tables, as typed declarative models that users may join to their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

from aiotrack.clock import to_datetime, to_micros

VERSION_TABLE = "aiotrack_version"
HEAD = "0006"
"""The newest migration; a test holds it equal to the newest file."""


class JsonText(sqlite.JSON):
    """JSON in a TEXT column: SQLite takes the name JSON for a number, and 1.0 would become 1."""


@compiles(JsonText, "sqlite")
def _as_text(*_: object, **__: object) -> str:
    return "TEXT"


JSON = (
    sa.JSON(none_as_null=True)
    .with_variant(JSONB(none_as_null=True), "postgresql")
    .with_variant(JsonText(none_as_null=True), "sqlite")
)
BIG = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC: ``timestamptz`` on Postgres, whole microseconds on SQLite.

    SQLite has no type for times; integers keep order, exactness and offset where text loses one.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column's type."""
        kind: TypeEngine[Any] = (
            BigInteger() if dialect.name == "sqlite" else DateTime(timezone=True)
        )
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse times without an offset."""
        if value is None:
            return None
        micros = to_micros(value)
        return micros if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give an aware UTC time back."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            return to_datetime(int(value))
        moment: datetime = value
        return moment.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of aiotrack's models; its metadata holds only aiotrack's tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _index(
    *columns: str, name: str | None = None, where: str | None = None, ops: Any = None
) -> Index:
    """Describe an index; *ops* are PostgreSQL's operator classes."""
    condition = None if where is None else text(where)
    return Index(
        name,
        *columns,
        postgresql_where=condition,
        sqlite_where=condition,
        postgresql_ops=ops or {},
    )


class ExecutionRow(Base):
    """One execution. Columns after ``trace_id`` are the recorder's own bookkeeping.

    ``task_id`` is unique; on PostgreSQL by an index of its constraint's name, which serves prefixes
    too. docs/decisions/008 says what each index is for, and what it costs.
    """

    __tablename__ = "aiotrack_executions"

    id: Mapped[int] = mapped_column(BIG, primary_key=True, autoincrement=True)
    task_id: Mapped[str] = mapped_column(String(255), unique=True)
    task_name: Mapped[str] = mapped_column(Text)
    module: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer)
    queue: Mapped[str | None] = mapped_column(Text)
    priority: Mapped[int | None] = mapped_column(Integer)
    worker: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    duration: Mapped[float | None] = mapped_column(Float(53))
    args: Mapped[list[Any]] = mapped_column(JSON)
    kwargs: Mapped[dict[str, Any]] = mapped_column(JSON)
    result: Mapped[Any] = mapped_column(JSON, nullable=True)
    error: Mapped[str | None] = mapped_column(Text)
    error_type: Mapped[str | None] = mapped_column(Text)
    error_class: Mapped[str | None] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str | None] = mapped_column(Text)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    schedule_id: Mapped[str | None] = mapped_column(Text)
    config_id: Mapped[int | None] = mapped_column(BIG)
    parent_task_id: Mapped[str | None] = mapped_column(Text)
    rerun_of: Mapped[str | None] = mapped_column(Text)
    presumed: Mapped[bool]
    runs: Mapped[int] = mapped_column(Integer)
    duplicates: Mapped[int] = mapped_column(Integer)
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    cancelled_by: Mapped[str | None] = mapped_column(Text)
    trace_id: Mapped[str | None] = mapped_column(Text)
    time_limit: Mapped[float | None] = mapped_column(Float(53))
    """Seconds that a run may take, by its label ``timeout``."""

    run_id: Mapped[str] = mapped_column(Text)
    witness: Mapped[int] = mapped_column(SmallInteger)
    exact: Mapped[bool]
    plain: Mapped[bool]
    """One message, at most one run, first attempt, no patch: this row alone tells it all."""
    stamps: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """Who told each birth fact (``facts``) and when each metadata key was written (``patch``)."""

    __table_args__ = (
        _index("created_at", "id"),
        _index("task_name", "created_at", "id", ops={"task_name": "text_pattern_ops"}),
        _index("module", "created_at", "id"),
        _index("status", "created_at", "id"),
        _index("created_by", "created_at", "id", where="created_by IS NOT NULL"),
        _index("worker", "created_at", "id", where="worker IS NOT NULL"),
        _index("error_class", "created_at", "id", where="error_class IS NOT NULL"),
        _index("config_id", "created_at", "id", where="config_id IS NOT NULL"),
        _index("schedule_id", "created_at", "id", where="schedule_id IS NOT NULL"),
        _index("finished_at", "id", where="finished_at IS NOT NULL"),
        _index("duration", "id", where="duration IS NOT NULL"),
        _index(
            "id",
            name="ix_aiotrack_executions_nulls",
            where="finished_at IS NULL OR duration IS NULL",
        ),
        {"sqlite_autoincrement": True},
    )


class AttemptRow(Base):
    """One run (or cancel) of an execution that has more to tell than its own row can hold."""

    __tablename__ = "aiotrack_attempts"

    task_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    run_id: Mapped[str] = mapped_column(Text, primary_key=True)
    witness: Mapped[int] = mapped_column(SmallInteger)
    status: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer)
    requeues: Mapped[int] = mapped_column(Integer)
    set_aside: Mapped[bool]
    worker: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    duration: Mapped[float | None] = mapped_column(Float(53))
    result: Mapped[Any] = mapped_column(JSON, nullable=True)
    error: Mapped[str | None] = mapped_column(Text)
    error_type: Mapped[str | None] = mapped_column(Text)
    error_class: Mapped[str | None] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    cancelled_by: Mapped[str | None] = mapped_column(Text)


class CheckpointRow(Base):
    """Where an execution's work stood: written by its newest run, read by the next one."""

    __tablename__ = "aiotrack_checkpoints"

    task_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    """JSON as text: JSONB would give 1e100 back as an integer, and refuse NUL."""
    attempt: Mapped[int] = mapped_column(Integer)
    run_started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    run_id: Mapped[str] = mapped_column(Text)
    seq: Mapped[int] = mapped_column(BIG)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class LogRow(Base):
    """A line that an attempt logged. Whoever deletes an execution deletes its lines by task_id."""

    __tablename__ = "aiotrack_logs"

    task_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    began_at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    run_id: Mapped[str] = mapped_column(Text, primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(Integer)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    level_number: Mapped[int] = mapped_column(Integer)
    level: Mapped[str] = mapped_column(Text)
    logger: Mapped[str] = mapped_column(Text)
    message: Mapped[str] = mapped_column(Text)


class RollupRow(Base):
    """What ended, of the executions created in an hour or a day (UTC); see ``rollups``.

    ``level`` says of what: 0 all modules but aiotrack's own, 1 one module, 2 one task name of one
    module. Names that a level does not tell are empty. Times are seconds; ``durations`` and
    ``waits`` are JSON objects of logarithmic bucket and count.
    """

    __tablename__ = "aiotrack_rollups"

    span: Mapped[str] = mapped_column(String(4), primary_key=True)
    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    start: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    module: Mapped[str] = mapped_column(Text, primary_key=True)
    task_name: Mapped[str] = mapped_column(Text, primary_key=True)
    success: Mapped[int] = mapped_column(BIG)
    failure: Mapped[int] = mapped_column(BIG)
    revoked: Mapped[int] = mapped_column(BIG)
    skipped: Mapped[int] = mapped_column(BIG)
    duration_count: Mapped[int] = mapped_column(BIG)
    duration_sum: Mapped[float] = mapped_column(Float(53))
    wait_count: Mapped[int] = mapped_column(BIG)
    wait_sum: Mapped[float] = mapped_column(Float(53))
    durations: Mapped[str] = mapped_column(Text)
    waits: Mapped[str] = mapped_column(Text)


class DirtyRow(Base):
    """An hour or a day whose rollups are not to be believed: it is counted from the executions."""

    __tablename__ = "aiotrack_rollups_dirty"

    span: Mapped[str] = mapped_column(String(4), primary_key=True)
    start: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    marked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    cleaned: Mapped[bool]
    """Rows of it were deleted: its rollups tell what was there, and are never computed again."""


class SettingRow(Base):
    """A setting that was made while the product runs: for all, or for what one user sends."""

    __tablename__ = "aiotrack_settings"

    scope: Mapped[str] = mapped_column(String(8), primary_key=True)
    """``global`` or ``user``."""
    owner: Mapped[str] = mapped_column(Text, primary_key=True)
    """The user; empty for ``global``."""
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[float] = mapped_column(Float(53))
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WorkerRow(Base):
    """A process that runs tasks, as it told of itself last. ``id`` names one start of a process."""

    __tablename__ = "aiotrack_workers"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int] = mapped_column(BIG)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    beat_at: Mapped[datetime] = mapped_column(UtcDateTime)
    beat_seconds: Mapped[float] = mapped_column(Float(53))
    """Seconds between two beats: after three of them without one it is lost."""
    beating_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when no beat was late: so long its database took beats of everybody."""
    swept_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it looked after the lost ones last; the newest of all is the fleet's."""
    stopped_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it said farewell."""
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the runs that it left were closed: nobody looks for more."""
    queues: Mapped[list[Any]] = mapped_column(JSON)
    tasks: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Name of each task that it knows, and whether its body can be interrupted (it is async)."""
    concurrency: Mapped[int | None] = mapped_column(Integer)
    versions: Mapped[dict[str, Any]] = mapped_column(JSON)
    running: Mapped[list[Any]] = mapped_column(JSON)
    """The run_ids that it works on."""
    memory: Mapped[int | None] = mapped_column(BIG)
    cpu: Mapped[float | None] = mapped_column(Float(53))

    __table_args__ = (_index("beat_at"),)


class CancelRow(Base):
    """A wish to end an execution: every worker looks for them, whatever Redis does."""

    __tablename__ = "aiotrack_cancels"

    task_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reason: Mapped[str | None] = mapped_column(Text)
    asked_by: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (_index("asked_at"),)
