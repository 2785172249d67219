"""Settings that are made at run time, workers, cancels, and the time limit of an execution.

Creates tables, and adds one column without a default: no row is rewritten.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from aiotrack.repository.columns import BIG, JSON, UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and the column."""
    op.add_column("aiotrack_executions", sa.Column("time_limit", sa.Float(53)))
    op.create_table(
        "aiotrack_settings",
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("set_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "owner", "key", name="pk_aiotrack_settings"),
    )
    op.create_table(
        "aiotrack_workers",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", BIG, nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("beat_at", UtcDateTime(), nullable=False),
        sa.Column("beat_seconds", sa.Float(53), nullable=False),
        sa.Column("beating_since", UtcDateTime()),
        sa.Column("swept_at", UtcDateTime()),
        sa.Column("stopped_at", UtcDateTime()),
        sa.Column("closed_at", UtcDateTime()),
        sa.Column("queues", JSON, nullable=False),
        sa.Column("tasks", JSON, nullable=False),
        sa.Column("concurrency", sa.Integer()),
        sa.Column("versions", JSON, nullable=False),
        sa.Column("running", JSON, nullable=False),
        sa.Column("memory", BIG),
        sa.Column("cpu", sa.Float(53)),
        sa.PrimaryKeyConstraint("id", name="pk_aiotrack_workers"),
    )
    op.create_index("ix_aiotrack_workers_beat_at", "aiotrack_workers", ["beat_at"])
    op.create_table(
        "aiotrack_cancels",
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("asked_by", sa.Text()),
        sa.PrimaryKeyConstraint("task_id", name="pk_aiotrack_cancels"),
    )
    op.create_index("ix_aiotrack_cancels_asked_at", "aiotrack_cancels", ["asked_at"])


def downgrade() -> None:
    """Drop them with all that they hold."""
    for name in ("aiotrack_cancels", "aiotrack_workers", "aiotrack_settings"):
        op.drop_table(name)
    op.drop_column("aiotrack_executions", "time_limit")
