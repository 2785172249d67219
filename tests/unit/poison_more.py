"""More values that have broken encoders: slow patterns, greedy reprs, odd exceptions."""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import contextvars
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import itertools
import operator
import pathlib
import time
import weakref
from collections.abc import Callable
from typing import Any

import pydantic

MEGABYTE = 1 << 20
MANY = range(1_000_000)
_JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r "
_PAIRS = "".join(f"a{n}=b,{n}:c;" for n in range(2000))

SLOW: dict[str, str] = {
    "beginnings of JWTs": "eyJ" * 6000,
    "JWTs with dots": "eyJaaaa." * 2000,
    "JWTs": _JWT * 240,
    "schemes": "://" * 6000 + "@",
    "users without a password": "://u:" * 3600 + "@",
    "passwords without an end": "://" + "a" * 17_000 + ":@",
    "URLs with passwords": "http://u:p@h " * 1400,
    "bearers and spaces": "bearer    " * 1800,
    "bearers": "bearer abcdefgh " * 1100,
    "beginnings of PEM": "-----BEGIN " * 1600,
    "PEM without an end": "-----BEGIN PRIVATE KEY-----" + "-----END " * 1900,
    "PEM with long names": ("-----BEGIN " + "A " * 20) * 330,
    "AWS keys without an end": "AKIA" + "A" * 17_000,
    "AWS keys": "AKIA" * 4500,
    "names": ("a" * 127 + ".") * 140,
    "pairs": _PAIRS,
    "pairs with a secret": "pwd=a," * 3000,
    "quotes without an end": "pwd='" * 3400,
    "a quote of backslashes": 'pwd="' + "\\" * 17_000,
    "brackets": "pwd=[" * 3400,
    "cookies": "cookie=a" * 2200,
    "spaces": ("a" + " " * 5) * 2900,
    "pairs in other letters": "é=é," * 4500,
}
"""Text on which a pattern that looks for secrets may go back and forth."""


class Odd(enum.Enum):
    """An enum with a value that is not JSON."""

    LIST = [object()] * 900


class Computed(pydantic.BaseModel):
    """A model with a field that takes its time, and fails."""

    model_config = pydantic.ConfigDict(extra="allow")

    @pydantic.computed_field
    @property
    def slow(self) -> int:
        """Never asked for."""
        time.sleep(1)
        raise ValueError("slow")


class Sleepy:
    """Its repr waits for something."""

    def __repr__(self) -> str:
        time.sleep(0.001)
        return "<Sleepy>"


class Speaking(Exception):
    """An exception with a long text of its own."""

    def __str__(self) -> str:
        return _PAIRS


class Changing(list[Any]):
    """Grows while it is looked at."""

    def __iter__(self) -> Any:
        self.append(1)
        return super().__iter__()


class Exiting(dict[str, Any]):
    """Ends the process when it is asked for its items."""

    def items(self) -> Any:
        raise SystemExit(3)


@dataclasses.dataclass
class One:
    """A data class; `_wide` adds fields."""

    a: int = 0


@dataclasses.dataclass(slots=True)
class Slotted:
    """A data class with slots."""

    a: int
    b: int = 2


def _wide(count: int) -> object:
    fields = {}
    for n in range(count):
        field = copy.copy(One.__dataclass_fields__["a"])
        field.name = f"f{n}"
        fields[field.name] = field
    return type("Wide", (One,), {"__dataclass_fields__": fields})()


def _variable() -> object:
    many: Any = list(MANY)
    return contextvars.ContextVar("v", default=many)


def _queue() -> object:
    made: asyncio.Queue[int] = asyncio.Queue()
    for n in range(100_000):
        made.put_nowait(n)
    return made


def _weak_set() -> object:
    made = weakref.WeakSet(type(f"T{n}", (), {}) for n in range(500))
    made.kept = list(made)  # type: ignore[attr-defined]
    return made


def _of_many_bases() -> object:
    made: type = object
    for n in range(200):
        made = type(f"Base{n}", (made,), {})
    return [made() for _ in range(900)]


def _chain(make: Callable[[int], BaseException], frames: int = 0) -> BaseException:
    def down(level: int, error: BaseException) -> None:
        if level:
            down(level - 1, error)
        raise error

    previous: BaseException | None = None
    for n in range(10):
        made = make(n)
        made.__context__ = previous
        with contextlib.suppress(Exception):
            down(frames, made)
        previous = made
    return made


def _noted(note: str) -> BaseException:
    made = ValueError("noted")
    made.__notes__ = [note] * 1000
    return made


def _oddly_noted() -> BaseException:
    made: Any = ValueError("noted")
    made.__notes__ = Changing([1])
    return made


def _nested_error() -> BaseException:
    return functools.reduce(lambda made, _: ValueError(made), range(900), ValueError("x" * 8000))


def _refused() -> BaseException:
    try:
        pydantic.TypeAdapter(list[int]).validate_python(["hunter2"] * 100_000)
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


def _bomb() -> list[Any]:
    return [[()] * 900] * 900


