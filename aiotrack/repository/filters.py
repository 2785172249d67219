"""The filters of list and stats: read and checked once, then told in the words of a database."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

from sqlalchemy import ColumnElement, Interval, and_, bindparam, false, func, literal, or_

from aiotrack.clock import EPOCH, to_datetime, to_micros
from aiotrack.encode import encode_task_id
from aiotrack.errors import InvalidQuery
from aiotrack.model import TaskStatus, is_own
from aiotrack.repository.columns import UtcDateTime
from aiotrack.repository.containment import Unstorable, contains, read_json, storable
from aiotrack.repository.cursor import is_int
from aiotrack.repository.tables import ExecutionRow

MAX_VALUES: Final = 1000
"""Values of one filter; databases take some 32,000 parameters in a statement."""

MAX_TEXT: Final = 1000
"""Characters of ``text``; SQLite refuses patterns over 50,000."""

LONGEST: Final = timedelta(days=690_000)
"""A timedelta reaches as far as years have four digits."""

_TEXTS: Final = ("module", "task_name", "created_by", "worker", "error_class", "schedule_id")
_LOWEST: Final = to_micros(datetime.min.replace(tzinfo=UTC))
_HIGHEST: Final = to_micros(datetime.max.replace(tzinfo=UTC))

_FIRST_SURROGATE: Final = 0xD800
_AFTER_SURROGATES: Final = 0xE000

_table = ExecutionRow.__table__

Moment = int | timedelta
"""Microseconds, or a time ago."""


class Timeless(TypedDict, total=False):
    """The keywords by which executions are narrowed at any time; None is no filter.

    ``module``, ``task_name``, ``created_by``, ``worker``, ``error_class``, ``schedule_id`` and
    ``config_id`` match exactly, ``status`` takes any word that `TaskStatus.parse` knows; each takes
    one value or several. ``text`` is the beginning of a task_id or task_name, in its own case.
    ``metadata`` is containment, see ``containment``.
    """

    module: str | Iterable[str] | None
    task_name: str | Iterable[str] | None
    status: str | Iterable[str] | None
    created_by: str | int | Iterable[str | int] | None
    metadata: Mapping[str, Any] | None
    worker: str | Iterable[str] | None
    error_class: str | Iterable[str] | None
    config_id: int | Iterable[int] | None
    schedule_id: str | Iterable[str] | None
    text: str | None


class Narrowing(Timeless, total=False):
    """The keywords by which list and stats are narrowed: those of `Timeless`, and two times.

    ``since`` and ``until`` (both inclusive) are aware times of creation or a timedelta (= ago).
    """

    since: datetime | timedelta | None
    until: datetime | timedelta | None


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
        first, last = moment("since", since), moment("until", until)
        return cls(exact, first, last, wanted or {}, prefix, is_empty)

    @property
    def asks_for_own(self) -> bool:
        """Whether sweeps are counted, too: by module, or by what their names and ids begin with."""
        names = (*self.exact.get("task_name", ()), self.text or "")
        return "module" in self.exact or any(is_own(str(name)) for name in names)

    def digest(self) -> str:
        """Give a short text that differs when the filters do; the order of values is none."""
        values = [
            sorted(self.exact.items()),
            told(self.since),
            told(self.until),
            self.metadata,
            self.text,
            self.is_empty,
        ]
        written = json.dumps(values, sort_keys=True).encode()
        return hashlib.sha256(written).hexdigest()[:16]

    def conditions(
        self, dialect: str, keys: Collection[str] = (), *, without: str | None = None
    ) -> list[ColumnElement[bool]]:
        """Give what stands in WHERE, for ``postgresql`` or ``sqlite``.

        Args:
            dialect: Whose words to use.
            keys: Metadata keys that have an index.
            without: A filter that is left out: ``text``, or a column of `exact`.
        """
        if self.is_empty:
            return [false()]
        found = [_any_of(name, values) for name, values in self.exact.items() if name != without]
        if self.since is not None:
            found.append(_table.c.created_at >= time_of(self.since, dialect))
        if self.until is not None:
            found.append(_table.c.created_at <= time_of(self.until, dialect))
        if self.metadata:
            found.append(contains(_table.c.metadata, self.metadata, dialect, keys))
        if self.text and without != "text":
            sides = ("task_id", "task_name")
            found.append(or_(*(begins(name, self.text, dialect) for name in sides)))
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


def moment(name: str, value: object) -> Moment | None:
    """Read a time, or a time span as "so long ago"; what no calendar has becomes what it has.

    Raises:
        InvalidQuery: It is neither.
        InvalidValue: It has no offset.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        return max(-LONGEST, min(value, LONGEST))
    if not isinstance(value, datetime):
        raise InvalidQuery(f"{name} must be a datetime or timedelta, not {type(value).__name__}")
    return max(_LOWEST, min(to_micros(value, name), _HIGHEST))


def told(moment: Moment | None) -> object:
    """Give a moment as the digest of a cursor tells it."""
    return [str(moment)] if isinstance(moment, timedelta) else moment


def time_of(moment: Moment, dialect: str) -> ColumnElement[datetime]:
    """Give a moment on the database's clock."""
    if isinstance(moment, int):
        return literal(to_datetime(moment), UtcDateTime)
    if dialect == "sqlite":  # the file is on this host
        here = EPOCH + timedelta(microseconds=time.time_ns() // 1000)
        return literal(here - moment, UtcDateTime)
    ago: ColumnElement[datetime] = func.now() - bindparam(None, moment, type_=Interval(native=True))
    return ago


def _any_of(name: str, values: tuple[str, ...] | tuple[int, ...]) -> ColumnElement[bool]:
    """Say that a column has one of *values*."""
    column = _table.c[name]
    return column == values[0] if len(values) == 1 else column.in_(values)


def _prefix(text: object) -> str:
    if not isinstance(text, str):
        raise InvalidQuery(f"text must be text, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise InvalidQuery(f"text is longer than {MAX_TEXT} characters")
    return str.__str__(text)


def begins(name: str, prefix: str, dialect: str) -> ColumnElement[bool]:
    """Say how the text in a column begins, in its own case; as a range, which an index has.

    A LIKE with a parameter is no range where a plan is made once for all values.
    """
    column = _table.c[name]
    if name == "task_id":
        prefix = encode_task_id(prefix)
    elif not storable(prefix):
        return false()
    last = next_text(prefix)
    if dialect == "sqlite":
        found, end = column >= prefix, None if last is None else column < last
    else:  # by character, whatever the database's language; what their index is made for
        found = column.bool_op("~>=~")(prefix)
        end = None if last is None else column.bool_op("~<~")(last)
    return found if end is None else and_(found, end)


def next_text(prefix: str) -> str | None:
    """Give the first text after all that begin with *prefix*; None when there is no such text."""
    kept = prefix.rstrip(chr(sys.maxunicode))
    if not kept:
        return None
    code = ord(kept[-1]) + 1
    return kept[:-1] + chr(_AFTER_SURROGATES if code == _FIRST_SURROGATE else code)
