"""Values → JSON: the fast path, for the plain values that nearly all tasks have."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from aiotrack.encode import leaves
from aiotrack.encode.leaves import SAFE_FLOAT, SAFE_INT
from aiotrack.encode.redact import KEY_LENGTH, Redactor, hints
from aiotrack.encode.sheet import Limits, write
from aiotrack.encode.walk import Walk

_SMALLEST = 64  # bytes: the marker of a value that was cut has to fit
_SECONDS = 0.003  # CPU for a value that is not plain: with the rest of a hook below 5 ms
_NEW_KEY = 12  # bytes whose check takes as long as that of an unknown key
_ODD_KEY = 60  # of one that may be secret
_NAME_BYTES = 1024  # a B-tree of PostgreSQL takes 2704 bytes
_ROW = 16  # items; a longer list is checked at once if they are of one type
_TOO_MANY = 1 << 62


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """A value as it is stored.

    Attributes:
        text: Strict JSON that PostgreSQL's jsonb and SQLite take as it is.
        exact: Whether `revive` gives back an equal value from it, so that a task could be sent
            again with it. False when something was redacted or cut, or has neither a word in JSON
            nor a stand-in that says all.
    """

    text: str
    exact: bool


_new = Encoded.__new__
# The generated __init__ of a frozen dataclass takes three times as long.
_set_text = Encoded.__dict__["text"].__set__
_set_exact = Encoded.__dict__["exact"].__set__

_NULL: Final = Encoded("null", exact=True)
_NO_ARGS: Final = Encoded("[]", exact=True)
_NO_KWARGS: Final = Encoded("{}", exact=True)
_LOST: Final = Encoded('{"$type":"unknown"}', exact=False)


class Encoder:
    """Turns any value into JSON of bounded size, in bounded time, without ever raising.

    Args:
        max_value_bytes: A longer text becomes a marker with its first 2 KiB.
        redact: Names whose values are not stored, besides passwords, tokens and their like. Case
            and separators do not matter; with a ``*`` it is a glob; a compiled pattern is searched
            for in the name as it is.
        max_depth: Levels of containers.
        max_items: Items per container.
        max_text_bytes: Bytes per string.

    Raises:
        ValueError: A limit is too small to write anything.
    """

    __slots__ = ("_chars", "_depths", "_limits", "_redactor")

    def __init__(
        self,
        *,
        max_value_bytes: int = 65536,
        redact: Iterable[str | re.Pattern[str]] = (),
        max_depth: int = 32,
        max_items: int = 1000,
        max_text_bytes: int = 16384,
    ) -> None:
        if max_value_bytes < _SMALLEST or min(max_depth, max_items, max_text_bytes) < 1:
            raise ValueError(f"max_value_bytes must be at least {_SMALLEST}, the others at least 1")
        self._limits = Limits(
            value_bytes=max_value_bytes,
            depth=max_depth,
            items=max_items,
            text_bytes=max_text_bytes,
        )
        self._redactor = Redactor(redact)
        self._chars = max_text_bytes // 4  # a character may take four bytes
        self._depths = range(max_depth)

    def redact(self, names: Iterable[str | re.Pattern[str]]) -> None:
        """Take other names than it was made with, for whoever holds this encoder."""
        self._redactor = Redactor(names)

    def encode(self, value: object, seconds: float = _SECONDS) -> Encoded:
        """Return *value*, a result, as JSON. Unknown objects are asked for their repr.

        Args:
            value: Anything.
            seconds: CPU time, the repr of others by the clock; what takes longer is cut.
        """
        if value is None:
            return _NULL
        return self._encode(value, (), reprs=True, seconds=seconds)

    def encode_args(self, args: Sequence[object], names: Sequence[str] = ()) -> Encoded:
        """Return positional arguments as a JSON array.

        Unknown objects are only named: the repr of a lazy query would run it.

        Args:
            args: The arguments.
            names: The names of the parameters they are for, if known: a positional password is
                redacted by them. With a ``*`` before it the last is for all that follow.
        """
        kind = type(args)
        if kind is not list:
            try:
                args = list(args)
            except BaseException:  # as everywhere: foreign code may raise anything
                args = [kind]
        if names and names[-1][:1] == "*":
            rest = min(len(args), self._limits.items) - len(names) + 1
            names = (*names[:-1], *[names[-1][1:]] * rest)
        return self._encode(args, names) if args else _NO_ARGS

    def encode_kwargs(self, kwargs: Mapping[str, object]) -> Encoded:
        """Return keyword arguments as a JSON object, redacted by their names.

        Unknown objects are only named: the repr of a lazy query would run it.
        """
        kind = type(kwargs)
        if kind is not dict:
            try:
                kwargs = dict(kwargs)
            except BaseException:  # as in encode_args
                kwargs = {"$type": kind}
        return self._encode(kwargs, ()) if kwargs else _NO_KWARGS

    def text(self, value: str, limit: int = 8192) -> str:
        """Return a message that is safe to keep.

        NUL and lone surrogates are replaced; tokens, keys, passwords in URLs, what follows a
        secret name and ``=`` or ``:``, and the word after a flag like ``--password`` are masked.

        Args:
            value: The message.
            limit: In bytes; what is longer keeps its beginning and gets a marker.
        """
        return self._redactor.text(value, limit)

    def name(self, value: str) -> str:
        """Return a text that names something (a task, a scope, a person): at most 1 KiB.

        What has the shape of a secret is masked, and ``password=...``; ``shop.token:refresh`` holds
        none behind its colon, and two that look the same afterwards would be one task, or person.
        """
        return self._redactor.named(value, _NAME_BYTES)

    def code(self, line: str) -> str:
        """Return a line of source code with its literal secrets masked."""
        return self._redactor.code(line)

    def is_secret(self, name: str) -> bool:
        """Tell whether what stands under *name* must not be stored."""
        return self._redactor.is_secret(name)

    def _encode(
        self,
        value: object,
        names: Sequence[str],
        *,
        reprs: bool = False,
        seconds: float = _SECONDS,
    ) -> Encoded:
        try:
            safe = not names or self._redactor.safe.issuperset(names)
            text = self._plain(value) if safe or not self._any_secret(names) else None
            exact = True
            if text is None:
                walk = Walk(self._limits, self._redactor, self._plain, reprs=reprs, seconds=seconds)
                text, exact = walk.run(value, names)
        except BaseException:  # the last net, for a stack or a memory that is all but used up
            return _LOST
        encoded = _new(Encoded)
        _set_text(encoded, text)
        _set_exact(encoded, exact)
        return encoded

    def _any_secret(self, names: Sequence[str]) -> bool:
        return any(self._redactor.is_secret(name) for name in names)

    def _plain(self, value: object) -> str | None:
        """Return the JSON of a plain value, or None when it takes a walk to tell.

        Plain: of exact builtin types, within the limits, no secret names, no odd characters.
        """
        try:
            if not self._is_plain(value):
                return None
            text = write(value)
            length = len(text) if text.isascii() else len(text.encode())
        except BaseException:  # keys may be of foreign types; a lone surrogate
            return None
        if length > self._limits.value_bytes or "\\u0000" in text or hints(text):
            return None
        if '"$' in text and leaves.STAND_IN.search(text):  # it must not be read as one of ours
            return None
        return None if self._redactor.tells(text) else text

    def _is_plain(self, value: Any) -> bool:  # noqa: C901, PLR0911, PLR0912 (calls cost more)
        """Check level by level: one flat loop without calls is the fastest that Python has."""
        room = self._limits.value_bytes
        limit, chars = self._limits.items, self._chars
        level = [value]
        for _ in self._depths:
            below: list[Any] = []
            for item in level:
                kind = type(item)
                if kind is str:
                    if len(item) > chars:
                        return False
                    room -= len(item)
                elif kind is int:
                    if not -SAFE_INT <= item <= SAFE_INT:
                        return False
                elif kind is dict:
                    if len(item) > limit:
                        return False
                    room = self._after_keys(room - 4 * len(item), item)
                    if room < 0:
                        return False
                    below += item.values()
                elif kind is list:
                    room -= 2 * len(item)
                    if len(item) > limit or room < 0:
                        return False
                    length = self._row(item) if len(item) > _ROW else None
                    if length is None:
                        below += item
                    else:
                        room -= length
                elif kind is float:
                    if not -SAFE_FLOAT < item < SAFE_FLOAT:
                        return False
                elif item is not None and kind is not bool:
                    return False
            if not below:
                return room >= 0
            level = below
        return False

    def _row(self, items: list[Any]) -> int | None:
        """Count the characters of texts or integers, too many of odd ones; None of other items."""
        kinds = set(map(type, items))
        if kinds == {str}:
            length = sum(map(len, items))
            if length > self._limits.value_bytes or max(map(len, items)) > self._chars:
                return _TOO_MANY
            return _TOO_MANY if "\0" in "".join(items) else length
        if kinds == {int}:
            return 0 if min(items) >= -SAFE_INT and max(items) <= SAFE_INT else _TOO_MANY
        return None

    def _after_keys(self, room: int, value: dict[object, object]) -> int:
        """Give what is left of *room*, less than nothing if a key is secret or not plain."""
        safe = self._redactor.safe
        if safe.issuperset(value):
            return room
        if set(map(type, value)) != {str}:
            return -1
        names: list[Any] = [key for key in value if key not in safe]
        if max(map(len, names)) > KEY_LENGTH:
            return -1
        room -= sum(map(len, names)) + _NEW_KEY * len(names)
        if room < 0 or (len(names) > _ROW and self._redactor.are_plain(names)):
            return room
        for name in names:
            room -= _ODD_KEY
            if room < 0 or self._redactor.is_secret(name):
                return -1
        return room
