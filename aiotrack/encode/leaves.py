"""Stand-ins for what JSON has no word for, and what can be asked of an object without running it.

Everything goes by the real type and by the methods of the builtin base class: neither ``__class__``
nor what a subclass overrides is consulted.
"""

from __future__ import annotations

import array
import base64
import codecs
import collections
import contextvars
import dataclasses
import enum
import functools
import hashlib
import itertools
import math
import operator
import re
import types
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from aiotrack.encode.redact import mask, size, type_name

INT, FLOAT, BYTES = "$int", "$float", "$bytes"
STAND_INS: Final = frozenset({INT, FLOAT, BYTES})
"""Keys of those stand-ins that `revive` reads back."""
STAND_IN: Final = re.compile(r'"\$(?:int|float|bytes)"')
SCALARS: Final = frozenset({str, int, float, bool, type(None)})
SAFE_INT: Final = 2**53  # beyond it a JavaScript reader sees another number
SAFE_FLOAT: Final = 1e16  # from here repr() has an exponent, and jsonb makes an integer of it
HASH_BYTES: Final = 1 << 20  # hashed per value, about 1 ms
MISSING: Final = object()

_INT_DIGITS = 4300  # what Python reads
_INT_BITS = 14_285  # that many digits, or one more
_DECIMAL_BYTES = 4096  # of memory: about 8,000 digits
_BYTES_WHOLE = 1024
_BYTES_PREFIX = 32
_KEY_LENGTH = 4096
_KEY_PARTS = 8

# Their repr computes, queries a database or copies from a GPU.
# Of the lazy ones even an attribute may be a query.
_LAZY: Final = frozenset(
    {"dask", "django", "mongoengine", "peewee", "pyspark", "sqlalchemy", "tortoise"}
)
_ARRAYS: Final = frozenset(
    {"jax", "jaxlib", "numpy", "pandas", "polars", "pyarrow", "scipy", "tensorflow", "torch"}
    | {"xarray"}
)
_SILENT: Final = _LAZY | _ARRAYS
# Their repr writes out all that they hold.
_BULK: Final = frozenset(
    {
        array.array,
        collections.ChainMap,
        collections.UserDict,
        collections.UserList,
        collections.UserString,
        types.MappingProxyType,
        type({}.keys()),
        type({}.values()),
        type({}.items()),
        weakref.WeakSet,
    }
)
# So does theirs, and they have no length.
_HOLDERS: Final = frozenset(
    {
        contextvars.ContextVar,
        contextvars.Token,
        functools.partial,
        functools.partialmethod,
        itertools.repeat,
        operator.attrgetter,
        operator.itemgetter,
        operator.methodcaller,
        slice,
        types.GenericAlias,
    }
)
_HOLDERS_BY_NAME: Final = frozenset(
    {
        ("argparse", "_AttributeHolder"),
        ("asyncio.queues", "Queue"),
        ("inspect", "BoundArguments"),
        ("logging", "LogRecord"),
    }
)

name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_namespace_of: Callable[[type], types.MappingProxyType[str, object]] = type.__dict__[
    "__dict__"
].__get__


def base_of(kind: type, known: Iterable[type]) -> type:
    """Return the nearest base class of *kind* among *known*; ``object`` if there is none."""
    return next((base for base in mro_of(kind) if base in known), object)


def definer(kind: type, name: str) -> type:
    """Return the class of *kind* or among its bases that defines *name*; ``object`` if none."""
    return next((base for base in mro_of(kind) if name in _namespace_of(base)), object)


def own(kind: type, name: str) -> object:
    """Return what the classes of *kind* define as *name*, descriptors not run, or `MISSING`."""
    for base in mro_of(kind):
        found = _namespace_of(base).get(name, MISSING)
        if found is not MISSING:
            return found
    return MISSING


def attribute(value: object, name: str) -> object:
    """Return an attribute by the plain way, or `MISSING`; a descriptor may still run."""
    try:
        return object.__getattribute__(value, name)
    except BaseException:  # a descriptor is foreign code
        return MISSING


def packages(kind: type) -> frozenset[str]:
    """Return the top-level packages that *kind* and its bases come from."""
    modules = [_namespace_of(base).get("__module__") for base in mro_of(kind)]
    return frozenset(name.partition(".")[0] for name in modules if type(name) is str)


