"""A record of `logging` → a line. Nothing that is in a record may raise into the task."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from aiotrack.encode import Encoder, format_traceback
from aiotrack.logs.scroll import LINE_BYTES, Line

MESSAGE_BYTES = 8192
"""Bytes of one message, and of a traceback behind it."""

LEVELS = 32_767
"""The highest level that is kept as it is."""

FRAMEWORK = frozenset({"aiotrack", "taskiq", "taskiq_redis"})
"""First parts of the names of loggers that speak of tasks, not for them: TaskIQ's worker logs a
line before each task, and its error after it, which the record has anyway."""


def line_of(record: logging.LogRecord, at: int, encoder: Encoder, limit: int) -> Line:
    """Give a record as a line whose message is not masked yet, but bounded.

    Args:
        record: As a handler gets it.
        at: Now, in microseconds.
        encoder: Masks what has to be cut, and tracebacks.
        limit: Bytes of message and traceback together.
    """
    try:
        message = _told(record)
    except Exception as error:
        message = _untold(record, error, encoder)
    most = min(limit, MESSAGE_BYTES)
    if len(message) > most // 4:  # a character may take four bytes
        message = encoder.text(message, most)
    trace = _trace(record, encoder)
    if trace:
        message = f"{message}\n{trace}" if message else trace
        if len(message) > limit // 4:
            message = encoder.text(message, limit)
    length = len(message) if message.isascii() else len(message.encode("utf-8", "surrogatepass"))
    number = min(max(int(record.levelno), 0), LEVELS)
    level, logger = str(record.levelname), str(record.name)
    return Line(at, number, level, logger, message, length + LINE_BYTES)


def _told(record: logging.LogRecord) -> str:
    told = record.msg
    if type(told) is dict and not record.args:  # structlog, before its formatter
        return _from_event(told)
    return str.__str__(record.getMessage())


def _from_event(event: Mapping[Any, Any]) -> str:
    """Give an event with its values behind it: ``order paid id=7``."""
    rest = [
        f"{key}={value!r}"
        for key, value in event.items()
        if key not in {"event", "level", "logger", "timestamp", "exc_info", "exception"}
    ]
    words = " ".join([*([str(event["event"])] if "event" in event else []), *rest])
    return f"{words}\n{event['exception']}" if "exception" in event else words


def _untold(record: logging.LogRecord, error: Exception, encoder: Encoder) -> str:
    """Give what can be told of a record whose message cannot be made."""
    told = encoder.encode({"message": record.msg, "args": record.args}).text
    return f"[not formatted: {type(error).__name__}] {told}"


def _trace(record: logging.LogRecord, encoder: Encoder) -> str:
    """Give the traceback and the stack that come with a record."""
    given: Any = record.exc_info
    if given is None and type(record.msg) is dict:
        given = record.msg.get("exc_info")
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) and len(given) == 3 else given
    told = ""
    if isinstance(error, BaseException):
        told = format_traceback(error, encoder, MESSAGE_BYTES).rstrip("\n")
    if isinstance(record.stack_info, str):
        stack = encoder.text(record.stack_info, MESSAGE_BYTES)
        told = f"{told}\n{stack}" if told else stack
    return told
