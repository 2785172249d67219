"""What the API said is wrong, as the error that the tracker itself would raise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from aiotrack import errors
from aiotrack.errors import AioTrackError


class ClientError(AioTrackError):
    """The API refused, or failed, in a way that only an API can.

    ``status`` is HTTP's, ``code`` what the problem says, ``faults`` lists what is wrong with the
    request, each with its path.
    """

    code = "client-error"

    def __init__(
        self, status: int, code: str, detail: str, faults: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.faults = dict(faults or {})
        super().__init__(f"{status} {code}: {detail}")


class AccessRefused(ClientError):
    """The token is missing, unknown, or not enough for what was asked."""


_KINDS: Final = {
    kind.code: kind
    for kind in (
        errors.ExecutionNotFound,
        errors.DefinitionNotFound,
        errors.NotRepeatable,
        errors.UnknownTask,
        errors.QueueFull,
        errors.InvalidQuery,
        errors.InvalidStatus,
        errors.InvalidValue,
        errors.InvalidInput,
        errors.InvalidDefinition,
        errors.InvalidSetting,
        errors.LockNotAcquired,
        errors.LockUnavailable,
        errors.ScheduleUnavailable,
        errors.QueryTimeout,
        errors.StoreError,
        errors.StoreUnavailable,
        errors.SchemaOutdated,
        errors.SchemaTooNew,
    )
}

_KINDS["setting-not-found"] = errors.InvalidSetting

_UNTOLD: Final[dict[str, Any]] = {
    "key": None,
    "task_id": None,
    "task_name": None,
    "name": None,
    "queue": None,
    "depth": None,
    "limit": None,
    "seconds": None,
    "found": None,
    "needed": None,
    "known": None,
    "word": None,
    "fault": None,
    "holder": {},
    "fields": {},
    "brokers": 0,
}
"""Data that the tracker's errors have, and a problem does not tell."""


def error_of(status: int, body: bytes, key: str | int | None, *, is_read: bool) -> AioTrackError:
    """Make the error that an answer tells of.

    Args:
        status: Of the answer.
        body: Of the answer: a problem of ours, or a page of whatever stands between.
        key: What was asked for.
        is_read: Whether nothing was to be changed.
    """
    told = object_with("code", body)
    if told is None:
        kind = AccessRefused if status in {401, 403} else ClientError
        return kind(status, f"http-{status}", "the answer is none of aiotrack's API")
    code, detail = str(told.get("code", "")), str(told.get("detail", ""))
    given = told.get("errors")
    listed = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    faults = {str(one.get("path", "")): str(one.get("message", "")) for one in listed}
    if status in {401, 403}:
        return AccessRefused(status, code, detail)
    if code == "invalid-request":
        code = errors.InvalidQuery.code if is_read else errors.InvalidInput.code
    known = _KINDS.get(code)
    if known is None:
        return ClientError(status, code, detail, faults)
    messages = [
        ": ".join(filter(None, (str(one.get("path")), str(one.get("message"))))) for one in listed
    ]
    return _made(known, detail, {"key": key, "task_id": key, "faults": messages or [detail]})


def error_told(code: str, detail: str, task_id: str) -> AioTrackError:
    """Make the error that an answer tells of one execution among others."""
    known = _KINDS.get(code)
    if known is None:
        return ClientError(200, code, detail)
    return _made(known, detail, {"key": task_id, "task_id": task_id, "faults": [detail]})


def _made(kind: type[AioTrackError], detail: str, data: Mapping[str, Any]) -> AioTrackError:
    """Make an error with the server's words: its own are made from data that stayed there."""
    error = kind.__new__(kind)
    error.args = (detail,)
    for name, value in {**_UNTOLD, **data}.items():
        setattr(error, name, value)
    return error


def code_of(body: bytes) -> str:
    """Give the code of a problem, empty where there is none."""
    told = object_with("code", body)
    return "" if told is None else str(told.get("code", ""))


def object_with(name: str, body: bytes) -> dict[str, Any] | None:
    """Read an object that has a key by which it is known as ours; None: it is none."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and name in told else None
