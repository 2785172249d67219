"""How statuses, durations and foreign text look in a terminal; for the front doors that print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from aiotrack.model import Attempt, Execution, TaskStatus

COLOURS: Final[Mapping[TaskStatus, str]] = {
    TaskStatus.PENDING: "dim",
    TaskStatus.STARTED: "bold cyan",
    TaskStatus.SUCCESS: "green",
    TaskStatus.FAILURE: "bold red",
    TaskStatus.RETRY: "yellow",
    TaskStatus.REVOKED: "magenta",
}

SIGNS: Final[Mapping[TaskStatus, str]] = {
    TaskStatus.PENDING: "·",
    TaskStatus.STARTED: "▶",
    TaskStatus.SUCCESS: "✓",
    TaskStatus.FAILURE: "✗",
    TaskStatus.RETRY: "↻",
    TaskStatus.REVOKED: "■",
}

# A task's error may hold sequences that move the cursor or rename the window, and marks that turn
# text around or hide it: none gets through. The joiners stay, which words and emoji are made with.
UNSEEN: Final = (
    *range(127, 160),
    *(0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xD800, 0xE000),  # halves of a letter, which no terminal can be sent
    *(0xFEFF, 0xFFF9, 0xFFFA, 0xFFFB),
    *range(0xE0000, 0xE0080),
)
"""Code points that steer a terminal or cannot be seen, besides those that JSON escapes itself."""


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_CONTROLS: Final = {code: _escape(code) for code in (*range(32), *UNSEEN)}
_LINE: Final = {**_CONTROLS, ord("\n"): " ", ord("\t"): " "}
_BLOCK: Final = {code: text for code, text in _CONTROLS.items() if chr(code) not in "\n\t"}


def one_line(text: str, width: int | None = None) -> str:
    """Give foreign *text* as one line without control characters, cut at *width* with an ``…``."""
    line = text[: 4 * width if width else None].translate(_LINE).strip()
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def block(text: str) -> str:
    """Give foreign *text* without control characters; its lines stay."""
    return text.translate(_BLOCK)


def value(thing: Any, width: int | None = None) -> str:
    """Give a stored value as one line of JSON."""
    return one_line(json.dumps(thing, ensure_ascii=False, default=str), width)


def failure(run: Execution | Attempt, width: int | None = None) -> str:
    """Give the error of an execution or of one run as one line; nothing without one."""
    if run.error is None:
        return ""
    kind = (run.error_type or "").rpartition(".")[2]
    return one_line(f"{kind}: {run.error}" if kind not in {"", run.error} else run.error, width)


def outcome(execution: Execution, width: int | None = None) -> str:
    """Give the error or the result of an execution as one line."""
    if execution.error is not None:
        return failure(execution, width)
    return value(execution.result, width) if execution.is_completed else ""


def seconds(duration: float | None) -> str:
    """Give a duration in the unit that reads best; nothing for None."""
    if duration is None:
        return ""
    if duration < 0.000_999_5:
        return f"{duration * 1e6:.0f} µs"
    if duration < 0.999_5:
        return f"{duration * 1e3:.0f} ms"
    if duration < 59.95:
        return f"{duration:.1f} s"
    whole = round(duration)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(at: datetime | None) -> str:
    """Give a time in the reader's own time zone, which is told; nothing for None."""
    return "" if at is None else _moment(at, "seconds")


def instant(at: datetime) -> str:
    """Give a time as `moment` does, with milliseconds."""
    return _moment(at, "milliseconds")


def _moment(at: datetime, unit: str) -> str:
    return at.astimezone().isoformat(" ", unit).replace("+00:00", "Z")
