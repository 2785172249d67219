"""What is done to executions: sync, cancel, rerun; one of them, or all that a filter matches."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Query
from pydantic import BaseModel, Field, StringConstraints

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.deeds import record
from aiotrack.api.executions import ById, ByTaskId, shown, synced
from aiotrack.api.problems import Refused
from aiotrack.api.queries import Filters
from aiotrack.api.routes import Routes
from aiotrack.api.rows import ExecutionAnswer
from aiotrack.api.site import Here, Now
from aiotrack.cancellation import CancelOutcome
from aiotrack.model import Execution

routes = Routes("executions", of_all=False, is_closed=True)


def who(here: Here) -> str | None:
    """Give the name that a record keeps of who asked."""
    return here.caller.actor


# ── sync ────────────────────────────────────────────────────────────────────────────────────────
@routes.add("POST", "/executions/{id:aiotrack_number}/sync/", Scope.OPERATE, answer=ExecutionAnswer)
async def sync_execution(here: Now, execution: ById) -> Json:
    """Fill an execution that is not over from the result backend."""
    return await _sync(here, execution)


@routes.add("POST", "/executions/by-task-id/{task_id}/sync/", Scope.OPERATE, answer=ExecutionAnswer)
async def sync_execution_by_task_id(here: Now, execution: ByTaskId) -> Json:
    """Fill an execution that is not over from the result backend."""
    return await _sync(here, execution)


async def _sync(here: Here, execution: Execution) -> Json:
    found = await synced(here, execution)
    if (found.status, found.presumed) != (execution.status, execution.presumed):
        await record(here, "execution.sync", _target(found), after={"status": str(found.status)})
    return Json(await shown(here, found))


# ── cancel ──────────────────────────────────────────────────────────────────────────────────────
Why = Annotated[str, StringConstraints(max_length=1000)]


class CancelBody(BaseModel, extra="forbid"):
    """Why."""

    reason: Why | None = None


class CancelAnswer(BaseModel):
    """What became of it, and the execution as it is now."""

    outcome: CancelOutcome = Field(
        description="`revoked`: it never runs, or runs no more; `cancelling`: its body is being "
        "ended; `not_interruptible`: a sync body runs on; `finished`: it was over."
    )
    execution: ExecutionAnswer


Reason = Annotated[CancelBody | None, Body()]
ReasonInQuery = Annotated[Why | None, Query(description="Instead of a body.")]


@routes.add("POST", "/executions/{id:aiotrack_number}/cancel/", Scope.OPERATE, answer=CancelAnswer)
async def cancel_execution(
    here: Now, execution: ById, body: Reason = None, reason: ReasonInQuery = None
) -> Json:
    """End an execution, wherever it is; cancelling twice does no harm."""
    return await _cancel(here, execution, _why(body, reason))


@routes.add("POST", "/executions/by-task-id/{task_id}/cancel/", Scope.OPERATE, answer=CancelAnswer)
async def cancel_execution_by_task_id(
    here: Now, execution: ByTaskId, body: Reason = None, reason: ReasonInQuery = None
) -> Json:
    """End an execution, wherever it is; cancelling twice does no harm."""
    return await _cancel(here, execution, _why(body, reason))


def _why(body: CancelBody | None, reason: str | None) -> str | None:
    return reason if body is None or body.reason is None else body.reason


async def _cancel(here: Here, execution: Execution, reason: str | None) -> Json:
    outcome = await here.tracker.cancel(execution.task_id, reason=reason, by=who(here))
    after = {"outcome": str(outcome)}
    await record(here, "execution.cancel", _target(execution), reason=reason, after=after)
    now = await here.tracker.get(execution.task_id)
    return Json({"outcome": outcome, "execution": await shown(here, now)})


# ── rerun ───────────────────────────────────────────────────────────────────────────────────────
@routes.add(
    "POST",
    "/executions/{id:aiotrack_number}/rerun/",
    Scope.OPERATE,
    answer=ExecutionAnswer,
    status=201,
    problems=(409,),
)
async def rerun_execution(here: Now, execution: ById) -> Json:
    """Send the same task again with the arguments that it had; answers with the new execution."""
    return await _rerun(here, execution)


@routes.add(
    "POST",
    "/executions/by-task-id/{task_id}/rerun/",
    Scope.OPERATE,
    answer=ExecutionAnswer,
    status=201,
    problems=(409,),
)
async def rerun_execution_by_task_id(here: Now, execution: ByTaskId) -> Json:
    """Send the same task again with the arguments that it had; answers with the new execution."""
    return await _rerun(here, execution)


async def _rerun(here: Here, execution: Execution) -> Json:
    new = await here.tracker.rerun(execution.task_id, by=who(here))
    after = {"task_id": new.task_id}
    await record(here, "execution.rerun", _target(execution), after=after)
    return Json(await shown(here, new), 201)


# ── many at once ────────────────────────────────────────────────────────────────────────────────
class BulkQuery(Filters):
    """Which executions something is done to."""

    all: bool = Field(False, description="Needed to do it without any filter.")


class CancelQuery(BulkQuery):
    """Which executions are cancelled; without `status` all that are not over."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = Field(
        1000, description="Executions at most, the newest first."
    )
    reason: Why | None = Field(None, description="Why; instead of a body.")