def is_silent(kind: type) -> bool:
    """Tell whether objects of *kind* are better not asked for their repr."""
    teller = definer(kind, "__repr__")
    if teller in _BULK or teller in _HOLDERS:
        return True
    home = _namespace_of(teller).get("__module__")
    if type(home) is str and (home, name_of(teller)) in _HOLDERS_BY_NAME:
        return True
    return not _SILENT.isdisjoint(packages(kind))


def is_short(values: Sequence[object]) -> bool:
    """Tell whether the repr of *values* is short and calls no foreign code."""
    return len(values) <= _KEY_PARTS and all(
        type(value) in SCALARS and (type(value) is not str or len(value) <= _KEY_LENGTH)
        for value in values
    )


def outline(value: Any) -> dict[str, object]:
    """Return the type of an object that is not asked for its repr, and its shape or length."""
    kind = type(value)
    told: dict[str, object] = {"$type": type_name(kind)}
    homes = packages(kind)
    if not homes.isdisjoint(_SILENT) and homes.isdisjoint(_LAZY):
        shape = getattr(value, "shape", None)
        if type(shape) is tuple and is_short(shape):
            told["shape"] = [part for part in shape if type(part) is int]
    elif definer(kind, "__repr__") in _BULK:
        told["len"] = len(value)
    return told


def big_int(value: int) -> dict[str, object]:
    """Return the stand-in of an integer that readers of JSON would round, or not read at all."""
    bits = value.bit_length()
    if bits <= _INT_BITS:
        digits = _digits(value)
        if 0 < len(digits) <= _INT_DIGITS + (value < 0):
            return {INT: digits}
    # str() of it takes quadratic time, or raises: its first digits come from its highest bits.
    top = abs(value >> (bits - 64)) if value > 0 else -(value >> (bits - 64))
    power = math.log10(top) + (bits - 64) * math.log10(2)
    sign = "-" if value < 0 else ""
    about = f"{sign}{10 ** (power % 1):.5f}e+{int(power)}"
    return {INT: about, "$truncated": True, "digits": int(power) + 1}


def stored_int(value: int) -> int | dict[str, object]:
    """Return what the JSON of an integer says: itself, or its stand-in."""
    return value if -SAFE_INT <= value <= SAFE_INT else big_int(value)


def is_stored_int(value: object) -> bool:
    """Tell whether a JSON value is the whole stand-in of an integer."""
    if not isinstance(value, dict) or value.keys() != {INT}:
        return False
    digits = value[INT]
    return isinstance(digits, str) and digits.isascii() and digits.removeprefix("-").isdecimal()


