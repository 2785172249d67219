"""``/report/``: what ran in a stretch of time, by task."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Final, Literal

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.counts import SumsAnswer
from aiotrack.api.problems import HEADERS
from aiotrack.api.queries import Begin, End, Texts
from aiotrack.api.routes import Routes
from aiotrack.api.site import ClosedQuery, Now
from aiotrack.model import TaskStatus
from aiotrack.paper import STYLE, data, write

routes = Routes("report", is_closed=True)

MEDIA: Final = {"md": "text/markdown", "html": "text/html", "csv": "text/csv"}

POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)
"""A report runs nothing, loads nothing and leads nowhere; only its own style holds."""


class TaskSumsAnswer(BaseModel):
    """A task in both stretches."""

    task_name: str
    now: SumsAnswer
    before: SumsAnswer


class SlowAnswer(BaseModel):
    """An execution that took long."""

    task_id: str
    task_name: str
    status: TaskStatus
    duration: float = Field(description="Seconds.")
    created_at: datetime


class WorkerCountAnswer(BaseModel):
    """Worker processes."""

    alive: int
    seen: int = Field(description="Within a day.")


class ReportAnswer(BaseModel):
    """What was created in a stretch of time, beside the same length of time before."""

    since: datetime
    until: datetime
    now: SumsAnswer
    before: SumsAnswer
    tasks: list[TaskSumsAnswer] = Field(description="The 50 most frequent ones.")
    slowest: list[SlowAnswer] = Field(description="Of those that are still stored.")
    workers: WorkerCountAnswer


class ReportQuery(ClosedQuery):
    """Which stretch, and of what."""

    since: Begin | None = Field(
        None, description="ISO time or date; a week before `until` unless told."
    )
    until: End | None = Field(None, description="Inclusive; now unless told.")
    module: Texts = Field([])
    task_name: Texts = Field([])
    form: Literal["json", "md", "html", "csv"] = Field(
        "json",
        alias="format",
        description="What it is written in: JSON, Markdown, a page, or a line for each task.",
    )


@routes.add("GET", "/report/", Scope.READ, answer=ReportAnswer, forms=tuple(MEDIA.values()))
async def get_report(here: Now, query: Annotated[ReportQuery, Query()]) -> Response:
    """Counts, failure rates, times and waits by task, from rollups: cleaned rows still count."""
    found = await here.tracker.report(
        query.since,
        query.until,
        module=query.module or None,
        task_name=query.task_name or None,
    )
    if query.form == "json":
        return Json(data(found))
    headers = {**HEADERS, "Content-Type": f"{MEDIA[query.form]}; charset=utf-8"}
    if query.form == "html":
        headers["Content-Security-Policy"] = POLICY
    if query.form == "csv":
        days = f"{found.since:%Y-%m-%d}-{found.until:%Y-%m-%d}"
        headers["Content-Disposition"] = f'attachment; filename="aiotrack-{days}.csv"'
    text = write(found, query.form)
    return Response(text.encode(errors="replace"), headers=headers)
