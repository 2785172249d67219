"""Exceptions → text: type, message and traceback, bounded in size and time."""

from __future__ import annotations

import linecache
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from time import perf_counter, thread_time
from types import SimpleNamespace, TracebackType
from typing import Any

from aiotrack.encode.encoder import Encoder
from aiotrack.encode.faults import is_refusal, refusal
from aiotrack.encode.leaves import MISSING, base_of, is_silent, own
from aiotrack.encode.redact import clean, type_name

_FRAMES = 50  # per exception, the first and the last half of them
_FRAMES_WALKED = 5_000  # links of a traceback followed to find its last frames: about 0.2 ms
_EXCEPTIONS = 10  # chained and grouped together
_FILES = 20  # files read for source lines that linecache does not have yet
_FILE_BYTES = 1 << 19  # of a file that is read: about 0.5 ms
_READ_SECONDS = 0.002  # by the wall clock, for reading files
_SURE = 3  # exceptions that are told whole
_SECONDS = 0.001  # CPU for a traceback; after it older exceptions have no message and no frames
_DATA_SECONDS = 0.0002  # for data as a message
_MESSAGE_BYTES = 8192
_CAUSE_BYTES = 2048
_HEAD_BYTES = 4096
_ARGUMENTS = 20  # of an exception, looked at one by one
_LEFT_OUT = "[... left out ...]"
_TEXTS = (str, bytes, bytearray)
_SIZED = (
    *(*_TEXTS, int, Decimal, BaseException),
    *(dict, list, tuple, set, frozenset, deque, SimpleNamespace),
)

_CAUSED = "\nThe above exception was the direct cause of the following exception:\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n"

# Taken from the base class: a subclass can shadow these names with anything.
_cause = BaseException.__dict__["__cause__"].__get__
_context = BaseException.__dict__["__context__"].__get__
_suppressed = BaseException.__dict__["__suppress_context__"].__get__
_traceback = BaseException.__dict__["__traceback__"].__get__
_arguments = BaseException.__dict__["args"].__get__
_filename = OSError.__dict__["filename"].__get__
_second_filename = OSError.__dict__["filename2"].__get__
_members = BaseExceptionGroup.__dict__["exceptions"].__get__


def error_type(exc: BaseException) -> str:
    """Return ``ValueError`` or ``package.module.Name``, at most 200 characters."""
    return type_name(type(exc))


def error_text(exc: BaseException, encoder: Encoder, limit: int = _MESSAGE_BYTES) -> str:
    """Return the message of *exc*: masked, at most *limit* bytes; else its type's name."""
    try:
        message = _message(exc, encoder)
        return encoder.text(message, limit)
    except BaseException:  # a foreign __str__ may raise anything
        return error_type(exc)


def _message(exc: BaseException, encoder: Encoder) -> str:
    args = _arguments(exc)
    is_plain = type(exc).__str__ is BaseException.__str__
    if is_plain and len(args) == 1 and is_refusal(args[0]):
        exc = args[0]
    if is_refusal(exc):
        return refusal(exc, encoder.is_secret)
    if isinstance(exc, OSError):
        args = (*args, _filename(exc), _second_filename(exc))
    if is_plain and len(args) == 1 and type(args[0]) is str:
        return args[0]
    if len(args) <= _ARGUMENTS and all(_is_short(arg) for arg in args):
        return str.__str__(str(exc))
    if type(exc).__str__ in {BaseException.__str__, KeyError.__str__, OSError.__str__}:
        # str() would first write out all of what may be a hundred megabytes.
        return encoder.encode(args[0] if len(args) == 1 else list(args), _DATA_SECONDS).text
    return str.__str__(str(exc))


def _is_short(value: Any, depth: int = 0) -> bool:
    """Tell whether str() of *value* is short, as far as it is not a stranger's."""
    kind = type(value)
    base: Any = base_of(kind, _SIZED)
    if base in _TEXTS:
        return bool(base.__len__(value) <= _MESSAGE_BYTES)
    if base is int:
        return bool(int.bit_length(value) <= _MESSAGE_BYTES)
    if base is Decimal:
        return Decimal.__sizeof__(value) <= _MESSAGE_BYTES
    if base is BaseException:
        args = _arguments(value)
        few = depth < 3 and len(args) <= _ARGUMENTS and not is_refusal(value)
        return few and all(_is_short(arg, depth + 1) for arg in args)
    if own(kind, "__dataclass_fields__") is not MISSING:
        return own(kind, "__str__") is not object.__str__
    return base is object and not is_silent(kind)


def format_traceback(
    exc: BaseException, encoder: Encoder, limit: int = 32768, message: str | None = None
) -> str:
    """Return the traceback of *exc* as Python prints it, bounded in size and time.

    No locals. At most 50 frames for each exception, the first and the last, at most 10 chained
    or grouped exceptions, and at most *limit* bytes, of which the first 4 KiB are the beginning.
    Source lines come from files that linecache has, and from a few others that are read quickly.
    After a millisecond all but the newest exceptions have only their type.

    Args:
        exc: The exception; groups, cycles of causes and deep recursion included.
        encoder: Masks messages and source lines.
        limit: In bytes.
        message: What `error_text` gave, if it was asked before.
    """
    try:
        text = "\n".join(_Trace(encoder).lines(exc, message)) + "\n"
    except BaseException:  # nothing that an exception does to its own report may leave
        told = error_text(exc, encoder) if message is None else message
        text = f"{error_type(exc)}: {told}\n"
    return _both_ends(text, limit)


