"""What goes wrong, told as RFC 9457 problems: every fault with its path, never a traceback."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from taskiq.exceptions import SendTaskError

from aiotrack import errors

log = logging.getLogger(__name__)

MEDIA: Final = "application/problem+json"

SOON: Final = "2"
"""``Retry-After`` of what is away for a moment, in seconds."""

MOST: Final = 50
"""Faults that one answer lists."""

HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
"""On every answer: it is what it says it is, and it was true only then."""


class Fault(BaseModel):
    """One thing that is wrong, and where."""

    path: str = Field(description="Such as `query.page_size` or `body.priority`; may be empty.")
    message: str


class Problem(BaseModel):
    """An error, as RFC 9457 tells it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:aiotrack:execution-not-found",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no execution has the task_id 'a1'",
                    "code": "execution-not-found",
                    "errors": [],
                }
            ]
        }
    )

    type: str = Field(description="`urn:aiotrack:` and the code.")
    title: str
    status: int
    detail: str
    code: str = Field(description="What a program may look at; it does not change.")
    errors: list[Fault] = Field(description="Every fault of the request that was found.")


class Refused(Exception):
    """A request that gets no further."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        faults: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.faults = list(faults)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})


TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_NO_JSON: Final = "There was an error parsing the body"
"""What FastAPI says of numbers of 5,000 digits, and of bytes that are no text."""

_STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (errors.ExecutionNotFound, 404),
    (errors.DefinitionNotFound, 404),
    (errors.NotRepeatable, 409),
    (errors.UnknownTask, 409),
    (errors.LockNotAcquired, 409),
    (errors.QueueFull, 503),
    (errors.ScheduleUnavailable, 503),
    (errors.LockUnavailable, 503),
    (errors.QueryTimeout, 422),
    (errors.StoreError, 503),
    (errors.InvalidSetting, 422),
    (errors.InvalidQuery, 422),
    (errors.InvalidStatus, 422),
    (errors.InvalidValue, 422),
    (SendTaskError, 503),
)
"""The first that fits counts."""


def answer(
    status: int,
    code: str,
    detail: str,
    faults: Iterable[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Make the answer that tells of a problem."""
    told = {
        "type": f"urn:aiotrack:{code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [{"path": path, "message": message} for path, message in faults][:MOST],
    }
    more = {"Retry-After": SOON} if status == 503 else {}
    return Response(
        json.dumps(told), status, headers=HEADERS | more | dict(headers or {}), media_type=MEDIA
    )


def is_expected(error: Exception) -> bool:
    """Whether an error is one of ours or FastAPI's, that has an answer of its own here."""
    kinds = (Refused, RequestValidationError, HTTPException, *(kind for kind, _ in _STATUS))
    return isinstance(error, kinds)


def answer_to(error: Exception) -> Response:
    """Tell of any error; one that nobody expected is logged, and says nothing of itself."""
    if isinstance(error, Refused):
        return answer(error.status, error.code, error.detail, error.faults, error.headers)
    if isinstance(error, RequestValidationError):
        faults = [(_path(one["loc"]), str(one["msg"])) for one in error.errors()]
        return answer(422, "invalid-request", "; ".join(map(": ".join, faults[:3])), faults)
    if isinstance(error, HTTPException):
        if error.status_code == 400 and error.detail == _NO_JSON:
            return answer(422, "invalid-request", "the body is no JSON", [("body", "is no JSON")])
        title = TITLES.get(error.status_code, "Error")
        code = title.lower().replace(" ", "-")
        return answer(error.status_code, code, str(error.detail), headers=error.headers)
    for kind, status in _STATUS:
        if isinstance(error, kind):
            code = getattr(error, "code", "broker-unavailable")
            said = getattr(error, "faults", ())
            return answer(status, code, str(error) or code, [("", one) for one in said])
    log.error("an answer of the API failed", exc_info=error)
    return answer(500, "internal-error", "this should not happen: the server's log tells more")


def _path(location: Iterable[Any]) -> str:
    return ".".join(map(str, location))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give what OpenAPI says of these answers."""
    return {
        status: {"description": TITLES[status], "content": {MEDIA: {"schema": _SCHEMA}}}
        for status in statuses
    }


def _whole_schema() -> dict[str, Any]:
    """Give the schema of a problem in one piece: in whose document it will stand is not known."""
    schema = Problem.model_json_schema()
    schema["properties"]["errors"]["items"] = schema.pop("$defs")["Fault"]
    return schema


_SCHEMA: Final = _whole_schema()
