"""What ``/configs`` takes and answers, for the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from aiotrack.api.fields import LONGEST, Text

Kind = Literal["manual", "cron", "interval", "once"]
Action = Literal["start", "stop", "pause", "resume", "trigger"]
State = Literal["active", "paused", "inactive"]


class Fields(BaseModel):
    """What may be said of a definition."""

    model_config = ConfigDict(extra="forbid")

    name: Text = Field(min_length=1, max_length=200, description="Unique.")
    task_type: Text = Field(min_length=1, max_length=1000, description="The task's name.")
    description: Text = Field("", max_length=LONGEST)
    schedule_kind: Kind = "manual"
    schedule: dict[str, Any] = Field(
        default_factory=dict,
        description='`{"cron": "*/5 * * * *", "tz": "Europe/Berlin"}`, `{"seconds": 300}`, '
        '`{"at": "2027-01-01T00:00:00Z"}`; of a manual one `{}`.',
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments.")
    max_retries: int = Field(
        0, ge=0, le=2**31 - 2, description="After the first attempt; 0: as the task's labels say."
    )
    timeout_seconds: float | None = Field(None, gt=0, description="What a run may take.")
    priority: int = Field(5, ge=1, le=10)
    queue: Text | None = Field(None, min_length=1, max_length=1000)


class NewConfig(Fields):
    """A new definition."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "bills of the day",
                    "task_type": "shop.tasks:bill_all",
                    "schedule_kind": "cron",
                    "schedule": {"cron": "0 6 * * *", "tz": "Europe/Berlin"},
                    "parameters": {"limit": 100},
                }
            ]
        }
    )


class Changes(Fields):
    """What is to change; what is left out stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"schedule": {"cron": "0 7 * * *"}, "priority": 8}]}
    )

    name: Text = Field("", min_length=1, max_length=200)
    task_type: Text = Field("", min_length=1, max_length=1000)


class ConfigAnswer(BaseModel):
    """A definition, and its schedule."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 7,
                    "name": "bills of the day",
                    "description": "",
                    "task_type": "shop.tasks:bill_all",
                    "schedule_kind": "cron",
                    "schedule": {"cron": "0 6 * * *", "tz": "Europe/Berlin"},
                    "parameters": {"limit": 100},
                    "max_retries": 0,
                    "timeout_seconds": None,
                    "priority": 5,
                    "queue": None,
                    "created_at": "2026-11-01T08:00:00Z",
                    "updated_at": "2026-11-01T08:00:00Z",
                    "is_scheduled": True,
                    "schedule_status": "active",
                    "next_run_at": "2026-11-02T05:00:00Z",
                }
            ]
        }
    )

    id: int
    name: str
    description: str
    task_type: str
    schedule_kind: Kind
    schedule: dict[str, Any]
    parameters: dict[str, Any] = Field(description="Secrets in them are masked.")
    max_retries: int
    timeout_seconds: float | None
    priority: int
    queue: str | None
    created_at: datetime
    updated_at: datetime
    is_scheduled: bool = Field(description="Whether a schedule may send it: it is not `manual`.")
    schedule_status: State | None = Field(description="Null while Redis does not answer.")
    next_run_at: datetime | None = Field(
        description="Null unless it is active, and while Redis does not answer."
    )


class ConfigsAnswer(BaseModel):
    """Definitions, the oldest first."""

    items: list[ConfigAnswer]
    next: str | None = Field(description="`after` of the next page.")


class Verb(BaseModel):
    """What is to be done with a schedule."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"action": "pause", "reason": "holidays"}]}
    )

    action: Action | None = Field(None, description="Here, or in the query.")
    reason: Text | None = Field(None, max_length=LONGEST, description="Why, for the audit.")


class VerbAnswer(BaseModel):
    """How a schedule stands now."""

    id: int
    schedule_status: State | None = Field(description="Null while Redis does not answer.")
    next_run_at: datetime | None
    task_id: str | None = Field(description="Of what `trigger` sent.")


class ByTypeAnswer(BaseModel):
    """How many definitions there are of each task."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"counts": {"shop.tasks:bill_all": 2}}]}
    )

    counts: dict[str, int]