def _both_ends(text: str, limit: int) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    marker = f"[... cut, {len(data)} bytes ...]\n".encode()
    first = min(_HEAD_BYTES, limit // 8)
    start = data[:first]
    start = start[: start.rfind(b"\n") + 1] or start
    last = max(limit - len(start) - len(marker), 0)
    end = data[len(data) - last :]
    end = end[end.find(b"\n") + 1 :] or end
    return (start + marker + end)[:limit].decode("utf-8", "ignore")


class _Trace:
    """One traceback: counts what it may still write, and looks at the clock."""

    __slots__ = ("_encoder", "_end", "_files", "_read", "_room", "_seen", "_told")

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._end = thread_time() + _SECONDS
        self._files = _FILES
        self._read = _READ_SECONDS
        self._room = _EXCEPTIONS
        self._seen: set[int] = set()
        self._told = 0

    def lines(self, exc: BaseException, message: str | None = None) -> list[str]:
        """Write *exc* with those that led to it, the oldest first."""
        chain: list[tuple[BaseException, str]] = []
        node: BaseException | None = exc
        link = ""
        while node is not None and self._room > 0 and id(node) not in self._seen:
            self._seen.add(id(node))
            self._room -= 1
            chain.append((node, link))
            node, link = _previous(node)
        parts = []
        for one, follows in chain:  # the newest first: what takes too long is an older one
            self._told += 1
            told = [*self._stack(one), *self._words(one, message)]
            parts.append([*told, follows] if follows else told)
            message = None
        if node is not None:
            parts.append(["[... earlier exceptions left out ...]"])
        return [line for part in reversed(parts) for line in part]

    def _is_over(self, sure: int = _SURE) -> bool:
        return self._told > sure and thread_time() > self._end

    def _words(self, exc: BaseException, message: str | None) -> Iterator[str]:
        if message is None:
            message = _LEFT_OUT if self._is_over() else error_text(exc, self._encoder, _CAUSE_BYTES)
        yield f"{error_type(exc)}: {message}" if message else error_type(exc)
        notes = getattr(exc, "__notes__", None)
        for number, note in enumerate(notes[:10] if type(notes) is list else ()):
            if self._is_over(_SURE if number < _SURE else 0):
                yield _LEFT_OUT
                break
            yield self._encoder.text(note, 1024) if type(note) is str else "<note>"
        if issubclass(type(exc), BaseExceptionGroup):
            yield from self._group(_members(exc))

    def _group(self, members: tuple[BaseException, ...]) -> Iterator[str]:
        for number, member in enumerate(members, 1):
            if self._room <= 0:
                yield f"  +- {len(members) - number + 1} more exceptions left out"
                return
            yield f"  +---------------- {number} of {len(members)} ----------------"
            for line in self.lines(member):
                yield "  | " + line.replace("\n", "\n  | ")

    def _stack(self, exc: BaseException) -> Iterator[str]:
        node = _traceback(exc)
        if node is None:
            return
        yield "Traceback (most recent call last):"
        if self._is_over():
            yield f"  {_LEFT_OUT}"
            return
        first: list[TracebackType] = []
        last: deque[TracebackType] = deque(maxlen=_FRAMES // 2)
        count = 0
        while node is not None and count < _FRAMES_WALKED:
            count += 1
            if len(first) < _FRAMES // 2:
                first.append(node)
            else:
                last.append(node)
            node = node.tb_next
        ends = [self._frame(link) for link in reversed(last)]  # what happened last tells most
        starts = [self._frame(link) for link in reversed(first)]
        yield from reversed(starts)
        if count > len(first) + len(last):
            yield f"  [... {count - len(first) - len(last)} frames left out ...]"
        yield from reversed(ends)

    def _frame(self, trace: TracebackType) -> str:
        code = trace.tb_frame.f_code
        name = clean(code.co_filename[-256:])
        told = f'  File "{name}", line {trace.tb_lineno}, in {clean(code.co_name[:128])}'
        line = "" if self._is_over() else self._source(code.co_filename, trace.tb_lineno).strip()
        return f"{told}\n    {self._encoder.code(line[:256])}" if line else told

    def _source(self, name: str, number: int) -> str:
        """Give a line of a file that linecache has, or that is read quickly."""
        if name in linecache.cache:
            return linecache.getline(name, number)
        if self._files <= 0 or self._read <= 0:
            return ""
        self._files -= 1
        begun = perf_counter()
        try:
            is_small = Path(name).stat().st_size <= _FILE_BYTES
            return linecache.getline(name, number) if is_small else ""
        except (OSError, ValueError):  # a name with NUL
            return ""
        finally:
            self._read -= perf_counter() - begun


def _previous(exc: BaseException) -> tuple[BaseException | None, str]:
    cause = _cause(exc)
    if cause is not None:
        return cause, _CAUSED
    context = None if _suppressed(exc) else _context(exc)
    return context, _DURING if context is not None else ""
