"""``/report/``: what ran in a stretch of time, by task."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.counts import SumsAnswer
from aiotrack.api.queries import Begin, End, Texts
from aiotrack.api.routes import Routes
from aiotrack.api.site import Now
from aiotrack.model import TaskStatus
from aiotrack.paper import data

routes = Routes("report")

WEEK: Final = timedelta(days=7)


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


class CountAnswer(BaseModel):
    """How many there are."""

    value: int
    is_exact: bool = Field(description="False: there are more.")


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
    timed_out: CountAnswer
    lost: CountAnswer
    workers: WorkerCountAnswer


class ReportQuery(BaseModel):
    """Which stretch, and of what."""

    model_config = ConfigDict(extra="forbid")

    since: Begin | None = Field(
        None, description="ISO time or date; a week before `until` unless told."
    )
    until: End | None = Field(None, description="Inclusive; now unless told.")
    module: Texts = []
    task_name: Texts = []


@routes.add("GET", "/report/", Scope.READ, answer=ReportAnswer)
async def get_report(here: Now, query: Annotated[ReportQuery, Query()]) -> Json:
    """Counts, failure rates, times and waits by task, from rollups: cleaned rows still count."""
    found = await here.tracker.report(
        WEEK if query.since is None else query.since,
        query.until,
        module=query.module or None,
        task_name=query.task_name or None,
    )
    return Json(data(found))
