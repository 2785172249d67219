"""The paper that a value is written on: counts bytes and time, and writes scalars."""

from __future__ import annotations

import dataclasses
import json.encoder
from collections.abc import Callable
from json.encoder import encode_basestring as quote
from pathlib import PurePath
from time import perf_counter, thread_time
from typing import Any, Final, TypeVar

from aiotrack.encode import leaves
from aiotrack.encode.faults import is_refusal, refusal
from aiotrack.encode.redact import (
    MARGIN,
    REDACTED,
    Redactor,
    clean,
    head,
    hints,
    mask,
    size,
    without_half,
)

# Steps of 0.5 to 1 µs that a value gets for each second, whatever the clock says: a slow machine
# and a collector's pause must not cut what is ordinary.
_SURE = 900_000
_STEPS = 64  # further ones between two looks at the clock, which cost as much
_ASLEEP = 8
"""A second in which foreign code sleeps counts an eighth: on a busy machine all code seems to."""

_PREVIEW_BYTES = 2048

T = TypeVar("T")


def _plain_writer() -> Callable[[object], str]:
    """Return the C encoder itself; `json.dumps` makes a new one for every call, for 1.5 µs."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # PyPy
        return json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
        ).encode
    encode = make(None, _refuse, quote, None, ":", ",", False, False, False)
    join = "".join
    return lambda value: join(encode(value, 0))


def _refuse(value: object) -> object:
    raise TypeError(type(value))


write: Final = _plain_writer()
"""JSON of a value of plain types without cycles."""
REDACTED_JSON: Final = write(REDACTED)
CYCLE_JSON: Final = write({"$ref": "cycle"})
DEPTH_JSON: Final = write({"$truncated": "depth"})


class Full(Exception):
    """The value is over its limit."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a value may have: bytes in all, levels, items per container, bytes per string."""

    value_bytes: int
    depth: int
    items: int
    text_bytes: int


