"""Rollups of what ended, and the marks of periods that changed since.

Creates two tables: no lock on anything that exists.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from aiotrack.repository.columns import BIG, UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "aiotrack_rollups",
        sa.Column("span", sa.String(4), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("start", UtcDateTime(), nullable=False),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("task_name", sa.Text(), nullable=False),
        sa.Column("success", BIG, nullable=False),
        sa.Column("failure", BIG, nullable=False),
        sa.Column("revoked", BIG, nullable=False),
        sa.Column("skipped", BIG, nullable=False),
        sa.Column("duration_count", BIG, nullable=False),
        sa.Column("duration_sum", sa.Float(53), nullable=False),
        sa.Column("wait_count", BIG, nullable=False),
        sa.Column("wait_sum", sa.Float(53), nullable=False),
        sa.Column("durations", sa.Text(), nullable=False),
        sa.Column("waits", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "span", "level", "start", "module", "task_name", name="pk_aiotrack_rollups"
        ),
    )
    op.create_table(
        "aiotrack_rollups_dirty",
        sa.Column("span", sa.String(4), nullable=False),
        sa.Column("start", UtcDateTime(), nullable=False),
        sa.Column("marked_at", UtcDateTime(), nullable=False),
        sa.Column("cleaned", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("span", "start", name="pk_aiotrack_rollups_dirty"),
    )


def downgrade() -> None:
    """Drop both tables: rollups are made again from what is still there."""
    op.drop_table("aiotrack_rollups_dirty")
    op.drop_table("aiotrack_rollups")
