"""``/executions/``: lists, one execution, its attempts and logs, counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Query
from pydantic import BaseModel, Field, StringConstraints, WithJsonSchema

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.counts import StatsAnswer, shown_stats
from aiotrack.api.queries import INT64, Filters, ListQuery
from aiotrack.api.routes import Routes
from aiotrack.api.rows import ExecutionAnswer, RowAnswer, row, whole
from aiotrack.api.site import ClosedQuery, Here, Maybe, Now, up_to_date
from aiotrack.errors import ExecutionNotFound
from aiotrack.model import Attempt, Cause, Execution, LogLine, TaskStatus

routes = Routes("executions", of_all=False, is_closed=True)

TaskId = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


DIGITS: Final = 19
"""Of the largest number of an execution."""

_NUMBER: Final = WithJsonSchema({"type": "integer", "minimum": 0, "maximum": INT64 - 1})


# ── one execution, by either of its names ───────────────────────────────────────────────────────
def own(here: Here, execution: Execution, key: str | int) -> Execution:
    """Give an execution to who may see it; to all others it is not there.

    Raises:
        ExecutionNotFound: It is somebody else's.
    """
    caller = here.caller
    if caller.is_own and (caller.id is None or execution.created_by != caller.id):
        raise ExecutionNotFound(key)
    return execution


async def by_id(
    here: Maybe,
    id: Annotated[str, _NUMBER, Path(description="Number of the execution.")],  # noqa: A002 - the contract's name
) -> Execution | None:
    """Give the execution with a number; what is none is nobody's."""
    if here is None:
        return None
    number = int(id) if id.isascii() and id.isdigit() and len(id) <= DIGITS else -1
    if not 0 <= number < INT64:
        raise ExecutionNotFound(id[:DIGITS])
    return own(here, await here.tracker.get_by_id(number), number)


async def by_task_id(
    here: Maybe,
    task_id: Annotated[TaskId, Path(description="Percent-encoded, also its slashes.")],
) -> Execution | None:
    """Give the execution with a task_id."""
    return None if here is None else own(here, await here.tracker.get(task_id), task_id)


ById = Annotated[Execution, Depends(by_id)]
ByTaskId = Annotated[Execution, Depends(by_task_id)]


async def shown(here: Here, execution: Execution) -> dict[str, Any]:
    """Give all of an execution, with the name of who sent it."""
    names = await here.site.names([execution.created_by])
    return whole(execution, names, here.tracker.options.trace_url)


# ── lists ───────────────────────────────────────────────────────────────────────────────────────
class ListAnswer(BaseModel):
    """A page of executions."""

    items: list[RowAnswer]
    next: str | None = Field(description="What `after` takes for the next page; null at the end.")
    total: int | None = Field(
        None, description="Only with `count=true`: how many match; 10000 when there are more."
    )
    total_exact: bool | None = Field(
        None, description="Only with `count=true`: false when there are more than `total`."
    )


Listed = Annotated[ListQuery, Query()]


@routes.add("GET", "/executions/", Scope.READ, answer=ListAnswer)
async def list_executions(here: Now, query: Listed) -> Json:
    """The executions that match every parameter, the newest first.

    `metadata.<key>=<value>` finds those whose metadata has the key with that value: a number,
    `true`, `false`, `null` or a text in double quotes is read as JSON, anything else as text.
    """
    return await _listed(here, query, mine=False)


@routes.add("GET", "/executions/my-tasks/", Scope.READ, answer=ListAnswer)
async def list_my_executions(here: Now, query: Listed) -> Json:
    """The same for what the caller himself sent; 401 where nobody is known to call."""
    return await _listed(here, query, mine=True)


async def _listed(here: Here, query: ListQuery, *, mine: bool) -> Json:
    filters = query.narrowing(here, mine=mine)
    tracker = here.tracker
    skipped, after = query.skipped, query.after or None
    answer: dict[str, Any] = {"items": [], "next": None}
    if skipped:
        core = await up_to_date(here)
        after = await core.reader.skip(skipped, order=query.order, **filters)
    if not skipped or after is not None:
        found = await tracker.list(limit=query.size, after=after, order=query.order, **filters)
        names = await here.site.names(one.created_by for one in found.items)
        answer = {"items": [row(one, names) for one in found.items], "next": found.next}
    if query.count:
        counted = await tracker.count(**filters)
        answer |= {"total": counted.value, "total_exact": counted.is_exact}
    return Json(answer)


# ── counts ──────────────────────────────────────────────────────────────────────────────────────
@routes.add("GET", "/executions/stats/", Scope.READ, answer=StatsAnswer)
async def count_executions(here: Now, query: Annotated[Filters, Query()]) -> Json:
    """Counts, times and a timeline of what matches; aiotrack's own only by `module=aiotrack`."""
    return Json(shown_stats(await here.tracker.stats(**query.narrowing(here))))


