"""Runs aiotrack's migrations on the connection that the caller holds; the caller commits."""

from __future__ import annotations

from alembic import context

from aiotrack.repository.columns import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    dialect_name=context.config.attributes.get("dialect"),  # without connection: SQL is printed
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=False,
)
context.run_migrations()