MORE: dict[str, Callable[[], object]] = {
    **{f"slow: {name}": functools.partial(str, text) for name, text in SLOW.items()},
    "slow texts": lambda: [text[:16_000] for text in SLOW.values()] * 40,
    "slow texts, short": lambda: [text[:60] for text in SLOW.values()] * 40,
    "slow bytes": lambda: [text[:1000].encode() for text in SLOW.values()] * 40,
    "slow keys": lambda: {text[:400] + str(n): 1 for n in range(40) for text in SLOW.values()},
    "slow keys, bytes": lambda: {
        text[:400].encode() + bytes([n]): 1 for n in range(40) for text in SLOW.values()
    },
    # containers
    "20,000 keys": lambda: [{f"key {n} {m}": 1 for n in range(900)} for m in range(20)],
    "1 MB keys": lambda: {"k" * MEGABYTE + str(n): 1 for n in range(20)},
    "1 MB keys, not ASCII": lambda: {"é" * MEGABYTE + str(n): 1 for n in range(10)},
    "900 keys of 4,000 digits": lambda: {10**4000 + n: 1 for n in range(900)},
    "900 classes as keys": lambda: {type(f"T{n}", (), {}): 1 for n in range(900)},
    "20,000 NULs": lambda: [["\0"] * 900] * 20,
    "many surrogates": lambda: ["\udc80" * 5000] * 900,
    "1 MB texts": lambda: ["é" * (MEGABYTE - 9) + str(n) for n in range(20)],
    "set of long texts": lambda: {"k" * 20_000 + str(n) for n in range(900)},
    "many empty sets": lambda: [[set() for _ in range(900)] for _ in range(100)],
    "long ordered dict": lambda: collections.OrderedDict.fromkeys(MANY),
    "long counter": lambda: collections.Counter(range(100_000)),
    "long deque": lambda: collections.deque(MANY),
    "changing list": lambda: Changing([1]),
    "exiting dict": lambda: Exiting(password="hunter2"),
    "100,000 fields": lambda: _wide(100_000),
    "900 times 1,000 fields": lambda: [_wide(1000)] * 900,
    "slots, one not set": lambda: Slotted.__new__(Slotted),
    "slow computed field": lambda: Computed(a=1),
    "50,000 extra fields": lambda: Computed(**{f"x{n}": n for n in range(50_000)}),
    "an enum of objects": lambda: [[Odd.LIST] * 900] * 900,
    "sleepy reprs": lambda: [Sleepy() for _ in range(900)],
    # numbers
    "900 times 4,300 digits": lambda: [10**4299 + n for n in range(900)],
    "900 fractions": lambda: [fractions.Fraction(10**4000, 3)] * 900,
    "900 decimals": lambda: [decimal.Decimal("1" * 8000)] * 900,
    # objects whose repr writes out what they hold
    "partial of a million": lambda: functools.partial(print, list(MANY)),
    "repeat of a million": lambda: itertools.repeat(list(MANY)),
    "slice of a million": lambda: slice(list(MANY)),
    "getter of a million": lambda: operator.itemgetter(*MANY),
    "variable of a million": _variable,
    "queue": _queue,
    "weak set": _weak_set,
    "parsed arguments": lambda: argparse.Namespace(items=list(MANY), password="hunter2"),
    "a long alias": lambda: list[tuple(range(100_000))],  # type: ignore[misc]
    "200 bases": _of_many_bases,
    "900 dates": lambda: [[dt.datetime.now(dt.UTC)] * 900] * 10,
    "900 long paths": lambda: [pathlib.PurePosixPath("/" + "a" * 16_000)] * 900,
    # exceptions
    "chain of data": lambda: _chain(lambda _: ValueError(_bomb())),
    "chain of pairs": lambda: _chain(lambda _: ValueError(_PAIRS), frames=60),
    "chain of speakers": lambda: _chain(lambda _: Speaking()),
    "group of data": lambda: ExceptionGroup("g", [ValueError(_bomb()) for _ in range(100)]),
    "group of pairs": lambda: ExceptionGroup("g", [ValueError(_PAIRS) for _ in range(10_000)]),
    "notes of pairs": lambda: _noted(_PAIRS),
    "odd notes": _oddly_noted,
    "error with 50 MB of bytes": lambda: KeyError(bytearray(50 * MEGABYTE)),
    "error with a long file name": lambda: OSError(2, "no file", "f" * (50 * MEGABYTE)),
    "error with an error": lambda: ValueError(ValueError(list(MANY))),
    "900 errors in each other": _nested_error,
    "error of pydantic, 100,000 faults": _refused,
    "error with one of pydantic": lambda: ValueError("a", _refused()),
    "error with many arguments": lambda: ValueError(*["x" * 8000] * 10_000),
    "error with a long decimal": lambda: ValueError(decimal.Decimal("1" * 20_000_000)),
    "undecodable": lambda: UnicodeDecodeError("utf-8", b"\xff" * (50 * MEGABYTE), 0, 1, "bad"),
}
