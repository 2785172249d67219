"""The options that narrow `list` and `stats`, and how they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from aiotrack.errors import InvalidQuery
from aiotrack.repository.filters import Narrowing

Texts = list[str] | None

Module = Annotated[Texts, typer.Option(metavar="NAME", help="Business scope.")]
TaskName = Annotated[Texts, typer.Option(metavar="NAME", help="Name of the task.")]
Status = Annotated[
    Texts,
    typer.Option(metavar="STATUS", help="pending, started, success, failure, retry or revoked."),
]
CreatedBy = Annotated[Texts, typer.Option(metavar="WHO", help="Who asked for it.")]
Worker = Annotated[Texts, typer.Option(metavar="ID", help="The worker that ran it.")]
ErrorClass = Annotated[Texts, typer.Option(metavar="CLASS", help="timeout, cancelled, ...")]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Created since: 30m, 2h, 7d ago, or an ISO time; without an offset it is local.",
    ),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Created until; as --since.")]
Metadata = Annotated[
    Texts,
    typer.Option(metavar="KEY=VALUE", help="In the metadata; the value is JSON or text."),
]
Text = Annotated[str | None, typer.Option(metavar="TEXT", help="How task_id or task_name begins.")]
Limit = Annotated[int, typer.Option(metavar="ROWS", help="Rows, 1 to 1000.")]
After = Annotated[
    str | None, typer.Option(metavar="CURSOR", help="Go on behind a page, which told it.")
]

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def narrowing(
    *,
    module: Sequence[str] | None = None,
    task_name: Sequence[str] | None = None,
    status: Sequence[str] | None = None,
    created_by: Sequence[str] | None = None,
    worker: Sequence[str] | None = None,
    error_class: Sequence[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    metadata: Sequence[str] | None = None,
    text: str | None = None,
) -> Narrowing:
    """Give the filters as `Tracker.list` takes them; what was not given is no filter.

    Raises:
        InvalidQuery: A time or a metadata pair that cannot be read.
    """
    return Narrowing(
        module=module or None,
        task_name=task_name or None,
        status=status or None,
        created_by=created_by or None,
        worker=worker or None,
        error_class=error_class or None,
        since=moment("--since", since),
        until=moment("--until", until),
        metadata=dict(map(pair, metadata)) if metadata else None,
        text=text,
    )


def moment(option: str, text: str | None) -> datetime | timedelta | None:
    """Read ``2h`` as a time ago, else an ISO time; without an offset it is the local time.

    Raises:
        InvalidQuery: It is neither.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            return timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise InvalidQuery(
            f"{option}: {text!r} is no time: write 30m, 2h, 7d or 2026-01-31T08:00"
        ) from None


def pair(text: str) -> tuple[str, Any]:
    """Read ``key=value``.

    Raises:
        InvalidQuery: There is no ``=``.
    """
    key, sign, value = text.partition("=")
    if not sign:
        raise InvalidQuery(f"--metadata: {text!r} is no KEY=VALUE")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):  # the latter: a text of brackets
        return key, value
