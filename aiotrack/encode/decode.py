"""Stored JSON → the value that it was written from, where nothing of it is missing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

from aiotrack.encode.leaves import BYTES, FLOAT, INT
from aiotrack.encode.redact import REDACTED

_REASONS: Final = {
    "$redacted": "redacted",
    "$truncated": "cut",
    "$text": "cut",
    "$ref": "refers to itself",
    "$type": "no word in JSON",
    "$repr": "no word in JSON",
    "$timedelta": "no word in JSON",
}


def decode(text: str) -> Any:
    """Give the value of a text that the encoder called exact."""
    return json.loads(text, object_hook=_read)


def _read(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        if INT in found:
            return int(found[INT])
        if FLOAT in found:
            return float(found[FLOAT])
    if found.keys() == {BYTES, "base64"}:
        return base64.b64decode(found["base64"])
    return found


def inexact(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Give where stored JSON, as it was read, says that it is not all, and why.

    Args:
        value: What ``json.loads`` made of it.
        path: Its name; those of its parts begin with it.
    """
    if value == REDACTED:
        yield path, "redacted"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from inexact(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        told = next((reason for key, reason in _REASONS.items() if key in value), None)
        if told is None and BYTES in value and "base64" not in value:
            told = "cut"
        if told is not None:
            yield path, told
            return
        for key, item in value.items():
            yield from inexact(item, f"{path}.{key}")