def _digits(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # over sys.get_int_max_str_digits()
        return ""


def float_name(value: float) -> str:
    """Return the name of a float that is no number for JSON."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def blob(value: Any, hashed: int, pairs: Callable[[str], str]) -> dict[str, object]:
    """Return the stand-in of bytes: whole up to 1 KiB, else beginning and SHA-256.

    Args:
        value: bytes, bytearray or memoryview, or of a subclass.
        hashed: How many bytes may be hashed.
        pairs: Masks what follows secret names in a text.
    """
    base = base_of(type(value), (bytes, bytearray, memoryview))
    if base is memoryview:
        length = value.nbytes
        part = value if length <= max(hashed, _BYTES_WHOLE) else _beginning(value)
        data = part.tobytes()
    else:
        slots: Any = base
        length = slots.__len__(value)
        keep = length if length <= hashed else _BYTES_WHOLE
        data = bytes(slots.__getitem__(value, slice(0, keep)))
    told: dict[str, object] = {BYTES: length}
    shown = data[:_BYTES_WHOLE]
    try:
        text, _ = codecs.utf_8_decode(shown)  # the end may be half a character
        safe = pairs(mask(text))
    except UnicodeDecodeError:  # no text, but a token may stand in it
        text = shown.decode("latin-1")
        safe = mask(text)
    if safe != text:
        return told | {"$redacted": True}
    if length <= _BYTES_WHOLE:
        return told | {"base64": base64.b64encode(data).decode()}
    if length <= hashed and length == len(data):
        told["sha256"] = hashlib.sha256(data).hexdigest()
    return told | {"prefix": base64.b64encode(data[:_BYTES_PREFIX]).decode()}


def _beginning(view: memoryview) -> memoryview:
    return view[:_BYTES_WHOLE] if view.ndim == 1 else view.cast("B")[:_BYTES_WHOLE]


def long_text(value: str, start: str, hashed: int) -> dict[str, object]:
    """Return the stand-in of a string over its limit.

    Args:
        value: The string.
        start: Its beginning, safe to keep.
        hashed: How many bytes may be hashed.
    """
    known = value.isascii() or len(value) <= HASH_BYTES >> 2
    sample = value[:4096]
    # The size of a long text that is not ASCII costs its encoding: told from its beginning.
    total = size(value) if known else len(value) * size(sample) // len(sample)
    told: dict[str, object] = {"$text": start, "$truncated": True, "bytes": total}
    if known and total <= hashed:
        told["sha256"] = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return told


def ordered(values: Any, length: int, limit: int) -> Iterable[object]:
    """Return the items of a set, sorted (text by its beginning) when they are of one type."""
    if not 0 < length <= limit:
        whole: Iterable[object] = values
        return whole
    items = list(values)
    kinds = set(map(type, items))
    if len(kinds) == 1 and not kinds.isdisjoint({str, bytes}):
        return sorted(items, key=operator.itemgetter(slice(64)))  # long ones take long to compare
    alike = len(kinds) == 1 and not kinds.isdisjoint({int, float, date, datetime})
    return sorted(items) if alike else items


def namedtuple_fields(kind: type) -> tuple[str, ...]:
    """Return the names of the items of a namedtuple; nothing for other tuples."""
    names = own(kind, "_fields")
    if type(names) is tuple and all(type(name) is str for name in names):
        return names
    return ()


def model_fields(value: object) -> dict[object, object]:
    """Return the fields of a pydantic model (1 or 2) with extras, without excluded ones."""
    found: dict[object, object] = dict(object.__getattribute__(value, "__dict__"))
    extra = attribute(value, "__pydantic_extra__")
    if type(extra) is dict:
        found |= extra
    declared = own(type(value), "__pydantic_fields__")
    for name, info in declared.items() if type(declared) is dict else ():
        if getattr(info, "exclude", None) is True:
            found.pop(name, None)
    return found


def stored_fields(value: Any) -> tuple[list[tuple[object, object]], int] | None:
    """Return the fields of a dataclass instance, or None when not all lie in its dictionary."""
    declared: Any = own(type(value), "__dataclass_fields__")
    found = attribute(value, "__dict__")
    if type(found) is not dict or not declared.keys() <= found.keys():
        return None
    return [(name, found[name]) for name in declared], len(declared)


def asked_fields(value: Any, limit: int) -> tuple[list[tuple[object, object]], int]:
    """Return the first *limit* fields of a dataclass instance that have a value, and how many.

    Of so many fields that looking through them takes long, class variables count, too.
    """
    declared: Any = own(type(value), "__dataclass_fields__")
    few = len(declared) <= limit
    fields = dataclasses.fields(type(value)) if few else islice(declared.values(), limit)
    named = [(field.name, attribute(value, field.name)) for field in fields]
    found = [(name, item) for name, item in named if item is not MISSING]
    return found, len(found) if few else len(declared)


def key_text(key: Any) -> str | None:
    """Return the text of a dictionary's key, or None when only its repr could tell."""
    kind = type(key)
    if base_of(kind, (enum.Enum,)) is enum.Enum:
        return key_text(object.__getattribute__(key, "_value_"))
    base = base_of(kind, (str, bytes))
    if base is str:
        return str.__str__(key)
    if base is bytes:
        return bytes.__getitem__(key, slice(0, _KEY_LENGTH)).decode("utf-8", "replace")
    if kind in SCALARS or (kind is tuple and is_short(key)):
        return repr(key)
    leaf = base_of(kind, LEAVES)
    told = None if leaf is object else LEAVES[leaf](key)
    return told if type(told) is str else None


def _decimal(value: Decimal) -> str | dict[str, object]:
    if Decimal.__sizeof__(value) > _DECIMAL_BYTES:
        return {"$type": "decimal.Decimal", "$truncated": True}
    return Decimal.__str__(value)


def _timedelta(value: timedelta) -> dict[str, object]:
    return {"$timedelta": timedelta.total_seconds(value)}


LEAVES: Final[dict[type, Callable[[Any], str | dict[str, object]]]] = {
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: _timedelta,
    UUID: UUID.__str__,
    Decimal: _decimal,
    PurePath: PurePath.__str__,
}
