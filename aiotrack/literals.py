"""Reading the text that `repr` makes of a mapping: TaskIQ sends labels as text. Runs no code."""

from __future__ import annotations

import ast
import datetime as dt
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

_NAMES: Final[Mapping[str, Any]] = {
    "nan": math.nan,
    "inf": math.inf,
    "datetime.timezone.utc": dt.UTC,
}

_CALLS: Final[Mapping[str, Callable[..., Any]]] = {
    "datetime.date": dt.date,
    "datetime.datetime": dt.datetime,
    "datetime.time": dt.time,
    "datetime.timedelta": dt.timedelta,
    "datetime.timezone": dt.timezone,
    "Decimal": Decimal,
    "UUID": UUID,
}
"""Classes whose words we know; what another is made of stays text."""


def read_repr(text: str) -> Any:
    """Read the `repr` of a value; None for what is none.

    Literals and what the classes above say of themselves are read, any other part is kept as the
    text that it is.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        try:
            return ast.literal_eval(node)
        except ValueError:
            return _read(node)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _read(node: ast.expr) -> Any:
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {
            _key(key): _read(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        }
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_read(one) for one in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _made(node)


def _key(node: ast.expr) -> Any:
    found = _read(node)
    return str(found) if isinstance(found, (dict, list)) else found


def _made(node: ast.expr) -> Any:
    """Read what `repr` says of floats and objects; else give its text."""
    text = ast.unparse(node)
    if text.startswith("-") and text[1:] in _NAMES:
        return -_NAMES[text[1:]]
    if text in _NAMES:
        return _NAMES[text]
    if isinstance(node, ast.Call) and (make := _CALLS.get(ast.unparse(node.func))):
        try:
            return make(
                *[_read(one) for one in node.args],
                **{one.arg: _read(one.value) for one in node.keywords if one.arg is not None},
            )
        except (ValueError, TypeError, AttributeError, ArithmeticError):
            pass
    return text
