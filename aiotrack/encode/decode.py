"""Stored JSON → the value that it was written from, where nothing of it is missing."""

from __future__ import annotations

import base64
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


def revive(value: Any) -> Any:
    """Give what the encoder called exact, from what ``json.loads`` made of its text.

    Raises:
        ValueError: An integer has more digits than this process reads.
    """
    if isinstance(value, list):
        return [revive(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {INT}:
        return int(value[INT])
    if value.keys() == {FLOAT}:
        return float(value[FLOAT])
    if value.keys() == {BYTES, "base64"}:
        return base64.b64decode(value["base64"])
    return {key: revive(item) for key, item in value.items()}


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
