"""Task definitions, the audit, and messages that wait for other executions.

Creates tables only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from aiotrack.repository.columns import BIG, UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "aiotrack_task_definitions",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("task_type", sa.Text(), nullable=False),
        sa.Column("schedule_kind", sa.String(8), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("timeout_seconds", sa.Float(53)),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("queue", sa.Text()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_aiotrack_task_definitions"),
        sa.UniqueConstraint("name", name="uq_aiotrack_task_definitions_name"),
        sqlite_autoincrement=True,
    )
    for column in ("task_type", "schedule_kind"):
        op.create_index(
            f"ix_aiotrack_task_definitions_{column}_id",
            "aiotrack_task_definitions",
            [column, "id"],
        )
    op.create_table(
        "aiotrack_audit",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("actor", sa.Text()),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_aiotrack_audit"),
        sqlite_autoincrement=True,
    )
    for columns in (["at", "id"], *([one, "at", "id"] for one in ("actor", "action", "target"))):
        op.create_index(f"ix_aiotrack_audit_{'_'.join(columns)}", "aiotrack_audit", columns)
    op.create_table(
        "aiotrack_held",
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("task_name", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("held_at", UtcDateTime(), nullable=False),
        sa.Column("claimed_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("task_id", name="pk_aiotrack_held"),
    )
    op.create_table(
        "aiotrack_needs",
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("needs", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "needs", name="pk_aiotrack_needs"),
    )
    op.create_index("ix_aiotrack_needs_needs", "aiotrack_needs", ["needs"])


def downgrade() -> None:
    """Drop them with all that they hold."""
    for name in ("needs", "held", "audit", "task_definitions"):
        op.drop_table(f"aiotrack_{name}")