# ── one execution ───────────────────────────────────────────────────────────────────────────────
class StatusQuery(ClosedQuery):
    """Which execution."""

    task_id: TaskId
    sync: bool = Field(True, description="Whether the result backend is asked if it is not over.")


@routes.add("GET", "/executions/status/", Scope.READ, answer=ExecutionAnswer, problems=(404,))
async def get_status(here: Now, query: Annotated[StatusQuery, Query()]) -> Json:
    """An execution by its task_id; of one that is not over the result backend is asked, too."""
    execution = own(here, await here.tracker.get(query.task_id), query.task_id)
    if query.sync:
        execution = await synced(here, execution)
    return Json(await shown(here, execution))


async def synced(here: Here, execution: Execution) -> Execution:
    """Fill a record from the result backend, unless its end is known for sure."""
    if execution.is_completed and not execution.presumed:
        return execution
    return await here.tracker.sync(execution.task_id)


@routes.add("GET", "/executions/{id:aiotrack_number}/", Scope.READ, answer=ExecutionAnswer)
async def get_execution(here: Now, execution: ById) -> Json:
    """All that is known of an execution."""
    return Json(await shown(here, execution))


@routes.add("GET", "/executions/by-task-id/{task_id}/", Scope.READ, answer=ExecutionAnswer)
async def get_execution_by_task_id(here: Now, execution: ByTaskId) -> Json:
    """All that is known of an execution."""
    return Json(await shown(here, execution))


# ── its attempts ────────────────────────────────────────────────────────────────────────────────
class AttemptAnswer(BaseModel):
    """One run of an execution, with its own error."""

    attempt: int
    cause: Cause
    worker: str | None
    status: TaskStatus
    started_at: datetime | None
    finished_at: datetime | None
    duration: float | None = Field(description="Seconds.")
    error: str | None
    error_type: str | None
    error_class: str | None
    traceback: str | None


class AttemptsAnswer(BaseModel):
    """Every run, in the order in which they began."""

    items: list[AttemptAnswer]


@routes.add("GET", "/executions/{id:aiotrack_number}/attempts/", Scope.READ, answer=AttemptsAnswer)
async def list_attempts(here: Now, execution: ById) -> Json:
    """Every run of an execution, each with its own error."""
    return _attempts(await here.tracker.attempts(execution.task_id))


@routes.add("GET", "/executions/by-task-id/{task_id}/attempts/", Scope.READ, answer=AttemptsAnswer)
async def list_attempts_by_task_id(here: Now, execution: ByTaskId) -> Json:
    """Every run of an execution, each with its own error."""
    return _attempts(await here.tracker.attempts(execution.task_id))


def _attempts(attempts: Sequence[Attempt]) -> Json:
    names = tuple(AttemptAnswer.model_fields)
    return Json({"items": [{name: getattr(one, name) for name in names} for one in attempts]})


# ── its logs ────────────────────────────────────────────────────────────────────────────────────
class LogLineAnswer(BaseModel):
    """A line that an attempt logged; the logger `aiotrack` says how many were left out."""

    at: datetime
    level: str
    logger: str
    message: str
    attempt: int


class LogsAnswer(BaseModel):
    """A page of lines."""

    items: list[LogLineAnswer]
    next: str | None = Field(description="What `after` takes for the next page; null at the end.")


class LogsQuery(ClosedQuery):
    """Which lines."""

    attempt: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    level: (
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
        | Annotated[int, Field(ge=0, le=1000)]
        | None
    ) = Field(None, description="The lowest level, a name or a number.")
    limit: Annotated[int, Field(ge=1, le=1000)] = 200
    page_size: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="The same as `limit`, before which it comes."
    )
    after: Annotated[str, StringConstraints(max_length=1000)] | None = None


LogsOf = Annotated[LogsQuery, Query()]


@routes.add("GET", "/executions/{id:aiotrack_number}/logs/", Scope.READ, answer=LogsAnswer)
async def list_logs(here: Now, execution: ById, query: LogsOf) -> Json:
    """What an execution logged, by attempts."""
    return await _logs(here, execution, query)


@routes.add("GET", "/executions/by-task-id/{task_id}/logs/", Scope.READ, answer=LogsAnswer)
async def list_logs_by_task_id(here: Now, execution: ByTaskId, query: LogsOf) -> Json:
    """What an execution logged, by attempts."""
    return await _logs(here, execution, query)


async def _logs(here: Here, execution: Execution, query: LogsQuery) -> Json:
    page = await here.tracker.logs(
        execution.task_id,
        attempt=query.attempt,
        level=query.level,
        limit=query.page_size or query.limit,
        after=query.after or None,
    )
    return Json({"items": [_line(one) for one in page.items], "next": page.next})


def _line(line: LogLine) -> dict[str, Any]:
    return {name: getattr(line, name) for name in LogLineAnswer.model_fields}
