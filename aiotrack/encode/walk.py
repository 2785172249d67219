"""Any object → bounded JSON text: the slow path, for what the encoder does not find plain.

What has to run of a foreign object (a repr, a descriptor) runs inside a guard.
"""

from __future__ import annotations

import collections
import enum
import types
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from json.encoder import encode_basestring as quote
from typing import Any, Final

from aiotrack.encode import leaves
from aiotrack.encode.leaves import is_silent
from aiotrack.encode.redact import KEY_LENGTH, MARGIN, Redactor, clean, hints, mask, type_name
from aiotrack.encode.sheet import (
    CYCLE_JSON,
    DEPTH_JSON,
    REDACTED_JSON,
    Full,
    Limits,
    Sheet,
)

_REPR_BYTES = 512
_FEW = 64  # names
_KINDS_KEPT = 1024  # classes remembered: dynamic ones must not fill the memory

_arguments = BaseException.__dict__["args"].__get__


class Walk(Sheet):
    """One value on its way to JSON; used once.

    Args:
        limits: Sizes.
        redactor: Knows the secret names.
        dump: JSON of a plain value, or None when a value is not plain.
        reprs: Whether an unknown object is asked for its repr, or only named.
        seconds: See `Sheet`.
    """

    __slots__ = ("_dump", "_names", "_path", "_reprs")

    def __init__(
        self,
        limits: Limits,
        redactor: Redactor,
        dump: Callable[[object], str | None],
        *,
        reprs: bool,
        seconds: float,
    ) -> None:
        super().__init__(limits, redactor, seconds)
        self._dump = dump
        self._reprs = reprs
        self._path: set[int] = set()
        self._names: dict[str, tuple[str, bool]] = {}

    def run(self, value: object, names: Sequence[str] = ()) -> tuple[str, bool]:
        """Return the JSON text and whether it says all that *value* says.

        Args:
            value: Anything.
            names: Of the items of *value*, a list; those with a secret name are redacted.
        """
        try:
            if names and type(value) is list:
                self._items(value, value, len(value), 0, names)
            else:
                self.value(value, 0)
        except Full:
            return self.truncated(), False
        return "".join(self.out), self.exact

    def value(self, value: object, depth: int) -> None:
        """Write one value, whatever it does."""
        self.steps -= 1
        kept, left = len(self.out), self.left
        kind = type(value)
        try:
            (_WRITERS.get(kind) or _writer(kind))(self, value, depth)
        except Full:
            raise
        except BaseException:  # foreign code may raise anything, and must not lose the record
            del self.out[kept:]
            self.left = left
            self.tell({"$type": type_name(kind)})

    # ── containers ──────────────────────────────────────────────────────────────────────────

    def plain_list(self, value: list[object], depth: int) -> None:
        """Write a list."""
        if not value:
            self.emit("[]")
        elif not self._flat(value, value, depth):
            self._items(value, value, len(value), depth)

    def plain_dict(self, value: dict[object, object], depth: int) -> None:
        """Write a dict."""
        if not value:
            self.emit("{}")
        elif not self._flat(value, value.values(), depth):
            self._pairs(value, value.items(), len(value), depth)

    def _flat(self, owner: object, items: Any, depth: int) -> bool:
        """Write a container of scalars at once; the outermost was found not plain before."""
        limits = self.limits
        if not 0 < depth < limits.depth or len(items) > limits.items or self.is_over:
            return False
        if not leaves.SCALARS.issuperset(map(type, items)):
            return False
        self.steps -= 2 + (len(items) >> (3 if items is owner else 2))
        text = self._dump(owner)
        if text is None:
            return False
        self.emit(text)
        return True

    def mapping(self, value: Any, depth: int) -> None:
        """Write what is derived from dict."""
        self.exact = False
        items = value.items() if type(value) is collections.OrderedDict else dict.items(value)
        self._pairs(value, items, dict.__len__(value), depth)

    def sequence(self, value: Any, depth: int) -> None:
        """Write a tuple, a set, a deque, or what is derived from them."""
        self.exact = False
        base: Any = leaves.base_of(type(value), _SEQUENCES)
        length = base.__len__(value)
        self.steps -= 4 + (min(length, 1000) >> 3)
        items: Iterable[object] = base.__iter__(value)
        if base is set or base is frozenset:
            items = leaves.ordered(items, length, self.limits.items)
        names = leaves.namedtuple_fields(type(value)) if type(value) is not base else ()
        self._items(value, items, length, depth, names)

    def _enter(self, owner: object, depth: int) -> bool:
        if id(owner) in self._path:
            self.mark(CYCLE_JSON)
            return False
        if depth >= self.limits.depth:
            self.mark(DEPTH_JSON)
            return False
        self._path.add(id(owner))
        return True

    def _items(
        self,
        owner: object,
        items: Iterable[object],
        length: int,
        depth: int,
        names: Sequence[str] = (),
    ) -> None:
        if not self._enter(owner, depth):
            return
        if depth == 0:
            self.total = length
        limit = self.limits.items
        rest, out = max(length - limit, 0), self.out
        mark = "["
        try:
            for index, item in enumerate([*islice(items, limit)]):
                if self.is_spent():
                    rest = length - index
                    break
                out.append(mark)
                self.left -= 1
                mark = ","
                if index < len(names) and self.redactor.is_secret(names[index]):
                    self.mark(REDACTED_JSON)
                else:
                    self.value(item, depth + 1)
                if depth == 0:
                    self.done = index + 1
            if rest:
                self.emit(mark)
                self.tell({"$truncated": rest})
                mark = ","
            self.emit("[]" if mark == "[" else "]")
        finally:
            self._path.discard(id(owner))

    def _pairs(
        self, owner: object, items: Iterable[tuple[object, object]], length: int, depth: int
    ) -> None:
        if not self._enter(owner, depth):
            return
        if depth == 0:
            self.total = length
        self.steps -= 3
        limit = self.limits.items
        rest = max(length - limit, 0)
        used: dict[str, int] = {}
        mark = "{"
        try:
            pairs = [*islice(items, limit)]
            if len(pairs) > _FEW:
                self._names |= self.redactor.quoted([key for key, _ in pairs])
            for index, (key, item) in enumerate(pairs):
                if self.is_spent():
                    rest = length - index
                    break
                name = key if type(key) is str else self._key(key)
                self.exact = self.exact and name not in leaves.STAND_INS
                text, secret = self._names.get(name) or self._learn(name)
                self.emit(mark + (text if text and name not in used else self._name(name, used)))
                used[name] = used.get(name, 1)
                mark = ","
                if secret:
                    self.secret(item, depth)
                else:
                    self.value(item, depth + 1)
                if depth == 0:
                    self.done = index + 1
            if rest:
                self.emit(f"{mark}{self._name('$truncated', used)}{rest}")
                self.exact = False
                mark = ","
            self.emit("{}" if mark == "{" else "}")
        finally:
            self._path.discard(id(owner))

    def _learn(self, name: str) -> tuple[str, bool]:
        """Remember a key for the next rows: its JSON, if it can stay as it is; if it is secret."""
        self.steps -= 4 + (min(len(name), 1024) >> 5)
        same = len(name) <= KEY_LENGTH and not hints(name) and clean(name) == name
        known = (quote(name) + ":" if same else "", self.redactor.is_secret(name))
        if len(name) <= KEY_LENGTH:
            self._names[name] = known
        return known

    def _name(self, raw: str, used: dict[str, int]) -> str:
        """Return the JSON of a key that has to change, or that is there already."""
        start = raw[: KEY_LENGTH + MARGIN]
        self.steps -= 64 if hints(start) else 10
        name = clean(mask(start))
        if len(name) > KEY_LENGTH:
            name = name[:KEY_LENGTH] + "…"
        unique = name
        while unique in used:
            used[name] += 1
            unique = f"{name}#{used[name]}"
        used[unique] = 1
        if unique != raw:
            self.exact = False
        return quote(unique) + ":"

    def _key(self, key: object) -> str:
        self.exact = False
        kind = type(key)
        try:
            text = leaves.key_text(key)
            if text is None and self._reprs and kind not in _SEQUENCES and not is_silent(kind):
                text = self.redactor.text(self.ask(repr, key), _REPR_BYTES)
        except BaseException:  # foreign code, as in value()
            text = None
        self.steps -= 20 if text is None else 20 + (min(len(text), 8192) >> 4)
        return f"<{type_name(kind)}>" if text is None else text

    # ── objects ─────────────────────────────────────────────────────────────────────────────

    def member(self, value: object, depth: int) -> None:
        """Write the value of an enum."""
        self.exact = False
        self.steps -= 2
        self.value(object.__getattribute__(value, "_value_"), depth)

    def fields(self, value: object, depth: int) -> None:
        """Write a dataclass."""
        self.exact = False
        self.steps -= 4
        found, count = leaves.stored_fields(value) or self.ask(
            lambda row: leaves.asked_fields(row, self.limits.items), value
        )
        self._pairs(value, found, count, depth)

    def model(self, value: object, depth: int) -> None:
        """Write a pydantic model."""
        self.exact = False
        self.steps -= 4
        found = leaves.model_fields(value)
        if leaves.own(type(value), "__pydantic_root_model__") is True and "root" in found:
            self.value(found["root"], depth)
        else:
            self._pairs(value, found.items(), len(found), depth)

    def namespace(self, value: object, depth: int) -> None:
        """Write a SimpleNamespace."""
        self.exact = False
        found = object.__getattribute__(value, "__dict__")
        self._pairs(value, found.items(), len(found), depth)

    def secret(self, _value: object, _depth: int) -> None:
        """Write that a secret was here."""
        self.steps -= 1
        self.mark(REDACTED_JSON)

    def number(self, value: Any, depth: int) -> None:
        """Write a NumPy scalar."""
        item = self.ask(type(value).item, value)
        self.exact = False
        self.value(item if type(item) in leaves.SCALARS else type_name(type(value)), depth)

    def error(self, value: object, depth: int) -> None:
        """Write an exception."""
        args = _arguments(value)
        if not self._reprs or leaves.is_short(args):
            self.opaque(value, depth)
            return
        # Its repr would write out all of what may be a hundred megabytes.
        self.exact = False
        self._pairs(value, [("$type", type_name(type(value))), ("args", args)], 2, depth)

    def opaque(self, value: object, depth: int) -> None:
        """Write the repr of an unknown object, or only its type."""
        if not self._reprs:
            self.outline(value, depth)
            return
        try:
            told = self.redactor.text(self.ask(self.words, value), _REPR_BYTES)
        except BaseException:  # foreign code, as in value()
            told = f"<unrepresentable {type_name(type(value)).rpartition('.')[2]}>"
        self.tell({"$repr": told})

    def outline(self, value: object, _depth: int) -> None:
        """Write the type of an object whose repr is not asked for."""
        self.tell(self.ask(leaves.outline, value))


