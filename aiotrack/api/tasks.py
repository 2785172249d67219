"""``/tasks`` and ``/task-types/``: sending tasks by name, and asking after them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from aiotrack import catalog
from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json, to_json
from aiotrack.api.fields import AS_GIVEN, LONGEST, Text, invalid, read, task_id_of
from aiotrack.api.routes import Routes
from aiotrack.api.site import Here, Now
from aiotrack.body import find_task
from aiotrack.current import tracking
from aiotrack.errors import ExecutionNotFound, UnknownTask
from aiotrack.labels import is_tracked
from aiotrack.model import Execution, TaskInfo, TaskStatus, is_own

if TYPE_CHECKING:
    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask

    from aiotrack.encode import Encoder

routes = Routes("tasks", of_all=False, is_closed=True)

WORDS: Final = {
    TaskStatus.PENDING: "created",
    TaskStatus.STARTED: "running",
    TaskStatus.RETRY: "running",
    TaskStatus.SUCCESS: "completed",
    TaskStatus.FAILURE: "failed",
    TaskStatus.REVOKED: "cancelled",
}

YEAR: Final = 31_536_000
"""Seconds: the longest time limit."""

LONGEST_NAME: Final = 1000

DESCRIPTION: Final = "description"
"""Key of the execution's metadata."""


