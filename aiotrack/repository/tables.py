"""The tables of records, as typed declarative models that users may join to their own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Float, Integer, SmallInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from aiotrack.repository.columns import BIG, JSON, Base, UtcDateTime, index


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
        index("created_at", "id"),
        index("task_name", "created_at", "id", ops={"task_name": "text_pattern_ops"}),
        index("module", "created_at", "id"),
        index("status", "created_at", "id"),
        index("created_by", "created_at", "id", where="created_by IS NOT NULL"),
        index("worker", "created_at", "id", where="worker IS NOT NULL"),
        index("error_class", "created_at", "id", where="error_class IS NOT NULL"),
        index("config_id", "created_at", "id", where="config_id IS NOT NULL"),
        index("schedule_id", "created_at", "id", where="schedule_id IS NOT NULL"),
        index("finished_at", "id", where="finished_at IS NOT NULL"),
        index("duration", "id", where="duration IS NOT NULL"),
        index(
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

    The span ``gone`` holds what was deleted of recent hours, at level 2 only; see ``gone``.

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
    timed_out: Mapped[int] = mapped_column(BIG)
    lost: Mapped[int] = mapped_column(BIG)
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
    """Rows of it were deleted: its rollups tell what was there. They are computed again only while
    a row with the span ``gone`` says that what was deleted is kept."""
