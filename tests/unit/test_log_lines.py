"""Records of `logging` → lines: nothing in a record raises, and nothing secret or endless stays."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from aiotrack.encode import Encoder
from aiotrack.logs.lines import LEVELS, line_of
from aiotrack.logs.scroll import LINE_BYTES, Line

ENCODER = Encoder()


class Bad:
    """Raises whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__
    __format__ = None  # type: ignore[assignment]


class Recursive:
    def __str__(self) -> str:
        return str(self)


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")


def told(message: Any, *args: Any, **values: Any) -> Line:
    """Give the line of a record, masked as the writer masks it."""
    record = logging.LogRecord("app", logging.INFO, "app.py", 1, message, args or None, None)
    for name, value in values.items():
        setattr(record, name, value)
    line = line_of(record, 5, ENCODER, 16_384)
    return line._replace(message=ENCODER.text(line.message, 16_384))


def test_a_line_tells_level_logger_and_message() -> None:
    """The message is formatted once, with its arguments."""

    line = Line(5, 20, "INFO", "app", "7 rows of shop", 14 + LINE_BYTES)
    assert line == told("%d rows of %s", 7, "shop")


POISON: dict[str, tuple[Any, ...]] = {
    "too few arguments": ("%s %s", 1),
    "too many arguments": ("x", 1, 2),
    "wrong type": ("%d", "x"),
    "bad format": ("%y", 1),
    "object that raises": ("%s", Bad()),
    "message that raises": (Bad(),),
    "recursion": ("%s", Recursive()),
    "text that raises": (Text("x"),),
    "mapping": ("%(a)s", {"b": 1}),
    "dict that raises": ({"event": Bad()},),
    "bytes": (b"\xff\x00",),
    "none": (None,),
}


@pytest.mark.parametrize("given", POISON.values(), ids=POISON)
def test_no_record_raises(given: tuple[Any, ...]) -> None:
    """What cannot be formatted becomes a line that says so."""
    line = told(*given)

    assert line.message
    assert len(line.message) < 1000


def test_what_cannot_be_formatted_shows_its_parts() -> None:
    """Message and arguments stand there, redacted."""
    line = told("%d for password=%s", "x", "hunter2")

    assert line.message.startswith("[not formatted: TypeError] ")
    assert "%d for password=" in line.message


SECRETS = {
    "pair": ("login with password=hunter2",),
    "argument": ("token: %s", "hunter2hunter2"),
    "url": ("at postgresql://me:hunter2@host/db",),
    "header": ("Authorization: Bearer hunter2hunter2",),
    "event": ({"event": "login", "password": "hunter2"},),
    "far into a long one": ("x" * 9000 + " password=hunter2",),
}


@pytest.mark.parametrize("given", SECRETS.values(), ids=SECRETS)
def test_secrets_are_masked(given: tuple[Any, ...]) -> None:
    """By name and by shape, as in arguments and errors."""

    assert "hunter2" not in told(*given).message


def test_a_traceback_stands_behind_the_message() -> None:
    """Masked, without locals; chained causes are there."""
    try:
        try:
            raise ValueError("password=hunter2")
        except ValueError as cause:
            raise KeyError("k") from cause
    except KeyError:
        line = told("it failed", exc_info=sys.exc_info())

    assert line.message.startswith("it failed\nTraceback (most recent call last):")
    assert line.message.endswith("KeyError: 'k'")
    assert "ValueError: password=[redacted]" in line.message


@pytest.mark.parametrize("info", [(None, None, None), None, False, (1, 2), "x"])
def test_odd_exc_info_is_nothing(info: Any) -> None:
    """What is no exception adds nothing."""

    assert "x" == told("x", exc_info=info).message


def test_stack_info_is_kept() -> None:
    """What ``stack_info=True`` adds stands behind the message."""

    assert (
        "x\nStack (most recent call last):"
        == told("x", stack_info="Stack (most recent call last):").message
    )


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", "\0", "\udc80"])
def test_a_message_is_bounded(letter: str) -> None:
    """A megabyte becomes 8 KiB with a mark, whatever it is made of."""
    line = told(letter * 1_000_000)
    data = line.message.encode()

    assert 8000 < len(data) <= 8192
    assert "[cut, " in line.message
    assert line.size <= 8192 + LINE_BYTES


def test_message_and_traceback_are_bounded_together() -> None:
    """Both at their longest still fit into one line."""
    try:
        raise ValueError("y" * 100_000)
    except ValueError:
        line = told("x" * 100_000, exc_info=sys.exc_info())

    assert 8192 < len(line.message) <= 16_384


def test_nul_and_surrogates_are_replaced() -> None:
    """What no database takes is not in a line."""

    assert "a␀b�" == told("a\0b\udc80").message


def test_levels_are_bounded() -> None:
    """A level of any size fits into its column."""

    assert LEVELS == told("x", levelno=10**20).level_number
    assert 0 == told("x", levelno=-5).level_number


def test_an_event_of_structlog_reads_as_a_line() -> None:
    """Event first, then its values; what the line has anyway is left out."""
    event = {"event": "order paid", "order": 7, "level": "info", "logger": "app", "who": "me"}

    assert "order paid order=7 who='me'" == told(event).message