class RerunQuery(BulkQuery):
    """Which executions are sent again, of those that are over and have no rerun yet."""

    limit: Annotated[int, Field(ge=1, le=500)] = Field(
        100, description="Executions at most, the oldest first."
    )


class CancelledAnswer(BaseModel):
    """How many there were of each outcome."""

    total: int
    outcomes: dict[CancelOutcome, int]


class RerunOne(BaseModel):
    """What became of one."""

    task_id: str
    rerun_as: str | None = Field(description="The new task_id; null when it was not sent.")
    error: str | None
    code: str | None = Field(description="Of the error.")


class RerunAnswer(BaseModel):
    """What was sent again, and what was not."""

    total: int
    sent: int
    failed: int
    items: list[RerunOne]


@routes.add("POST", "/executions/cancel/", Scope.OPERATE, answer=CancelledAnswer)
async def cancel_executions(
    here: Now, query: Annotated[CancelQuery, Query()], body: Reason = None
) -> Json:
    """End all executions that match every parameter, as many as `limit` says."""
    filters = query.narrowing(here)
    _check(query)
    reason = _why(body, query.reason)
    counted = await here.tracker.cancel_many(
        reason=reason, by=who(here), limit=query.limit, **filters
    )
    outcomes = {str(outcome): counted[outcome] for outcome in CancelOutcome}
    after = {"query": query.told(), "outcomes": outcomes}
    await record(here, "executions.cancel", "executions", reason=reason, after=after)
    return Json({"total": counted.total(), "outcomes": outcomes})


@routes.add("POST", "/executions/rerun/", Scope.OPERATE, answer=RerunAnswer)
async def rerun_executions(here: Now, query: Annotated[RerunQuery, Query()]) -> Json:
    """Send again what matches every parameter; asked again, it goes on where it stopped."""
    filters = query.narrowing(here)
    _check(query)
    outcomes = await here.tracker.rerun_many(limit=query.limit, by=who(here), **filters)
    items = [
        {
            "task_id": one.task_id,
            "rerun_as": None if one.execution is None else one.execution.task_id,
            "error": None if one.error is None else str(one.error),
            "code": None if one.error is None else getattr(one.error, "code", "not-sent"),
        }
        for one in outcomes
    ]
    sent = sum(one.execution is not None for one in outcomes)
    told: dict[str, Any] = {"total": len(items), "sent": sent, "failed": len(items) - sent}
    after = {"query": query.told(), **told}
    await record(here, "executions.rerun", "executions", after=after)
    return Json(told | {"items": items})


def _check(query: BulkQuery) -> None:
    """Refuse what would touch everything by an oversight.

    Raises:
        Refused: There is no filter, and nobody said that all are meant: 422.
    """
    if not (query.is_narrow or query.all):
        detail = "no query parameter narrows it: give some, or all=true if all are meant"
        raise Refused(422, "no-filter", detail)


def _target(execution: Execution) -> str:
    return f"execution:{execution.task_id}"
