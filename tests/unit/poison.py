"""Values that have broken trackers: each name makes a fresh one. R28 of the requirements."""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import itertools
import pathlib
import re
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pydantic

from tests.unit.poison_more import MORE

MEGABYTE = 1 << 20
METHODS = [
    "__repr__",
    "__str__",
    "__eq__",
    "__ne__",
    "__lt__",
    "__gt__",
    "__len__",
    "__iter__",
    "__bool__",
    "__getattribute__",
    "__getitem__",
    "__contains__",
    "__format__",
    "__int__",
    "__index__",
    "__float__",
    "__abs__",
    "__bytes__",
    "__sizeof__",
    "__reduce_ex__",
    "__dir__",
    "items",
    "keys",
    "values",
    "encode",
    "isascii",
    "__next__",
    "__call__",
]


class Evil(Exception):
    """Raised by everything evil."""


class EvilBase(BaseException):
    """As Evil, and `except Exception` lets it pass."""


def _raise(*_args: Any, **_kwargs: Any) -> Any:
    raise Evil("evil")


def _raise_base(*_args: Any, **_kwargs: Any) -> Any:
    raise EvilBase("evil")


def _exit(*_args: Any, **_kwargs: Any) -> Any:
    raise SystemExit(3)


def _recurse(self: Any) -> Any:
    return _recurse(self)


def _evil(*names: str, bases: tuple[type, ...] = (), act: Any = _raise) -> type:
    return type("Evil" + "".join(names), bases, dict.fromkeys(names, act))


def _evil_everywhere(base: type) -> type:
    body: dict[str, Any] = dict.fromkeys(METHODS, _raise)
    body["__hash__"] = base.__hash__
    body["__class__"] = property(_raise)
    return type("Evil" + base.__name__, (base,), body)


class LyingClass:
    """Claims to be a dict."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return dict


class EvilMeta(type):
    """A class that cannot be hashed, compared or named."""

    __hash__ = _raise
    __eq__ = _raise
    __repr__ = _raise
    __getattribute__ = _raise


class OfEvilMeta(metaclass=EvilMeta):
    """See EvilMeta."""


class EvilKey:
    """A key that raises once it is in its dictionary."""

    armed = False

    def __hash__(self) -> int:
        return _raise() if self.armed else 1

    def __eq__(self, other: object) -> bool:
        return _raise() if self.armed else self is other

    def __repr__(self) -> str:
        return _raise()


class Endless:
    """Iterates for ever, and has every length."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()

    def __len__(self) -> int:
        return 1 << 60

    def __getitem__(self, index: int) -> int:
        return index


class SelfRepr:
    """Its repr asks for its repr."""

    def __repr__(self) -> str:
        return f"<{self!r}>"


class Colour(enum.Enum):
    """An enum."""

    RED = object()


class EvilZone(dt.tzinfo):
    """A time zone that does not know its offset."""

    utcoffset = dst = tzname = _raise


class Point(NamedTuple):
    """A named tuple with a secret."""

    x: int
    password: str


@dataclasses.dataclass
class Row:
    """A data class."""

    name: str
    token: str
    more: Any = None


@dataclasses.dataclass
class Slow:
    """A data class whose field raises."""

    field: int = 0

    def __getattribute__(self, name: str) -> Any:
        raise Evil(name)