_Writer = Callable[[Walk, Any, int], None]
_SEQUENCES: Final = (tuple, list, set, frozenset, collections.deque)
# By the exact type: the common ones, without a look at their classes.
_WRITERS: Final[dict[type, _Writer]] = {
    str: Walk.text,
    int: Walk.integer,
    float: Walk.real,
    bool: Walk.constant,
    type(None): Walk.constant,
    list: Walk.plain_list,
    dict: Walk.plain_dict,
    **dict.fromkeys(leaves.LEAVES, Walk.leaf),
}
# By the nearest base class: the others. A subclass of a builtin is written as that builtin.
_BASES: Final[dict[type, _Writer]] = {
    str: Walk.string,
    int: Walk.integer,
    float: Walk.real,
    dict: Walk.mapping,
    types.SimpleNamespace: Walk.namespace,
    BaseException: Walk.error,
    **dict.fromkeys(_SEQUENCES, Walk.sequence),
    **dict.fromkeys((bytes, bytearray, memoryview), Walk.blob),
    **dict.fromkeys(leaves.LEAVES, Walk.leaf),
}
# Known by name, so that nobody has to import them.
_NAMED: Final[dict[tuple[object, str], _Writer]] = {
    (f"pydantic.{part}", name): writer
    for part, name, writer in (
        ("main", "BaseModel", Walk.model),
        ("v1.main", "BaseModel", Walk.model),
        ("types", "_SecretBase", Walk.secret),
        ("types", "SecretStr", Walk.secret),
        ("types", "SecretBytes", Walk.secret),
        ("v1.types", "SecretStr", Walk.secret),
        ("v1.types", "SecretBytes", Walk.secret),
    )
} | {("numpy", "generic"): Walk.number}
_known: dict[type, _Writer] = {}


def _writer(kind: type) -> _Writer:
    """Return what writes objects of *kind*, and remember it."""
    found = _known.get(kind)
    if found is None:
        found = _find(kind)
        if len(_known) >= _KINDS_KEPT:
            _known.clear()
        _known[kind] = found
    return found


def _find(kind: type) -> _Writer:
    bases = leaves.mro_of(kind)
    if any(base is enum.Enum for base in bases):
        return Walk.member
    for base in bases:
        named = _NAMED.get((leaves.own(base, "__module__"), leaves.name_of(base)))
        if named is not None:
            return named
    if type(leaves.own(kind, "__dataclass_fields__")) is dict:
        return Walk.fields
    found = _BASES.get(leaves.base_of(kind, _BASES))
    if found is not None:
        return found
    return Walk.outline if is_silent(kind) else Walk.opaque
