"""What every table is made of: the types of columns, and the base of the models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator, TypeEngine

from aiotrack.clock import to_datetime, to_micros

VERSION_TABLE = "aiotrack_version"
HEAD = "0008"
"""The newest migration; a test holds it equal to the newest file."""


class JsonText(sqlite.JSON):
    """JSON in a TEXT column: SQLite takes the name JSON for a number, and 1.0 would become 1."""


@compiles(JsonText, "sqlite")
def _as_text(*_: object, **__: object) -> str:
    return "TEXT"


JSON = (
    sa.JSON(none_as_null=True)
    .with_variant(JSONB(none_as_null=True), "postgresql")
    .with_variant(JsonText(none_as_null=True), "sqlite")
)
BIG = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC: ``timestamptz`` on Postgres, whole microseconds on SQLite.

    SQLite has no type for times; integers keep order, exactness and offset where text loses one.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column's type."""
        kind: TypeEngine[Any] = (
            BigInteger() if dialect.name == "sqlite" else DateTime(timezone=True)
        )
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse times without an offset."""
        if value is None:
            return None
        micros = to_micros(value)
        return micros if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give an aware UTC time back."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            return to_datetime(int(value))
        moment: datetime = value
        return moment.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of aiotrack's models; its metadata holds only aiotrack's tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def index(
    *columns: str, name: str | None = None, where: str | None = None, ops: Any = None
) -> Index:
    """Describe an index; *ops* are PostgreSQL's operator classes."""
    condition = None if where is None else text(where)
    return Index(
        name,
        *columns,
        postgresql_where=condition,
        sqlite_where=condition,
        postgresql_ops=ops or {},
    )