class NewTask(BaseModel):
    """A task to be run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "task_type": "shop.tasks:bill",
                    "description": "The bill of order 7",
                    "parameters": {"order_id": 7},
                    "priority": 5,
                    "timeout_seconds": 60,
                }
            ]
        },
    )

    task_type: Text = Field(
        min_length=1, max_length=LONGEST_NAME, description="The task's name: see `/task-types/`."
    )
    description: Text = Field(
        max_length=LONGEST, description="Kept as `metadata.description` of the execution."
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments, checked against the task's function."
    )
    priority: int = Field(1, ge=1, le=10, strict=True, description="10 comes first.")
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        le=YEAR,
        strict=True,
        allow_inf_nan=False,
        description="What a run may take; null: the task's own limit, or the setting's.",
    )


class CreatedAnswer(BaseModel):
    """The task was sent."""

    task_id: str
    status: str = Field(examples=["created"])


class TaskAnswer(BaseModel):
    """A task, as it is known now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "task_id": "3f1c",
                    "task_type": "shop.tasks:bill",
                    "description": "The bill of order 7",
                    "status": "running",
                    "priority": 5,
                    "timeout_seconds": 60.0,
                    "progress": 40,
                    "created_at": "2026-11-01T08:00:00Z",
                    "started_at": "2026-11-01T08:00:01Z",
                    "finished_at": None,
                    "duration": None,
                    "result": None,
                    "error": None,
                }
            ]
        }
    )

    task_id: str
    task_type: str
    description: str | None
    status: str = Field(description="created, running, completed, failed or cancelled.")
    priority: int | None
    timeout_seconds: float | None
    progress: int | None = Field(description="Percent, 0 to 100; null: nothing was told.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration: float | None = Field(description="Seconds.")
    result: Any
    error: str | None


class CancelledAnswer(BaseModel):
    """What became of the wish to end a task."""

    task_id: str
    status: str = Field(description="As of `GET`, now.")
    outcome: str = Field(
        description="`revoked`: it never runs; `cancelling`: its body ends within a second; "
        "`not_interruptible`: a sync body runs on; `finished`: it was over."
    )


class TaskType(BaseModel):
    """A task that can be sent."""

    name: str
    queue: str | None
    labels: dict[str, Any]
    doc: str | None
    parameters: dict[str, Any] = Field(description="JSON schema of the keyword arguments.")


class TaskTypesAnswer(BaseModel):
    """The tasks that this process can send, by name."""

    items: list[TaskType]


TaskId = Annotated[str, Depends(task_id_of)]


@routes.add("POST", "/tasks", Scope.OPERATE, answer=CreatedAnswer, status=201)
async def create_task(here: Now, body: Annotated[NewTask, AS_GIVEN]) -> Json:
    """Send a task; its execution is there as soon as this answers.

    503 with `Retry-After`: `queue-full` when the queue is over its limit, and nothing was sent;
    `broker-unavailable` when the broker failed, which may have taken it.
    """
    told, task = _checked(here, body)
    caller = here.caller
    try:
        with tracking(created_by=caller.id, metadata={DESCRIPTION: told.description}):
            sent = await here.tracker.submit(
                task, kwargs=told.parameters, priority=told.priority, timeout=told.timeout_seconds
            )
    except UnknownTask as error:  # of a broker that is not the tracker's
        raise invalid([("body.task_type", str(error))], "invalid-input") from error
    await here.tracker.audit.append(
        "task.create",
        f"execution:{sent.task_id}",
        by=caller.actor,
        after={"task_type": told.task_type, "priority": told.priority},
    )
    return Json({"task_id": sent.task_id, "status": WORDS[TaskStatus.PENDING]}, 201)


@routes.add("GET", "/tasks/{task_id:aiotrack}", Scope.READ, answer=TaskAnswer)
async def get_task(here: Now, task_id: TaskId) -> Json:
    """What is known of a task; one that failed is a 200 that says so."""
    return Json(_shown(await _find(here, task_id)))


@routes.add("DELETE", "/tasks/{task_id:aiotrack}", Scope.OPERATE, answer=CancelledAnswer)
async def cancel_task(
    here: Now,
    task_id: TaskId,
    reason: Annotated[Text | None, Query(max_length=LONGEST, description="For the record.")] = None,
) -> Json:
    """Cancel a task: what waits never runs, what runs ends within a second."""
    known = await _find(here, task_id)
    outcome = await here.tracker.cancel(task_id, reason=reason, by=here.caller.actor)
    await here.tracker.audit.append(
        "task.cancel",
        f"execution:{task_id}",
        by=here.caller.actor,
        reason=reason,
        before={"status": known.status},
        after={"outcome": outcome},
    )
    now = await here.tracker.get(task_id)
    return Json({"task_id": task_id, "status": WORDS[now.status], "outcome": outcome})


@routes.add("GET", "/task-types/", Scope.READ, answer=TaskTypesAnswer)
async def list_task_types(here: Now) -> Json:
    """The tasks that this process can send, with their parameters as JSON schema.

    Empty in a process that imports no tasks. Those with the label `track=False` are not among them.
    """
    found = [
        one
        for one in catalog.tasks(_brokers(here))
        if not is_own(one.name) and is_tracked(one.labels)
    ]
    return Json({"items": [_described(here, one) for one in found]})


def _described(here: Here, known: TaskInfo) -> dict[str, Any]:
    encoder = here.tracker.encoder
    return asdict(known) | {
        "labels": json.loads(encoder.encode_kwargs(known.labels).text),
        "parameters": _without_secrets(encoder, known.parameters),
    }


def _without_secrets(encoder: Encoder, schema: Any) -> Any:
    """Give a JSON schema whose defaults are masked where they are secrets."""
    if isinstance(schema, list):
        return [_without_secrets(encoder, one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {name: _without_secrets(encoder, one) for name, one in schema.items()}
    for name, one in _parts(made.get("properties")):
        if "default" in one:
            masked = json.loads(encoder.encode_kwargs({name: one["default"]}).text)
            one["default"] = masked.get(name)
    return made


def _parts(properties: Any) -> list[tuple[str, dict[str, Any]]]:
    """Give the properties of an object's schema."""
    found = properties.items() if isinstance(properties, dict) else ()
    return [(name, one) for name, one in found if isinstance(one, dict)]


def _checked(here: Here, body: object) -> tuple[NewTask, AsyncTaskiqDecoratedTask[Any, Any]]:
    """Give what is to be sent, and the task.

    Raises:
        Refused: 422 with every fault: of the form, of the task's name, of its parameters.
    """
    faults = read(NewTask, body)
    given: dict[str, Any] = body if isinstance(body, dict) else {}
    name, parameters = given.get("task_type"), given.get("parameters", {})
    task: AsyncTaskiqDecoratedTask[Any, Any] | None = None
    if isinstance(name, str) and not any(path == "body.task_type" for path, _ in faults):
        found = None if is_own(name) else find_task(_brokers(here), name)
        if found is None:
            faults.append(("body.task_type", _unknown(here, name)))
        elif not is_tracked(found[1].labels):
            faults.append(("body.task_type", "is not tracked: nobody could ask after it"))
        else:
            task = found[1]
    if isinstance(parameters, dict):
        faults += [("body.parameters", one) for one in _faults_of(task, parameters)]
    if faults or task is None:
        raise invalid(faults, "invalid-input")
    return NewTask.model_validate(body), task


def _faults_of(
    task: AsyncTaskiqDecoratedTask[Any, Any] | None, parameters: dict[str, Any]
) -> list[str]:
    """Tell what is wrong with parameters: for a broker, and for the task."""
    try:
        json.dumps(parameters, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return ["must be without halves of characters, NaN and infinities"]
    return [] if task is None else catalog.faults(task.original_func, (), parameters)


def _unknown(here: Here, name: str) -> str:
    known = [one.name for one in catalog.tasks(_brokers(here)) if not is_own(one.name)]
    if known:
        return f"no task {name[:200]!r} here: GET /task-types/ lists those that there are"
    return (
        f"no task {name[:200]!r} here: this process knows no task at all; give create_router or "
        "aiotrack serve the broker, and import the modules that define its tasks"
    )


def _brokers(here: Here) -> list[AsyncBroker]:
    given = here.site.broker
    return list(here.tracker.brokers) if given is None else [given]


async def _find(here: Here, task_id: str) -> Execution:
    """Give an execution that the caller may see.

    Raises:
        ExecutionNotFound: There is none, or it is somebody else's, who may be seen only by himself.
    """
    known = await here.tracker.get(task_id)
    caller = here.caller
    if caller.is_own and known.created_by != here.tracker.encoder.name(caller.id or ""):
        raise ExecutionNotFound(task_id)
    return known


def _shown(known: Execution) -> dict[str, Any]:
    return {
        "task_id": known.task_id,
        "task_type": known.task_name,
        "description": _text(known.metadata.get(DESCRIPTION)),
        "status": WORDS[known.status],
        "priority": known.priority,
        "timeout_seconds": known.time_limit,
        "progress": _percent(known.metadata.get("progress_percent")),
        "created_at": known.created_at,
        "started_at": known.started_at,
        "finished_at": known.finished_at,
        "duration": known.duration,
        "result": known.result,
        "error": known.error,
    }


def _text(value: Any) -> str | None:
    """Give metadata that anybody may have written as the text that it should be."""
    if value is None or isinstance(value, str):
        return value
    return to_json(value)


def _percent(value: Any) -> int | None:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return None if isinstance(value, bool) else max(0, min(100, int(value)))
    return None
