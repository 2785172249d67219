"""The filters of list and stats: read and checked once, then told in the words of a database."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

from sqlalchemy import ColumnElement, Interval, bindparam, false, func, literal, or_

from aiotrack.clock import EPOCH, to_datetime, to_micros
from aiotrack.encode import encode_task_id
from aiotrack.errors import InvalidQuery
from aiotrack.model import TaskStatus
from aiotrack.repository.containment import Unstorable, contains, read_json, storable
from aiotrack.repository.cursor import is_int
from aiotrack.repository.tables import ExecutionRow, UtcDateTime

MAX_VALUES: Final = 1000
"""Values of one filter; databases take some 32,000 parameters in a statement."""

MAX_TEXT: Final = 1000
"""Characters of ``text``; SQLite refuses patterns over 50,000."""

LONGEST: Final = timedelta(days=690_000)
"""A timedelta reaches as far as years have four digits."""

_TEXTS: Final = ("module", "task_name", "created_by", "worker", "error_class", "schedule_id")
_LOWEST: Final = to_micros(datetime.min.replace(tzinfo=UTC))
_HIGHEST: Final = to_micros(datetime.max.replace(tzinfo=UTC))

_table = ExecutionRow.__table__

Moment = int | timedelta
"""Microseconds, or a time ago."""


class Narrowing(TypedDict, total=False):
    """The keywords by which list and stats are narrowed; None is no filter.

    ``module``, ``task_name``, ``created_by``, ``worker``, ``error_class``, ``schedule_id`` and
    ``config_id`` match exactly, ``status`` takes any word that `TaskStatus.parse` knows; each takes
    one value or several. ``since`` and ``until`` (both inclusive) are aware times of creation or a
    timedelta (= ago). ``text`` is the beginning of a task_id or task_name, in its own case.
    ``metadata`` is containment, see ``containment``.
    """

    module: str | Iterable[str] | None
    task_name: str | Iterable[str] | None
    status: str | Iterable[str] | None
    created_by: str | int | Iterable[str | int] | None
    since: datetime | timedelta | None
    until: datetime | timedelta | None
    metadata: Mapping[str, Any] | None
    worker: str | Iterable[str] | None
    error_class: str | Iterable[str] | None
    config_id: int | Iterable[int] | None
    schedule_id: str | Iterable[str] | None
    text: str | None


@dataclass(frozen=True, slots=True)
class Filters:
    """Checked filters.

    ``exact`` holds the columns with their allowed values; ``is_empty`` says that a value can be in
    no database (NUL, a lone surrogate), so that nothing matches.
    """

    exact: dict[str, tuple[str, ...] | tuple[int, ...]]
    since: Moment | None
    until: Moment | None
    metadata: dict[str, Any]
    text: str | None
    is_empty: bool

    @classmethod
    def of(
        cls,
        *,
        status: object = None,
        config_id: object = None,
        since: object = None,
        until: object = None,
        metadata: object = None,
        text: object = None,
        **texts: object,
    ) -> Filters:
        """Check the keywords of `Narrowing`.

        Raises:
            InvalidQuery: A value of a wrong kind or size.
            InvalidStatus: A status that nobody knows.
            InvalidValue: A time without an offset.
            TypeError: There is no such filter.
        """
        exact: dict[str, tuple[str, ...] | tuple[int, ...]] = {}
        for name, value in texts.items():
            if name not in _TEXTS:
                raise TypeError(f"there is no filter {name!r}")
            if value is not None:
                exact[name] = _texts(name, value)
        if status is not None:
            words = [TaskStatus.parse(word) for word in _several("status", status)]
            exact["status"] = tuple(sorted({word.value for word in words}))
        if config_id is not None:
            exact["config_id"] = _numbers("config_id", config_id)
        try:
            wanted = read_json(metadata)
        except Unstorable:
            wanted = None
        prefix = None if text is None else _prefix(text)
        is_empty = wanted is None or not all(exact.values())
        first, last = _moment("since", since), _moment("until", until)
        return cls(exact, first, last, wanted or {}, prefix, is_empty)

    def digest(self) -> str:
        """Give a short text that differs when the filters do; the order of values is none."""
        told = [
            sorted(self.exact.items()),
            _told(self.since),
            _told(self.until),
            self.metadata,
            self.text,
        ]
        written = json.dumps(told, sort_keys=True).encode()
        return hashlib.sha256(written).hexdigest()[:16]

    def conditions(self, dialect: str) -> list[ColumnElement[bool]]:
        """Give what stands in WHERE, for ``postgresql`` or ``sqlite``."""
        if self.is_empty:
            return [false()]
        found = [_any_of(name, values) for name, values in self.exact.items()]
        if self.since is not None:
            found.append(_table.c.created_at >= _time(self.since, dialect))
        if self.until is not None:
            found.append(_table.c.created_at <= _time(self.until, dialect))
        if self.metadata:
            found.append(contains(_table.c.metadata, self.metadata, dialect))
        if self.text:
            found.append(_begins(self.text, dialect))
        return found


def _several(name: str, value: object) -> list[object]:
    """Give the values of a filter that takes one or several."""
    if isinstance(value, (str, int)) or not isinstance(value, Iterable):
        return [value]
    found = []
    for item in value:
        found.append(item)
        if len(found) > MAX_VALUES:
            raise InvalidQuery(f"{name} has more than {MAX_VALUES} values: ask in several queries")
    return found


def _texts(name: str, value: object) -> tuple[str, ...]:
    """Give the texts that a database can hold; others match nothing."""
    found = set()
    for item in _several(name, value):
        if name == "created_by" and isinstance(item, int) and not isinstance(item, bool):
            if not is_int(item):
                raise InvalidQuery("created_by is beyond 64 bits: pass it as text")
            found.add(int.__str__(item))
        elif isinstance(item, str):
            found.add(str.__str__(item))  # a plain one: drivers look at the type
        else:
            raise InvalidQuery(f"{name} must be text, not {type(item).__name__}")
    return tuple(sorted(filter(storable, found)))


def _numbers(name: str, value: object) -> tuple[int, ...]:
    found = set()
    for item in _several(name, value):
        if not is_int(item):
            raise InvalidQuery(f"{name} must be whole numbers of 64 bits, not {_short(item)}")
        found.add(int(item))
    return tuple(sorted(found))


def _short(value: object) -> str:
    """Name a value without writing out a number of a million digits."""
    return f"a number of {value.bit_length()} bits" if type(value) is int else type(value).__name__


def _moment(name: str, value: object) -> Moment | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        return max(-LONGEST, min(value, LONGEST))
    if not isinstance(value, datetime):
        raise InvalidQuery(f"{name} must be a datetime or timedelta, not {type(value).__name__}")
    return max(_LOWEST, min(to_micros(value, name), _HIGHEST))


def _told(moment: Moment | None) -> object:
    return [str(moment)] if isinstance(moment, timedelta) else moment


def _time(moment: Moment, dialect: str) -> ColumnElement[datetime]:
    """Give a moment on the database's clock."""
    if isinstance(moment, int):
        return literal(to_datetime(moment), UtcDateTime)
    if dialect == "sqlite":  # the file is on this host
        here = EPOCH + timedelta(microseconds=time.time_ns() // 1000)
        return literal(here - moment, UtcDateTime)
    ago: ColumnElement[datetime] = func.now() - bindparam(None, moment, type_=Interval(native=True))
    return ago


def _any_of(name: str, values: tuple[str, ...] | tuple[int, ...]) -> ColumnElement[bool]:
    column = _table.c[name]
    if name == "status":  # written out, for the partial index on unfinished ones
        words = bindparam(None, values, expanding=True, literal_execute=True, type_=column.type)
        return column.in_(words)
    return column == values[0] if len(values) == 1 else column.in_(values)


def _prefix(text: object) -> str:
    if not isinstance(text, str):
        raise InvalidQuery(f"text must be text, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise InvalidQuery(f"text is longer than {MAX_TEXT} characters")
    return str.__str__(text)


def _begins(text: str, dialect: str) -> ColumnElement[bool]:
    """Compare the beginning of both columns, in the text's own case on both databases."""
    sides = [(_table.c.task_id, encode_task_id(text))]
    if storable(text):
        sides.append((_table.c.task_name, text))
    if dialect == "sqlite":  # its LIKE knows no case and uses no index
        return or_(*(column.op("GLOB")(_glob(prefix)) for column, prefix in sides))
    return or_(*(column.like(_like(prefix), escape="!") for column, prefix in sides))


def _like(prefix: str) -> str:
    for letter in "!%_":
        prefix = prefix.replace(letter, f"!{letter}")
    return f"{prefix}%"


def _glob(prefix: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in prefix) + "*"
