"""Indexes for every filter and order of a list.

Holds a SHARE lock on the executions while each index is made, about 10 s for a million rows on
PostgreSQL: workers go on, and keep what they report until it is over.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE = "aiotrack_executions"
TASK_ID = f"uq_{TABLE}_task_id"
TASK_NAME = f"ix_{TABLE}_task_name_created_at_id"
UNFINISHED = sa.text("status IN ('PENDING', 'STARTED', 'RETRY')")

PREFIX = "text_pattern_ops"
"""Serves equality and prefixes in databases of any language."""

FILTERS = {
    "module": None,
    "status": None,
    "created_by": "created_by IS NOT NULL",
    "worker": "worker IS NOT NULL",
    "error_class": "error_class IS NOT NULL",
    "config_id": "config_id IS NOT NULL",
    "schedule_id": "schedule_id IS NOT NULL",
}
ORDERS = {
    "finished_at": "finished_at IS NOT NULL",
    "duration": "duration IS NOT NULL",
}
NULLS = "finished_at IS NULL OR duration IS NULL"


def _is_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"


def _create(name: str, columns: list[str], where: str | None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, TABLE, columns, postgresql_where=condition, sqlite_where=condition)


def upgrade() -> None:
    """Make the indexes, and let those on texts serve prefixes."""
    if _is_postgres():
        made = f"{TASK_ID}_new"
        op.create_index(made, TABLE, ["task_id"], unique=True, postgresql_ops={"task_id": PREFIX})
        op.drop_constraint(TASK_ID, TABLE, type_="unique")
        op.execute(f"ALTER INDEX {made} RENAME TO {TASK_ID}")
        op.drop_index(TASK_NAME, TABLE)
        columns = ["task_name", "created_at", "id"]
        op.create_index(TASK_NAME, TABLE, columns, postgresql_ops={"task_name": PREFIX})
    for name, where in FILTERS.items():
        _create(f"ix_{TABLE}_{name}_created_at_id", [name, "created_at", "id"], where)
    for name, where in ORDERS.items():
        _create(f"ix_{TABLE}_{name}_id", [name, "id"], where)
    _create(f"ix_{TABLE}_nulls", ["id"], NULLS)
    op.drop_index(f"ix_{TABLE}_unfinished", TABLE)


def downgrade() -> None:
    """Go back to the indexes of 0001."""
    op.create_index(
        f"ix_{TABLE}_unfinished",
        TABLE,
        ["created_at"],
        postgresql_where=UNFINISHED,
        sqlite_where=UNFINISHED,
    )
    op.drop_index(f"ix_{TABLE}_nulls", TABLE)
    for name in ORDERS:
        op.drop_index(f"ix_{TABLE}_{name}_id", TABLE)
    for name in FILTERS:
        op.drop_index(f"ix_{TABLE}_{name}_created_at_id", TABLE)
    if _is_postgres():
        op.drop_index(TASK_ID, TABLE)
        op.create_unique_constraint(TASK_ID, TABLE, ["task_id"])
        op.drop_index(TASK_NAME, TABLE)
        op.create_index(TASK_NAME, TABLE, ["task_name", "created_at", "id"])