class Model(pydantic.BaseModel):
    """A model with secrets."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    name: str = "n"
    password: int = 1234
    hidden: pydantic.SecretStr = pydantic.SecretStr("hidden-secret")
    raw: pydantic.SecretBytes = pydantic.SecretBytes(b"hidden-secret")
    anything: Any = None


def _frame(module: str = "pandas.core.frame", **more: Any) -> object:
    body = {"__module__": module, "__repr__": _raise, "__len__": _raise, "__bool__": _raise}
    return type("DataFrame", (), body | more)()


def _cycle_list() -> object:
    made: list[object] = []
    made.append(made)
    return made


def _cycle_dict() -> object:
    made: dict[str, object] = {}
    made["me"] = [made, (made,)]
    return made


def _cycle_wide() -> object:
    made: list[object] = []
    made.extend([made] * 900)
    return made


def _cycle_row() -> object:
    row = Row("n", "t")
    row.more = [row]
    return row


def _deep(wrap: Callable[[object], object], levels: int = 100_000) -> object:
    made: object = 1
    for _ in range(levels):
        made = wrap(made)
    return made


def _bomb(width: int = 900, levels: int = 20) -> object:
    made: object = "lol"
    for _ in range(levels):
        made = [made] * width
    return made


def _armed() -> object:
    key = EvilKey()
    made = {key: 1, "name": 2}
    key.armed = True
    return made


def _armed_set() -> object:
    key = EvilKey()
    made = {key, "name"}
    key.armed = True
    return made


def _closed_coroutine() -> object:
    async def body() -> None: ...

    made = body()
    made.close()
    return made


async def _agen() -> Any:
    yield 1


def _released() -> object:
    view = memoryview(b"abc")
    view.release()
    return view


def _dead_proxy() -> object:
    return weakref.proxy(Endless())


def _group(leaves: int = 10_000) -> BaseException:
    return ExceptionGroup("many", [ValueError(n) for n in range(leaves)])


def _nested_group() -> BaseException:
    made: Exception = ValueError("leaf")
    for _ in range(2000):
        made = ExceptionGroup("level", [made])
    return made


def _recursion() -> BaseException:
    def down(level: int) -> None:
        if level == 0:
            raise ValueError("bottom")
        down(level - 1)

    try:
        down(700)
    except ValueError as error:
        return error
    raise AssertionError


def _cause_cycle() -> BaseException:
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def _chain(length: int = 5000) -> BaseException:
    made: BaseException = ValueError(0)
    for n in range(length):
        following = ValueError(n)
        following.__context__ = made
        made = following
    return made


def _wide_dict(count: int, value: object = 1) -> object:
    return {f"key {n}": value for n in range(count)}


def _evil_getattr() -> object:
    return _evil("__getattr__", "__getattribute__")()


_JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r"
_PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"

POISON: dict[str, Callable[[], object]] = {
    # text
    "nul": lambda: "a\0b",
    "nul only": lambda: "\0" * 1000,
    "lone high surrogate": lambda: "a\ud800b",
    "lone low surrogate": lambda: "\udfff",
    "surrogate pair as two": lambda: "\ud83d\ude00",
    "surrogate escaped bytes": lambda: b"caf\xe9".decode("utf-8", "surrogateescape"),
    "controls": lambda: "".join(map(chr, range(32))) * 600,
    "quotes": lambda: '"\\' * 8000,
    "escaped nul": lambda: "\\u0000",
    "line separators": lambda: "\u2028\u2029\x85\ufeff\uffff",
    "emoji": lambda: "👩‍👩‍👧‍👦" * 5000,
    "four bytes each": lambda: "\U0010ffff" * 16_384,
    "right to left": lambda: "\u202egnp.exe",
    "markup": lambda: "</script><script>alert(1)</script>",
    "50 MB text": lambda: "x" * (50 * MEGABYTE),
    "20 MB text, not ASCII": lambda: "é" * (20 * MEGABYTE),
    "5 MB surrogates": lambda: "\udc80" * (5 * MEGABYTE),
    "many beginnings of tokens": lambda: "eyJ-" * 4000,
    "many beginnings of PEM": lambda: "-----BEGIN PRIVATE KEY-----" * 600,
    "many URLs": lambda: "://a:" * 3200 + "@",
    "many bearers": lambda: "bearer " * 2300,
    "many secret strings": lambda: [["Bearer " + "a" * 15_000] * 900] * 900,
    "a JWT": lambda: _JWT,
    "a PEM key": lambda: [_PEM],
    # keys
    "nul key": lambda: {"a\0": 1, "a\u2400": 2},
    "surrogate key": lambda: dict.fromkeys(["\ud800", "\ud801", "\ufffd"], 1),
    "5 MB key": lambda: {"k" * (5 * MEGABYTE): 1},
    "secret as key": lambda: {_JWT: 1},
    "keys that become one": lambda: {1: 2, "1": 3, 1.5: 4, "1.5": 5, None: 6, "None": 7},
    "bool keys": lambda: {True: 1, "True": 2, False: 3},
    "nan keys": lambda: {float("nan"): 1, float("inf"): 2},
    "bytes keys": lambda: {b"password": "hunter2", b"\xff": 1},
    "tuple keys": lambda: {(1, "a"): 1, ((1,), 2): 2, (object(),): 3},
    "enum keys": lambda: {Colour.RED: 1},
    "huge int key": lambda: {10**100_000: 1},
    "evil key": _armed,
    "object keys": lambda: {object(): 1, Endless: 2},
    "1,000 equal keys": lambda: {("k" * 600 + str(n)): n for n in range(1000)},
    "a key named marker": lambda: {"$truncated": 1} | {f"k{n}": n for n in range(2000)},
    # numbers
    "nan": lambda: float("nan"),
    "infinity": lambda: [float("inf"), float("-inf")],
    "negative zero": lambda: -0.0,
    "tiny float": lambda: 5e-324,
    "huge float": lambda: 1.7976931348623157e308,
    "huge floats": lambda: [1.1e300] * 900,
    "beyond 2**53": lambda: [2**53 + 1, -(2**63), 2**64],
    "4,300 digits": lambda: 10**4299,
    "4,301 digits": lambda: -(10**4300),
    "100,000 digits": lambda: 10**100_000,
    "a hundred million bits": lambda: 1 << 100_000_000,
    "900 huge ints": lambda: [7**5000] * 900,
    "complex": lambda: complex(1, float("nan")),
    "decimal": lambda: decimal.Decimal("1E+999999"),
    "decimal NaN": lambda: decimal.Decimal("sNaN"),
    "decimal with 1,000,000 digits": lambda: decimal.Decimal("1" * 1_000_000),
    "fraction": lambda: fractions.Fraction(10**5000, 3),
    # containers
    "list in itself": _cycle_list,
    "dict in itself": _cycle_dict,
    "list full of itself": _cycle_wide,
    "dataclass in itself": _cycle_row,
    "100,000 lists deep": lambda: _deep(lambda made: [made]),
    "100,000 dicts deep": lambda: _deep(lambda made: {"d": made}),
    "10,000 tuples deep": lambda: _deep(lambda made: (made,), 10_000),
    "1,000,000 items": lambda: list(range(1_000_000)),
    "1,000,000 keys": lambda: dict.fromkeys(range(1_000_000)),
    "1,000,000 in a set": lambda: set(range(1_000_000)),
    "900 of 900 of 900": _bomb,
    "a bomb of empty lists": lambda: [[[] for _ in range(900)] for _ in range(900)],
    "a bomb of tuples": lambda: [((),) * 900] * 900,
    "a bomb of dicts": lambda: _wide_dict(900, _wide_dict(900, _wide_dict(900))),
    "a bomb of secrets": lambda: [_wide_dict(500, {"password": 1})] * 900,
    "a bomb of objects": lambda: [[object()] * 900] * 900,
    "a bomb of text": lambda: [["y" * 16_000] * 900] * 900,
    "10 MB dict": lambda: _wide_dict(900, "z" * 11_000),
    "mixed set": lambda: {1, "a", None, (1, 2), frozenset({3})},
    "set of evil": _armed_set,
    "deque": lambda: collections.deque(range(100_000)),
    "default dict": lambda: collections.defaultdict(_raise, a=1),
    "ordered dict": lambda: collections.OrderedDict(a=1),
    "counter": lambda: collections.Counter("hello"),
    "chain map": lambda: collections.ChainMap({"password": "hunter2"}),
    "user dict": lambda: collections.UserDict(dict.fromkeys(range(100_000))),
    "mapping proxy": lambda: types.MappingProxyType({"password": "hunter2"}),
    "dict views": lambda: [{"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()],
    "named tuple": lambda: Point(1, "hunter2"),
    "namespace": lambda: types.SimpleNamespace(a=1, password="hunter2"),
    # bytes
    "bytes": lambda: b"\xff\x00" * 100,
    "50 MB bytes": lambda: b"\xff" * (50 * MEGABYTE),
    "50 MB bytearray": lambda: bytearray(50 * MEGABYTE),
    "900 MB of bytes": lambda: [b"x" * MEGABYTE] * 900,
    "memory view": lambda: memoryview(bytearray(10 * MEGABYTE)),
    "strided memory view": lambda: memoryview(bytes(100))[::3],
    "large strided memory view": lambda: memoryview(bytes(10 * MEGABYTE))[::3],
    "released memory view": _released,
    "array": lambda: array.array("d", bytes(8 * 100_000)),
    # things with a life of their own
    "generator": lambda: (n for n in itertools.count()),
    "iterator": itertools.count,
    "endless": Endless,
    "range": lambda: range(10**18),
    "coroutine": _closed_coroutine,
    "async generator": _agen,
    "lock": threading.Lock,
    "async lock": asyncio.Lock,
    "thread": threading.current_thread,
    "text file": io.StringIO,
    "bytes file": lambda: io.BytesIO(bytes(MEGABYTE)),
    "context": contextlib.ExitStack,
    "lambda": lambda: lambda: None,
    "partial": lambda: functools.partial(print, 1),
    "class": lambda: dict,
    "module": lambda: types,
    "pattern": lambda: re.compile("a+"),
    "weak reference": lambda: weakref.ref(Colour),
    "dead proxy": _dead_proxy,
    "ellipsis": lambda: ...,
    "not implemented": lambda: NotImplemented,
    "object": object,
    "data frame": _frame,
    "tensor": lambda: _frame("torch", shape=(3, 4)),
    "odd shape": lambda: _frame("numpy", shape=property(_raise)),
    "query set": lambda: _frame("django.db.models.query", __getattr__=_raise, __iter__=_raise),
    # values with a word in JSON
    "date and time": lambda: [dt.datetime(9999, 12, 31, tzinfo=dt.UTC), dt.date.min, dt.time.max],
    "span": lambda: dt.timedelta.max,
    "evil time zone": lambda: dt.datetime(2024, 1, 1, tzinfo=EvilZone()),
    "uuid": lambda: uuid.UUID(int=1),
    "path": lambda: pathlib.PurePosixPath("/a\udc80b"),
    "enum of an object": lambda: Colour.RED,
    "dataclass": lambda: Row("n", "hunter2", {"password": 1}),
    "slow dataclass": Slow,
    "dataclass without fields set": lambda: Row.__new__(Row),
    "model": lambda: Model(anything=[Model()]),
    "model not made": Model.model_construct,
    "model without anything": lambda: Model.__new__(Model),
    "secret": lambda: pydantic.SecretStr("hunter2"),
    # evil
    "evil repr": _evil("__repr__"),
    "evil repr, BaseException": _evil("__repr__", act=_raise_base),
    "evil repr, exit": _evil("__repr__", act=_exit),
    "evil repr, recursion": _evil("__repr__", act=_recurse),
    "evil repr, not a text": _evil("__repr__", act=lambda _self: 5),
    "evil repr, 50 MB": _evil("__repr__", act=lambda _self: "r" * (50 * MEGABYTE)),
    "evil repr, NUL": _evil("__repr__", act=lambda _self: "\0\ud800"),
    "evil repr, itself": SelfRepr,
    "evil getattr": _evil_getattr,
    "evil eq": _evil("__eq__", "__hash__"),
    "evil iter": _evil("__iter__", "__len__", "__getitem__"),
    "evil class": LyingClass,
    "evil class, raising": type("E", (), {"__class__": property(_raise)}),
    "evil metaclass": OfEvilMeta,
    "class of an evil metaclass": lambda: OfEvilMeta,
    "evil module name": type("E", (), {"__module__": ["x"]}),
    "evil type name": type("E" + "x" * 10_000, (), {}),
    "evil dataclass fields": type("E", (), {"__dataclass_fields__": {"a": 1}}),
    "evil named tuple": lambda: type("E", (tuple,), {"_fields": ("a", 1)})((1, 2)),
    "evil str": lambda: _evil_everywhere(str)("text"),
    "evil int": lambda: _evil_everywhere(int)(7),
    "evil float": lambda: _evil_everywhere(float)(7.5),
    "evil list": lambda: _evil_everywhere(list)([1, 2]),
    "evil tuple": lambda: _evil_everywhere(tuple)((1, 2)),
    "evil dict": lambda: _evil_everywhere(dict)(a=1),
    "evil set": lambda: _evil_everywhere(set)({1}),
    "evil bytes": lambda: _evil_everywhere(bytes)(b"abc"),
    "evil bytearray": lambda: _evil_everywhere(bytearray)(b"abc"),
    "evil date": lambda: _evil_everywhere(dt.date)(2024, 1, 1),
    "evil decimal": lambda: _evil_everywhere(decimal.Decimal)(1),
    "evil key str": lambda: {_evil_everywhere(str)("password"): "hunter2"},
    # exceptions
    "exception": lambda: ValueError("bad"),
    "exception with 50 MB": lambda: ValueError("x" * (50 * MEGABYTE)),
    "exception with a big dict": lambda: ValueError(_wide_dict(100_000)),
    "evil exception": _evil("__str__", "__repr__", bases=(Exception,)),
    "evil exception, BaseException": _evil(
        "__str__", "__repr__", bases=(Exception,), act=_raise_base
    ),
    "evil exception, everything": lambda: _evil_everywhere(Exception)("x"),
    "10,000 leaves": _group,
    "2,000 groups deep": _nested_group,
    "1,000 frames": _recursion,
    "causes in a circle": _cause_cycle,
    "5,000 contexts": _chain,
} | MORE
