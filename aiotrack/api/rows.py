"""Executions as the API shows them: the row of a list, and the whole."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from aiotrack.model import Execution, TaskStatus
from aiotrack.traces import trace_url

_TIME: Final = "2026-03-01T08:00:00.125000Z"

_ROW: Final[dict[str, Any]] = {
    "id": 4711,
    "task_id": "5f0c2a7e9b3d4c1e",
    "task_name": "billing.sync",
    "module": "billing",
    "status": "STARTED",
    "created_at": _TIME,
    "started_at": _TIME,
    "finished_at": None,
    "created_by": "42",
    "duration": None,
    "is_completed": False,
    "is_running": True,
    "progress": {"percent": 40, "message": "page 4 of 10", "step": "fetch"},
    "created_by_id": "42",
    "created_by_username": "ada",
}


class Progress(BaseModel):
    """How far the work is, as it told last; all of it is null before it told anything."""

    percent: int | None = Field(description="0 to 100.")
    message: str | None
    step: str | None


class RowAnswer(BaseModel):
    """An execution in a list."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ROW]})

    id: int
    task_id: str
    task_name: str
    module: str
    status: TaskStatus
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    created_by: str | None = Field(description="Who asked for it.")
    duration: float | None = Field(description="Seconds.")
    is_completed: bool = Field(description="Whether the status is final.")
    is_running: bool = Field(description="Whether a worker runs it now.")
    progress: Progress
    created_by_id: str | None = Field(description="The same as `created_by`.")
    created_by_username: str | None = Field(
        description="Null where the application knows no names."
    )


class ExecutionAnswer(RowAnswer):
    """All that is known of an execution."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    attempt: int = Field(description="1 is the first; in RETRY the one that is waited for.")
    queue: str | None
    priority: int | None
    worker: str | None = Field(description="Id of the process that ran it.")
    wait: float | None = Field(description="Seconds between created and started.")
    args: list[Any]
    kwargs: dict[str, Any]
    result: Any
    error: str | None
    error_type: str | None
    error_class: str | None
    traceback: str | None
    metadata: dict[str, Any]
    schedule_id: str | None
    config_id: int | None
    parent_task_id: str | None
    rerun_of: str | None
    presumed: bool = Field(description="The verdict is a sweep's, and yields to the worker's word.")
    runs: int
    duplicates: int
    cancel_reason: str | None
    cancelled_by: str | None
    trace_id: str | None = Field(description="The trace of OpenTelemetry.")
    trace_url: str | None = Field(description="Where to look at it, if the setting says where.")
    time_limit: float | None = Field(description="Seconds that a run may take.")
    is_success: bool


class EventAnswer(RowAnswer):
    """An execution in an event."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    attempt: int
    worker: str | None
    error: str | None
    error_type: str | None
    error_class: str | None
    presumed: bool
    metadata: dict[str, Any]


Names = Mapping[str, str | None]


def row(execution: Execution, names: Names) -> dict[str, Any]:
    """Give an execution as lists show it; *names* are those of people, by their ids."""
    creator = execution.created_by
    status = execution.status
    return {
        "id": execution.id,
        "task_id": execution.task_id,
        "task_name": execution.task_name,
        "module": execution.module,
        "status": status,
        "created_at": execution.created_at,
        "started_at": execution.started_at,
        "finished_at": execution.finished_at,
        "created_by": creator,
        "duration": execution.duration,
        "is_completed": status.is_final,
        "is_running": status is TaskStatus.STARTED,
        "progress": _progress(execution.metadata),
        "created_by_id": creator,
        "created_by_username": None if creator is None else names.get(creator),
    }


def whole(execution: Execution, names: Names, traces: str | None) -> dict[str, Any]:
    """Give all of an execution; *traces* is where they are looked at."""
    more = {name: getattr(execution, name) for name in _MORE}
    more["trace_url"] = trace_url(traces, execution.trace_id)
    return row(execution, names) | more


def moving(execution: Execution) -> dict[str, Any]:
    """Give what of an execution may change while it lives; names are left out."""
    told = row(execution, {}) | {name: getattr(execution, name) for name in _MOVING}
    del told["created_by_username"]
    return told


_MORE: Final = tuple(
    ExecutionAnswer.model_fields.keys() - RowAnswer.model_fields.keys() - {"trace_url"}
)
_MOVING: Final = tuple(EventAnswer.model_fields.keys() - RowAnswer.model_fields.keys())


def _progress(metadata: Mapping[str, Any]) -> dict[str, Any]:
    percent = metadata.get("progress_percent")
    message, step = metadata.get("progress_message"), metadata.get("progress_step")
    return {
        "percent": percent if type(percent) is int else None,  # metadata is anybody's to write
        "message": message if isinstance(message, str) else None,
        "step": step if isinstance(step, str) else None,
    }
