"""Checkpoints of executions.

Creates one table: no lock on anything that exists.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from aiotrack.repository.columns import BIG, UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "aiotrack_checkpoints",
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("run_started_at", UtcDateTime(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_aiotrack_checkpoints"),
    )


def downgrade() -> None:
    """Drop the table with all that it holds."""
    op.drop_table("aiotrack_checkpoints")
