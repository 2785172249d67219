"""Exceptions → text: type, message and traceback, bounded in size and time."""

from __future__ import annotations

import linecache
from collections import deque
from collections.abc import Iterator
from types import TracebackType

from aiotrack.encode.encoder import Encoder
from aiotrack.encode.redact import clean, type_name

_FRAMES = 50  # per exception, the first and the last half of them
_FRAMES_WALKED = 20_000  # links of a traceback followed to find its last frames: about 1 ms
_EXCEPTIONS = 10  # chained and grouped together
_FILES = 20  # files read for source lines that linecache does not have yet
_MESSAGE_BYTES = 8192
_HEAD_BYTES = 4096

_CAUSED = "\nThe above exception was the direct cause of the following exception:\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n"

# Taken from the base class: a subclass can shadow these names with anything.
_cause = BaseException.__dict__["__cause__"].__get__
_context = BaseException.__dict__["__context__"].__get__
_suppressed = BaseException.__dict__["__suppress_context__"].__get__
_traceback = BaseException.__dict__["__traceback__"].__get__
_arguments = BaseException.__dict__["args"].__get__
_members = BaseExceptionGroup.__dict__["exceptions"].__get__


def error_type(exc: BaseException) -> str:
    """Return ``ValueError`` or ``package.module.Name``, at most 200 characters."""
    return type_name(type(exc))


def error_text(exc: BaseException, encoder: Encoder) -> str:
    """Return the message of *exc*: masked, at most 8 KiB; if it cannot tell, its type's name."""
    try:
        message = _message(exc, encoder)
        return encoder.text(message, _MESSAGE_BYTES)
    except BaseException:  # a foreign __str__ may raise anything
        return error_type(exc)


def _message(exc: BaseException, encoder: Encoder) -> str:
    args = _arguments(exc)
    if len(args) == 1 and type(args[0]) is str and type(exc).__str__ is BaseException.__str__:
        return args[0]
    if all(_is_short(arg) for arg in args[:20]) and len(args) <= 20:
        return str.__str__(str(exc))
    if type(exc).__str__ in {BaseException.__str__, KeyError.__str__, OSError.__str__}:
        # str() would first write out all of what may be a hundred megabytes.
        return encoder.encode(args[0] if len(args) == 1 else list(args)).text
    return str.__str__(str(exc))


def _is_short(value: object) -> bool:
    if type(value) is str or type(value) is bytes:
        return len(value) <= _MESSAGE_BYTES
    return type(value) not in {list, tuple, dict, set, frozenset}


def format_traceback(exc: BaseException, encoder: Encoder, limit: int = 32768) -> str:
    """Return the traceback of *exc* as Python prints it, bounded in size and time.

    No locals. At most 50 frames for each exception, the first and the last, at most 10 chained
    or grouped exceptions, and at most *limit* bytes, of which the first 4 KiB are the beginning.
    Source lines come from files that linecache has, and from at most 20 others.

    Args:
        exc: The exception; groups, cycles of causes and deep recursion included.
        encoder: Masks messages and source lines.
        limit: In bytes.
    """
    try:
        text = "\n".join(_Trace(encoder).lines(exc)) + "\n"
    except BaseException:  # nothing that an exception does to its own report may leave
        text = f"{error_type(exc)}: {error_text(exc, encoder)}\n"
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
    """One traceback: counts what it may still write."""

    __slots__ = ("_encoder", "_files", "_room", "_seen")

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._files = _FILES
        self._room = _EXCEPTIONS
        self._seen: set[int] = set()

    def lines(self, exc: BaseException) -> Iterator[str]:
        """Write *exc* with those that led to it, the oldest first."""
        chain: list[tuple[BaseException, str]] = []
        node: BaseException | None = exc
        link = ""
        while node is not None and self._room > 0 and id(node) not in self._seen:
            self._seen.add(id(node))
            self._room -= 1
            chain.append((node, link))
            node, link = _previous(node)
        if node is not None:
            yield "[... earlier exceptions left out ...]"
        for one, follows in reversed(chain):
            yield from self._one(one)
            if follows:
                yield follows

    def _one(self, exc: BaseException) -> Iterator[str]:
        trace = _traceback(exc)
        if trace is not None:
            yield "Traceback (most recent call last):"
            yield from self._frames(trace)
        message = error_text(exc, self._encoder)
        yield f"{error_type(exc)}: {message}" if message else error_type(exc)
        notes = getattr(exc, "__notes__", None)
        for note in notes[:10] if type(notes) is list else ():
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

    def _frames(self, trace: TracebackType) -> Iterator[str]:
        first: list[TracebackType] = []
        last: deque[TracebackType] = deque(maxlen=_FRAMES // 2)
        node: TracebackType | None = trace
        count = 0
        while node is not None and count < _FRAMES_WALKED:
            count += 1
            if len(first) < _FRAMES // 2:
                first.append(node)
            else:
                last.append(node)
            node = node.tb_next
        for link in first:
            yield from self._frame(link)
        if count > len(first) + len(last):
            yield f"  [... {count - len(first) - len(last)} frames left out ...]"
        for link in last:
            yield from self._frame(link)

    def _frame(self, trace: TracebackType) -> Iterator[str]:
        code = trace.tb_frame.f_code
        name = clean(code.co_filename[-256:])
        yield f'  File "{name}", line {trace.tb_lineno}, in {clean(code.co_name[:128])}'
        if code.co_filename not in linecache.cache:
            if self._files <= 0:
                return
            self._files -= 1
        line = linecache.getline(code.co_filename, trace.tb_lineno).strip()
        if line:
            yield "    " + self._encoder.code(line[:256])


def _previous(exc: BaseException) -> tuple[BaseException | None, str]:
    cause = _cause(exc)
    if cause is not None:
        return cause, _CAUSED
    context = None if _suppressed(exc) else _context(exc)
    return context, _DURING if context is not None else ""
