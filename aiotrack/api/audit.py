"""``/audit/``: who did what to what."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.fields import After, Limit, PageSize, Since, Text, Until
from aiotrack.api.routes import Routes
from aiotrack.api.site import Now

routes = Routes("audit", is_closed=True)


class EntryAnswer(BaseModel):
    """A row of the audit."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "at": "2026-11-01T08:00:00.123456Z",
                    "actor": "42",
                    "action": "schedule.pause",
                    "target": "definition:7",
                    "reason": "maintenance",
                    "before": {"state": "active", "anchor": 1793520000000},
                    "after": {"state": "paused", "anchor": 1793520000000},
                }
            ]
        }
    )

    at: datetime
    actor: str | None = Field(description="Null: nobody said who asks.")
    action: str
    target: str
    reason: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditAnswer(BaseModel):
    """Rows of the audit, the newest first."""

    items: list[EntryAnswer]
    next: str | None = Field(description="`after` of the next page.")


Name = Annotated[Text | None, Query(max_length=1024)]


@routes.add("GET", "/audit/", Scope.READ, answer=AuditAnswer)
async def list_audit(
    here: Now,
    actor: Name = None,
    action: Name = None,
    target: Name = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    page_size: PageSize = None,
    after: After = None,
) -> Json:
    """Who did what to what, the newest first; every filter is exact."""
    page = await here.tracker.audit.list(
        actor=actor,
        action=action,
        target=target,
        since=since,
        until=until,
        limit=page_size or limit,
        after=after,
    )
    return Json({"items": [asdict(one) for one in page.items], "next": page.next})
