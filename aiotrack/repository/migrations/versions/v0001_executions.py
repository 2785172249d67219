"""Executions and their attempts.

Creates two tables: no lock on anything that exists.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from aiotrack.repository.columns import BIG, JSON, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UNFINISHED = sa.text("status IN ('PENDING', 'STARTED', 'RETRY')")


def _run_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("witness", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text()),
        sa.Column("started_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("duration", sa.Float(53)),
        sa.Column("result", JSON),
        sa.Column("error", sa.Text()),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_class", sa.Text()),
        sa.Column("traceback", sa.Text()),
        sa.Column("cancel_reason", sa.Text()),
        sa.Column("cancelled_by", sa.Text()),
    ]


def upgrade() -> None:
    """Create both tables and the indexes of the executions."""
    op.create_table(
        "aiotrack_executions",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("task_name", sa.Text(), nullable=False),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text()),
        sa.Column("priority", sa.Integer()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.Text()),
        sa.Column("parent_task_id", sa.Text()),
        sa.Column("schedule_id", sa.Text()),
        sa.Column("config_id", BIG),
        sa.Column("rerun_of", sa.Text()),
        sa.Column("trace_id", sa.Text()),
        sa.Column("args", JSON, nullable=False),
        sa.Column("kwargs", JSON, nullable=False),
        sa.Column("exact", sa.Boolean(), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        *_run_columns(),
        sa.Column("presumed", sa.Boolean(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("plain", sa.Boolean(), nullable=False),
        sa.Column("stamps", JSON),
        sa.PrimaryKeyConstraint("id", name="pk_aiotrack_executions"),
        sa.UniqueConstraint("task_id", name="uq_aiotrack_executions_task_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_aiotrack_executions_created_at_id", "aiotrack_executions", ["created_at", "id"]
    )
    op.create_index(
        "ix_aiotrack_executions_task_name_created_at_id",
        "aiotrack_executions",
        ["task_name", "created_at", "id"],
    )
    op.create_index(
        "ix_aiotrack_executions_unfinished",
        "aiotrack_executions",
        ["created_at"],
        postgresql_where=UNFINISHED,
        sqlite_where=UNFINISHED,
    )
    op.create_table(
        "aiotrack_attempts",
        sa.Column("task_id", sa.String(255), nullable=False),
        *_run_columns(),
        sa.Column("requeues", sa.Integer(), nullable=False),
        sa.Column("set_aside", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "run_id", name="pk_aiotrack_attempts"),
    )


def downgrade() -> None:
    """Drop both tables with all that they hold."""
    op.drop_table("aiotrack_attempts")
    op.drop_table("aiotrack_executions")