class Sheet:
    """JSON text as far as it is written, and what is left of its budget.

    Methods that write raise `Full` when no bytes are left.

    Args:
        limits: Sizes.
        redactor: Masks text.
        seconds: CPU time of this thread, after which a value gets no more than the steps that are
            sure; foreign code that sleeps uses it up, too.
    """

    __slots__ = (
        "done",
        "end",
        "exact",
        "foreign",
        "hash",
        "is_over",
        "left",
        "limits",
        "out",
        "redactor",
        "steps",
        "total",
    )

    def __init__(self, limits: Limits, redactor: Redactor, seconds: float) -> None:
        self.limits = limits
        self.redactor = redactor
        self.out: list[str] = []
        self.left = limits.value_bytes
        self.end = thread_time() + seconds
        self.foreign = seconds
        self.steps = int(_SURE * seconds)
        self.is_over = False
        self.hash = leaves.HASH_BYTES
        self.exact = True
        self.done = self.total = 0  # items of the outermost container

    def is_spent(self) -> bool:
        """Tell whether there is no time for more; then containers end where they are."""
        if self.steps < 0 and not self.is_over:
            self.is_over = thread_time() > self.end
            self.steps = _STEPS
        return self.is_over

    def ask(self, foreign: Callable[[Any], T], value: object) -> T:
        """Call what may take any time, and be over when it did."""
        begun, busy = perf_counter(), thread_time()
        self.steps -= 4
        try:
            return foreign(value)
        finally:
            used = thread_time() - busy
            self.foreign -= used + (perf_counter() - begun - used) / _ASLEEP
            self.is_over = self.is_over or self.foreign < 0

    def words(self, value: object) -> str:
        """Return the repr of a value, of pydantic's refusals what does not quote."""
        return refusal(value, self.redactor.is_secret) if is_refusal(value) else repr(value)

    def truncated(self) -> str:
        """Return the marker of a value over its limit, with its beginning."""
        text = "".join(self.out)
        total = size(text)
        if 0 < self.done < self.total:
            total = total * self.total // self.done
        limit = self.limits.value_bytes
        room = min(_PREVIEW_BYTES, limit // 2)
        while room > 8:
            told = write({"$truncated": True, "bytes": total, "preview": head(text, room)})
            if size(told) <= limit:
                return told
            room //= 2
        return write({"$truncated": True, "bytes": total})

    def emit(self, text: str) -> None:
        """Write JSON text."""
        self.left -= len(text) if text.isascii() else size(text)
        if self.left < 0:
            self.out.append(text[:_PREVIEW_BYTES])
            raise Full
        self.out.append(text)

    def tell(self, stand_in: str | dict[str, object]) -> None:
        """Write a stand-in: from here on the JSON is not all that the value is."""
        self.exact = False
        self.emit(write(stand_in))

    def _tell_all(self, stand_in: dict[str, object], *, is_all: bool) -> None:
        """Write a stand-in that `revive` may read back."""
        self.exact = self.exact and is_all
        self.emit(write(stand_in))

    def mark(self, text: str) -> None:
        """Write a stand-in that is JSON text already."""
        self.exact = False
        self.emit(text)

    def text(self, value: str, _depth: int) -> None:
        """Write a str: masked, cleaned, and cut when it is over its own limit."""
        limit = self.limits.text_bytes
        length = len(value)
        if length * 4 > limit and (length > limit or size(value) > limit):
            self._long_text(value)
            return
        self.steps -= length >> 9
        safe = value
        if hints(value):
            self.steps -= 4 + (length >> 4)
            safe = mask(value)
        if "=" in safe or ":" in safe or "-" in safe:
            self.steps -= 4 + (length >> 3)
            safe = self.redactor.pairs(safe)
        if "\0" in safe or not safe.isascii():
            safe = clean(safe)
        if safe is not value and safe != value:
            self.exact = False
        self.emit(quote(safe))

    def _long_text(self, value: str) -> None:
        limit = self.limits.text_bytes
        window = value[: limit + MARGIN]
        self.steps -= 100 + (len(window) >> 3)
        safe = clean(self.redactor.pairs(mask(window)))
        if len(window) < len(value):
            safe = without_half(safe)
        told = leaves.long_text(value, head(safe, limit), self.hash)
        if "sha256" in told:
            self.hash -= size(value)
        self.tell(told)

    def string(self, value: str, depth: int) -> None:
        """Write a str that stands for something else."""
        self.exact = False
        self.text(str.__str__(value), depth)

    def integer(self, value: int, _depth: int) -> None:
        """Write an int, or its digits as text beyond ±2**53."""
        number = int.__int__(value)
        self.exact = self.exact and number is value
        if -leaves.SAFE_INT <= number <= leaves.SAFE_INT:
            self.emit(int.__repr__(number))
        else:
            self.steps -= 2 + (min(int.bit_length(number), 16_384) >> 6)
            told = leaves.big_int(number)
            self._tell_all(told, is_all=number is value and "$truncated" not in told)

    def real(self, value: float, _depth: int) -> None:
        """Write a float, or its name when it is no number."""
        number = float.__float__(value)
        self.exact = self.exact and number is value
        if -leaves.SAFE_FLOAT < number < leaves.SAFE_FLOAT:
            self.emit(float.__repr__(number))
        elif number - number == 0:
            self.steps -= 2
            # PostgreSQL writes 1e+23 as an integer, which is another number; with ".0" it is kept.
            self.emit(f"{number:.1f}")
        else:
            self._tell_all({leaves.FLOAT: leaves.float_name(number)}, is_all=number is value)

    def constant(self, value: object, _depth: int) -> None:
        """Write None or a bool."""
        self.emit("null" if value is None else "true" if value is True else "false")

    def leaf(self, value: object, depth: int) -> None:
        """Write a date, a UUID and their like."""
        kind = type(value)
        base = kind if kind in leaves.LEAVES else leaves.base_of(kind, leaves.LEAVES)
        told = leaves.LEAVES[base](value)
        self.steps -= 1 + (len(told) >> 5)
        if type(told) is not str:
            self.tell(told)
        elif base is PurePath:
            self.string(told, depth)
        else:  # digits and the like
            self.exact = False
            self.emit(f'"{told}"')

    def blob(self, value: object, _depth: int) -> None:
        """Write bytes."""
        self.steps -= 12
        told = leaves.blob(value, self.hash, self.redactor.pairs)
        length = told[leaves.BYTES]
        if type(length) is int:
            self.steps -= min(length, 1024) >> 3
            if "sha256" in told:
                self.hash -= length
        self._tell_all(told, is_all=type(value) is bytes and "base64" in told)
