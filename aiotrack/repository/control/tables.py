"""The tables of what acts on executions: settings, workers, cancels, definitions, held messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Float, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from aiotrack.repository.columns import BIG, JSON, Base, UtcDateTime, index


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

    __table_args__ = (index("beat_at"),)


class CancelRow(Base):
    """A wish to end an execution: every worker looks for them, whatever Redis does."""

    __tablename__ = "aiotrack_cancels"

    task_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reason: Mapped[str | None] = mapped_column(Text)
    asked_by: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (index("asked_at"),)


class DefinitionRow(Base):
    """A task that can be sent by its name, with parameters and a schedule. ``id`` is never reused.

    ``schedule`` and ``parameters`` are JSON as text: JSONB would give 1e100 back as an integer.
    """

    __tablename__ = "aiotrack_task_definitions"

    id: Mapped[int] = mapped_column(BIG, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    description: Mapped[str] = mapped_column(Text)
    task_type: Mapped[str] = mapped_column(Text)
    schedule_kind: Mapped[str] = mapped_column(String(8))
    schedule: Mapped[str] = mapped_column(Text)
    parameters: Mapped[str] = mapped_column(Text)
    max_retries: Mapped[int] = mapped_column(Integer)
    timeout_seconds: Mapped[float | None] = mapped_column(Float(53))
    priority: Mapped[int] = mapped_column(Integer)
    queue: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        index("task_type", "id"),
        index("schedule_kind", "id"),
        {"sqlite_autoincrement": True},
    )


class AuditRow(Base):
    """Who did what to what, and why. Only ever appended to."""

    __tablename__ = "aiotrack_audit"

    id: Mapped[int] = mapped_column(BIG, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str | None] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    """Such as ``schedule.pause``."""
    target: Mapped[str] = mapped_column(Text)
    """Such as ``definition:7``."""
    reason: Mapped[str | None] = mapped_column(Text)
    before: Mapped[str | None] = mapped_column(Text)
    """JSON as text, as in ``after``: what was."""
    after: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        index("at", "id"),
        *(index(column, "at", "id") for column in ("actor", "action", "target")),
        {"sqlite_autoincrement": True},
    )


class HeldRow(Base):
    """A message that is not sent before other executions have succeeded."""

    __tablename__ = "aiotrack_held"

    task_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    task_name: Mapped[str] = mapped_column(Text)
    """Only a process that knows it can send it."""
    message: Mapped[str] = mapped_column(Text)
    """TaskIQ's message as JSON."""
    held_at: Mapped[datetime] = mapped_column(UtcDateTime)
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When somebody began to send it: if he was killed, the next one does."""


class NeedRow(Base):
    """What a held message waits for."""

    __tablename__ = "aiotrack_needs"

    task_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    needs: Mapped[str] = mapped_column(String(255), primary_key=True)

    __table_args__ = (index("needs"),)
