"""``metadata=``: does a stored JSON object contain another, the same on both databases.

A dict is contained when each of its keys is there with a value that contains the wanted one; a list
when each of its elements is contained in some stored element, in any order; anything else when it
is equal in type and value: 7 is not "7" and true is not 1, but 7 is 7.0. This is what ``@>`` means
in Postgres; for SQLite it is spelled out over ``json_each``. A whole number that is stored as its
stand-in, beyond 2**53, is looked for as that.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, case, func, select, true, type_coerce
from sqlalchemy.dialects.postgresql import JSONB

from aiotrack.encode import is_stored_int, stored_int
from aiotrack.errors import InvalidQuery
from aiotrack.repository.cursor import is_int
from aiotrack.repository.keyed import has_value, is_indexed, json_text

MAX_PARTS: Final = 100
"""Values in one filter: SQLite takes expressions up to a thousand levels deep."""

MAX_DEPTH: Final = 5
"""Levels: SQLite's parser has a stack of a hundred open brackets and words; the longest statement
of a list, with several values and a prefix, was measured to leave room for 6."""

_ABSENT: Final = "[]"
"""What is searched when a value is no container: a text would not be JSON."""


class Unstorable(ValueError):
    """A text that no database holds, so that nothing matches; never leaves the repository."""


def storable(text: str) -> bool:
    """Tell whether a database can hold *text*: no NUL, no lone surrogate."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text))


def read_json(value: object) -> dict[str, Any]:
    """Give a filter as plain JSON values; None is the empty one.

    Raises:
        InvalidQuery: It is no mapping, too large, or holds what JSON has no word for.
        Unstorable: Nothing can match.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidQuery(f"metadata must be a mapping, not {type(value).__name__}")
    reader = _Reader()
    return {key: reader.value(item, 1) for key, item in reader.items(value)}


class _Reader:
    """Counts the parts of one filter."""

    def __init__(self) -> None:
        self._parts = 0

    def value(self, value: object, depth: int) -> Any:
        self._parts += 1
        if depth > MAX_DEPTH or self._parts > MAX_PARTS:
            raise InvalidQuery(
                f"metadata has more than {MAX_PARTS} values or {MAX_DEPTH} levels: ask for less"
            )
        if isinstance(value, Mapping):
            return {key: self.value(item, depth + 1) for key, item in self.items(value)}
        if isinstance(value, (list, tuple)):
            return [self.value(item, depth + 1) for item in value]
        return _leaf(value)

    @staticmethod
    def items(value: Mapping[Any, Any]) -> list[tuple[str, Any]]:
        found = []
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidQuery(f"metadata has a key that is no text: {type(key).__name__}")
            found.append((_text(key), item))
        return found


def _leaf(value: object) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        if is_int(value):
            return stored_int(int(value))
        raise InvalidQuery("metadata has a whole number beyond 64 bits")
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise InvalidQuery(
        f"metadata has a {type(value).__name__}{' that is not finite' * isinstance(value, float)}: "
        "compare with text, numbers, booleans, None, lists and dicts, as they are stored"
    )


def _text(value: str) -> str:
    if not storable(value):
        raise Unstorable
    return str.__str__(value)


def contains(
    column: ColumnElement[Any],
    wanted: dict[str, Any],
    dialect: str,
    keys: Collection[str] = (),
) -> ColumnElement[bool]:
    """Give the condition that the JSON object in *column* contains *wanted*.

    Those of *keys* that are wanted with a simple value are asked for in the words of their index
    as well; see ``keyed``. The rest of the condition holds all the same: it is the exact one.
    """
    told = [
        has_value(key, part, dialect)
        for key, part in wanted.items()
        if key in keys and is_indexed(key, part, dialect)
    ]
    if dialect == "sqlite":
        return and_(*told, _within(column, wanted))
    exact: ColumnElement[bool] = type_coerce(column, JSONB).contains(wanted)
    if told:  # nearly all rows that have the key's value match; the planner would guess very few
        exact = func.coalesce(exact, False)
    return and_(*told, exact)


def _within(holder: ColumnElement[Any], wanted: dict[str, Any] | list[Any]) -> ColumnElement[bool]:
    """Ask for an entry of the JSON text *holder* for each part of *wanted*."""
    keyed: list[tuple[str | None, Any]] = (
        list(wanted.items()) if isinstance(wanted, dict) else [(None, part) for part in wanted]
    )
    found: list[ColumnElement[bool]] = [true()]
    for key, part in keyed:
        entry = func.json_each(holder).table_valued("key", "value", "type")
        named = true() if key is None else entry.c.key == key
        query = select(1).select_from(entry).where(named, _is(entry.c.type, entry.c.value, part))
        found.append(query.exists())
    return and_(*found)


def _is(kind: ColumnElement[Any], value: ColumnElement[Any], wanted: Any) -> ColumnElement[bool]:
    if wanted is None:
        return kind == "null"
    if isinstance(wanted, bool):
        return kind == ("true" if wanted else "false")
    if isinstance(wanted, str):
        return and_(kind == "text", value == wanted)
    if isinstance(wanted, (int, float)):
        return and_(kind.in_(("integer", "real")), value == wanted)
    if is_stored_int(wanted):  # as one value: a level more would be too deep for SQLite's parser
        return and_(kind == "object", value == json_text(wanted))
    name = "object" if isinstance(wanted, dict) else "array"
    inner = case((kind == name, value), else_=_ABSENT)
    return and_(kind == name, _within(inner, wanted))
