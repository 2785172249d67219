"""Rollups count time-outs and lost executions, too.

Adds two columns to the rollups, a small table; on SQLite it is made anew. What is rolled up and has
failures is marked: the next sweep counts it again, and until then it is counted live. Days whose
rows were cleaned before this cannot be counted again: they tell of no time-outs and none lost.

The columns have no default: a worker of an older release that still runs cannot roll up without
knowing them, and its sweep does nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from aiotrack.repository.columns import BIG, UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLE = "aiotrack_rollups"
OLD = f"{TABLE}_old"
ADDED = ("timed_out", "lost")
KEPT = (
    *("span", "level", "start", "module", "task_name", "success", "failure", "revoked", "skipped"),
    *("duration_count", "duration_sum", "wait_count", "wait_sum", "durations", "waits"),
)

MARK = f"""
INSERT INTO aiotrack_rollups_dirty (span, start, marked_at, cleaned)
SELECT DISTINCT span, start, start, false FROM {TABLE} WHERE level = 1 AND failure > 0
ON CONFLICT (span, start) DO NOTHING
"""
"""As old as the period, so that the next sweep takes them; level 1 knows every module."""


def upgrade() -> None:
    """Add the columns, and mark what they are not known of."""
    if op.get_context().dialect.name == "sqlite":
        _make_anew()
    else:
        for name in ADDED:
            op.add_column(TABLE, sa.Column(name, BIG, nullable=False, server_default="0"))
            op.alter_column(TABLE, name, server_default=None)
    op.execute(MARK)


def _make_anew() -> None:
    """SQLite can neither add a column that has no default nor take the default away."""
    op.rename_table(TABLE, OLD)
    op.create_table(
        TABLE,
        sa.Column("span", sa.String(4), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("start", UtcDateTime(), nullable=False),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("task_name", sa.Text(), nullable=False),
        *(sa.Column(name, BIG, nullable=False) for name in KEPT[5:9]),
        *(sa.Column(name, BIG, nullable=False) for name in ADDED),
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
    names = ", ".join(KEPT)
    op.execute(f"INSERT INTO {TABLE} ({names}, {', '.join(ADDED)}) SELECT {names}, 0, 0 FROM {OLD}")
    op.drop_table(OLD)


def downgrade() -> None:
    """Forget both counts."""
    for name in ADDED:
        op.drop_column(TABLE, name)
