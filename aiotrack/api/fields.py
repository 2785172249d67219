"""What several routes take in bodies, paths and queries."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
)
from starlette.requests import Request

from aiotrack.api.problems import Refused

SAFE: Final = 2**53 - 1
"""The largest whole number that every reader of JSON knows exactly."""

LONGEST: Final = 8192
"""Characters of a reason or a description: more is cut when it is stored."""

AS_GIVEN: Final = WrapValidator(lambda value, _: value)
"""A body whose type only tells the document: the handler looks for all faults at once, itself."""


def _whole(text: str) -> str:
    if "\0" in text:
        raise ValueError("must be without NUL characters")
    return text


Text = Annotated[str, AfterValidator(_whole)]
"""What a database takes; halves of characters pydantic refuses itself."""

Limit = Annotated[int, Query(ge=1, le=500, description="Rows of the page.")]
PageSize = Annotated[
    int | None, Query(ge=1, le=500, description="The same as `limit`, before which it comes.")
]
After = Annotated[
    str | None, Query(max_length=2000, description="`next` of the page before, with its filters.")
]


def _moment(text: object, *, is_end: bool = False) -> object:
    if not isinstance(text, str):
        return text
    told = re.sub(r"(T.*) (\d\d:?\d\d)$", r"\1+\2", text.strip())  # a + that nobody encoded
    try:
        found = datetime.fromisoformat(told)
    except ValueError:
        raise ValueError("must be an ISO time or date") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    if is_end and len(told) == len("2026-01-01"):
        with contextlib.suppress(OverflowError):
            found += timedelta(days=1, microseconds=-1)
    return found


_ISO: Final = WithJsonSchema(
    {"anyOf": [{"type": "string", "format": one} for one in ("date-time", "date")]}
)
Since = Annotated[
    Annotated[datetime, BeforeValidator(_moment), _ISO] | None,
    Query(description="ISO time or date; without an offset UTC."),
]
Until = Annotated[
    Annotated[datetime, BeforeValidator(functools.partial(_moment, is_end=True)), _ISO] | None,
    Query(description="ISO time, without an offset UTC; a date includes that whole day."),
]


def read(model: type[BaseModel], body: object, name: str = "body") -> list[tuple[str, str]]:
    """Tell what is wrong with a body that was taken as it is, each with its path."""
    try:
        model.model_validate(body)
    except ValidationError as error:
        return [
            (".".join(map(str, (name, *one["loc"]))), str(one["msg"]))
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    return []


def invalid(faults: Iterable[tuple[str, str]], code: str = "invalid-request") -> Refused:
    """Make the refusal of a request with faults."""
    told = list(faults)
    detail = "; ".join(f"{path}: {said}" if path else said for path, said in told[:3])
    return Refused(422, code, detail, faults=told)


def last_of(request: Request, text: str) -> str:
    """Give what ends a path, and may hold slashes; one that ends the path itself is optional."""
    raw = request.scope.get("raw_path") or b"/"
    is_extra = text.endswith("/") and raw.endswith(b"/")  # and not its own: that is %2F
    return text.removesuffix("/") if is_extra else text


async def task_id_of(
    request: Request,
    task_id: Annotated[str, Path(max_length=4096, description="Percent-encoded.")],
) -> str:
    """Give a task_id that ends a path."""
    return last_of(request, task_id)
