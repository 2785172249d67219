"""What attempts logged.

Creates a table: no lock on anything that exists.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from aiotrack.repository.columns import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; its key serves every read, and the deletes by task_id."""
    op.create_table(
        "aiotrack_logs",
        sa.Column("task_id", sa.String(255), nullable=False),
        sa.Column("began_at", UtcDateTime(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("level_number", sa.Integer(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("logger", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "began_at", "run_id", "seq", name="pk_aiotrack_logs"),
    )


def downgrade() -> None:
    """Drop the table with all that it holds."""
    op.drop_table("aiotrack_logs")
