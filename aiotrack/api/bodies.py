"""Bodies and answers: JSON, bounded in size and depth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from aiotrack.api.problems import HEADERS, Refused

MOST: Final = 1024 * 1024
"""Bytes of a body: the arguments of a task are 64 KiB."""

DEEPEST: Final = 64
"""Objects and lists within each other; the parser of Python gives up at about a thousand."""


class Json(Response):
    """An answer of plain data; datetimes are UTC, with a Z."""

    media_type = "application/json"

    def __init__(
        self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(content, status_code, headers={**HEADERS, **(headers or {})})

    def render(self, content: Any) -> bytes:
        """Give the bytes."""
        return to_bytes(content)


def to_json(content: Any) -> str:
    """Give JSON of plain data with datetimes in it, on one line."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=_plain)


def to_bytes(content: Any) -> bytes:
    """Give JSON as UTF-8; a lone surrogate, which a task_id may hold, is escaped."""
    try:
        return to_json(content).encode()
    except UnicodeEncodeError:
        return json.dumps(content, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


async def read_body(
    request: Request, most: int = MOST, deepest: int = DEEPEST, *, is_lenient: bool = False
) -> None:
    """Read the body of a request, so that what follows finds it checked.

    Args:
        request: Its body was not read yet.
        most: Bytes.
        deepest: Objects and lists within each other.
        is_lenient: Whether NaN and infinities are numbers, as Python writes them.

    Raises:
        Refused: It is too long (413), not called JSON (415), or no JSON, or too deep (422).
    """
    told = request.headers.get("content-length", "")
    if told.isdigit() and (len(told) > 18 or int(told) > most):
        raise _too_long(most)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_long(most)
        parts.append(part)
    body = b"".join(parts)
    request._body = body  # noqa: SLF001 - where `Request.body` keeps what it has read
    if not body:
        return
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "unsupported-media-type", "a body is JSON: application/json")
    if _depth(body, deepest) > deepest:
        detail = f"more than {deepest} objects and lists within each other"
        raise Refused(422, "too-deep", detail, faults=[("body", detail)])
    constant = float if is_lenient else _no_number
    try:  # here: FastAPI would call what is no UTF-8, or a number too long to read, a 400
        told = json.loads(body.decode(), parse_constant=constant)
    except (ValueError, RecursionError) as error:
        faults = [("body", f"is no JSON: {error}")]
        detail = f"the body is no JSON: {error}"
        raise Refused(422, "invalid-json", detail, faults=faults) from None
    request._json = told  # noqa: SLF001 - what `Request.json` gives


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _too_long(most: int) -> Refused:
    return Refused(413, "content-too-large", f"a body has at most {most} bytes")


def _depth(body: bytes, deepest: int) -> int:
    """Count how deep brackets go, those within texts left out."""
    if body.count(b"[") + body.count(b"{") <= deepest:
        return 0
    most = depth = 0
    in_text = escaped = False
    for byte in body:
        if in_text:
            in_text = escaped or byte != 0x22
            escaped = byte == 0x5C and not escaped
        elif byte == 0x22:
            in_text = True
        elif byte in b"[{":
            depth += 1
            most = max(most, depth)
        elif byte in b"]}":
            depth -= 1
    return most
