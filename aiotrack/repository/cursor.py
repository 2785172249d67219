"""Where a page ends: the order of a list, and the opaque text that continues it."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard

from aiotrack.clock import to_datetime
from aiotrack.errors import InvalidQuery

COLUMNS = ("created_at", "finished_at", "duration")
"""What a list can be ordered by; the first is never NULL, the others are until the end."""

INT64 = 2**63
"""Whole numbers of both databases lie between -INT64 and INT64 - 1."""

_MAX_LENGTH = 1000
"""Characters; ours have about a hundred."""


def is_int(value: object) -> TypeGuard[int]:
    """Tell whether *value* is a whole number that the databases can hold; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool) and -INT64 <= value < INT64


@dataclass(frozen=True, slots=True)
class Order:
    """A column and a direction; ties go by id in the same direction, NULL comes last in both."""

    column: str
    descending: bool

    @classmethod
    def parse(cls, text: object) -> Order:
        """Read ``created_at`` (ascending) or ``-created_at`` (descending).

        Raises:
            InvalidQuery: There is no such order; the message names those that there are.
        """
        column = text.removeprefix("-").removeprefix("+") if isinstance(text, str) else ""
        if column not in COLUMNS or text not in {column, f"+{column}", f"-{column}"}:
            known = ", ".join(f"{column}, -{column}" for column in COLUMNS)
            raise InvalidQuery(f"unknown order {text!r}: use one of {known}")
        return cls(column, text == f"-{column}")

    @property
    def is_nullable(self) -> bool:
        """Whether some rows have no value in the column."""
        return self.column != "created_at"

    def __str__(self) -> str:
        return f"-{self.column}" if self.descending else self.column


@dataclass(frozen=True, slots=True)
class Position:
    """The last row of a page: its value (times as microseconds, NULL as None) and its id."""

    value: float | None
    id: int


def write_cursor(position: Position, order: Order, digest: str) -> str:
    """Give the text that continues after *position*; *digest* tells the filters."""
    return encode([str(order), digest, position.value, position.id])


def read_cursor(text: object, order: Order, digest: str) -> Position:
    """Read a cursor back.

    Raises:
        InvalidQuery: It is none of ours, or continues a list with another order or other filters.
    """
    told = decode(text)
    if told[0] != str(order):
        raise InvalidQuery(
            f"this cursor continues a list with order={told[0]!r}, not {str(order)!r}: "
            "keep the order from page to page, or leave 'after' out to begin anew"
        )
    if told[1] != digest:
        raise InvalidQuery(
            "this cursor continues a list with other filters: "
            "keep them from page to page, or leave 'after' out to begin anew"
        )
    value, row_id = told[2:]
    if not is_int(row_id) or not _fits(value, order):
        raise not_ours()
    return Position(value, row_id)


def encode(told: list[Any]) -> str:
    """Give four values as the opaque text of a cursor."""
    text = json.dumps(told, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(text: object) -> list[Any]:
    """Read the four values of a cursor.

    Raises:
        InvalidQuery: It is none.
    """
    if not isinstance(text, str) or len(text) > _MAX_LENGTH:
        raise not_ours()
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        told = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise not_ours() from None
    if not isinstance(told, list) or len(told) != 4:
        raise not_ours()
    return told


def _fits(value: object, order: Order) -> bool:
    if value is None:
        return order.is_nullable
    if order.column == "duration":
        return isinstance(value, float)
    return moment_of(value) is not None


def moment_of(micros: object) -> datetime | None:
    """Give the time that a cursor tells; None when it is none that a calendar has."""
    try:
        return to_datetime(micros) if is_int(micros) else None
    except OverflowError:
        return None


def not_ours() -> InvalidQuery:
    """Say that a text is no cursor."""
    return InvalidQuery(
        "'after' is no cursor: pass Page.next as it is, or leave it out to begin anew"
    )
