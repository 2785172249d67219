"""``/alerts/``: what somebody ought to see to."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel, Field

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.routes import Routes
from aiotrack.api.site import Now

routes = Routes("alerts", is_closed=True)


class AlertAnswer(BaseModel):
    """Something that somebody ought to see to."""

    rule: str = Field(examples=["failure-rate"])
    subject: str = Field(description="What it is about, such as a task's name.")
    text: str
    began_at: datetime
    ended_at: datetime | None = Field(description="Null: it goes on.")


class AlertsAnswer(BaseModel):
    """The alerts that go on, the newest first."""

    items: list[AlertAnswer]


@routes.add("GET", "/alerts/", Scope.READ, answer=AlertsAnswer)
async def list_alerts(here: Now) -> Json:
    """The alerts that go on; those that are over stand in the audit."""
    return Json({"items": [asdict(one) for one in await here.tracker.alerts.list()]})
