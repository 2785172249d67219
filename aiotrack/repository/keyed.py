"""An index for each metadata key that is searched by: its words, and how it is made.

On PostgreSQL it holds a hash of the value, of fixed size: a value of 64 KiB would be refused by an
index of values, and its record with it. Equal numbers have equal hashes, 7 and 7.0 too. On SQLite
it holds the value. Rows without the key are in no index.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, func, literal_column, type_coerce
from sqlalchemy.dialects.postgresql import JSONB

from aiotrack.encode import is_stored_int
from aiotrack.repository.statements import EXECUTIONS

_PLAIN_KEY: Final = re.compile(r'[^\x00-\x1f"\\\x7f-\U0010ffff]+')
"""Keys that stand in JSON as they are, and in SQLite's paths: others are found without an index."""


def is_indexable(key: str, dialect: str) -> bool:
    """Tell whether *key* can have an index."""
    return dialect != "sqlite" or _PLAIN_KEY.fullmatch(key) is not None


def is_indexed(key: str, value: Any, dialect: str) -> bool:
    """Tell whether the index of *key* finds *value*: texts, numbers and booleans are found.

    A list or dict is contained in others that are not equal, and None has no value on SQLite.
    The stand-in of a large number is a value like any other.
    """
    is_plain = not isinstance(value, (dict, list)) or is_stored_int(value)
    return value is not None and is_plain and is_indexable(key, dialect)


def has_value(key: str, value: Any, dialect: str) -> ColumnElement[bool]:
    """Give a condition that holds where *key* has *value*, in the words of the index.

    It may hold elsewhere, too: hashes may be equal by chance, and SQLite takes true for 1.
    """
    found: ColumnElement[Any] = literal_column(_expression(key, dialect, f"{EXECUTIONS}."))
    if dialect == "sqlite":
        told = json_text(value) if isinstance(value, dict) else value
        return and_(found.is_not(None), found == told)
    return found == func.jsonb_hash(type_coerce(value, JSONB))


def json_text(value: Any) -> str:
    """Give the text that SQLite makes of an object that it takes out of another."""
    return json.dumps(value, separators=(",", ":"))


def _expression(key: str, dialect: str, table: str = "") -> str:
    if dialect == "sqlite":
        path = _quoted(f'$."{key}"')
        return f"json_extract({table}metadata, {path})"
    return f"jsonb_hash({table}metadata -> {_quoted(key)})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def index_name(key: str) -> str:
    """Name the index of *key*: readable, and unlike that of any other key."""
    word = re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_")[:28]
    return f"ix_aiotrack_metadata_{word}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def create_index(key: str, dialect: str, *, concurrently: bool = False) -> str:
    """Give the statement that makes the index of *key* unless it is there."""
    how = "CONCURRENTLY " * concurrently
    value = _expression(key, dialect)
    present = value if dialect == "sqlite" else f"(metadata -> {_quoted(key)})"
    return (
        f'CREATE INDEX {how}IF NOT EXISTS "{index_name(key)}" ON {EXECUTIONS} '
        f"(({value}), created_at, id) WHERE {present} IS NOT NULL"
    )
