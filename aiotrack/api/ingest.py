"""``/api/tasks/{id}/...``: what TaskIQ's own admin middleware reports, at the root of a server.

The middleware sends and forgets, so posts come late, twice, in any order, or not at all; what is
made of them says `aiotrack.retelling`. A post that is refused is lost: whatever can be read is
taken, and bounded like all that is stored.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.problems import Refused
from aiotrack.api.routes import Routes
from aiotrack.api.site import Here, Now
from aiotrack.clock import LAST_MOMENT, to_micros
from aiotrack.encode import encode_task_id
from aiotrack.errors import ExecutionNotFound
from aiotrack.labels import CREATED_AT, fill, is_tracked, moment, parameters, word
from aiotrack.model import TaskStatus
from aiotrack.report import Micros, Origin, Report, Witness, guess_module
from aiotrack.retelling import executed, queued, started, take_in

routes = Routes("ingest")

MOST: Final = 4 * 1024 * 1024
"""Bytes of a post: it holds arguments or results as they are."""

DEEPEST: Final = 256
"""Objects and lists within each other."""

UNTRACKED: Final = 10_000
"""Messages that are remembered not to be recorded: their end comes without their labels."""

LONGEST: Final = 3_000_000.0
"""Seconds that a run may have taken: a guess, about five weeks."""


def _readable(value: Any) -> Any:
    """Put what no text can hold right: a lone surrogate is worth no lost report."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _is_text(value: Any) -> Any:
    """Leave numbers alone: which of them are seconds, and since when, nobody said."""
    if not isinstance(value, str):
        raise ValueError("must be a text, an ISO time")  # noqa: TRY004 - pydantic wants it so
    return value


Moment = Annotated[
    datetime, BeforeValidator(_is_text), Field(description="UTC where it has no offset.")
]
Words = Annotated[str, BeforeValidator(_readable), Field(max_length=MOST)]
TaskId = Annotated[str, Path(description="Any text.", max_length=4096)]


class Message(BaseModel):
    """What the middleware tells of a message."""

    taskName: Words  # noqa: N815 - TaskIQ's name for it
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    labels: dict[str, Any] = Field(
        default_factory=dict, description="With `_retries`, that of a retry."
    )
    worker: Words | None = Field(None, description="The middleware's `taskiq_broker_name`.")


class Queued(Message):
    """A message was sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "taskName": "shop.tasks:pay",
                    "args": [],
                    "kwargs": {"order": 7},
                    "labels": {},
                    "queuedAt": "2027-01-01T10:00:00.250000",
                    "worker": None,
                }
            ]
        }
    )

    queuedAt: Moment  # noqa: N815 - as above


class Started(Message):
    """A worker began with a message."""

    startedAt: Moment  # noqa: N815 - as above


class Returned(BaseModel):
    """What a task gave back."""

    return_value: Any = None


class Executed(BaseModel):
    """A worker is done with a message."""

    finishedAt: Moment  # noqa: N815 - as above
    executionTime: float = Field(  # noqa: N815 - as above
        description="Seconds.", ge=-LONGEST, le=LONGEST, allow_inf_nan=False, strict=True
    )
    error: Words | None = Field(None, description="The exception's repr.")
    returnValue: Returned | None = None  # noqa: N815 - as above


class TakenAnswer(BaseModel):
    """The report was stored."""

    success: bool


@routes.add("POST", "/api/tasks/{task_id:aiotrack}/queued", Scope.OPERATE, answer=TakenAnswer)
async def report_queued(here: Now, task_id: TaskId, body: Queued) -> Json:
    """Take TaskIQ's report that a task was sent."""
    if _is_tracked(here, task_id, body):
        origin = _origin(here, task_id, body, _micros(body.queuedAt))
        await _store(here, queued(origin, body.labels))
    return Json({"success": True})


@routes.add("POST", "/api/tasks/{task_id:aiotrack}/started", Scope.OPERATE, answer=TakenAnswer)
async def report_started(here: Now, task_id: TaskId, body: Started) -> Json:
    """Take TaskIQ's report that a worker began with a task."""
    if _is_tracked(here, task_id, body):
        at = _micros(body.startedAt)
        worker = None if body.worker is None else here.tracker.encoder.name(body.worker)
        origin = _origin(here, task_id, body, at)
        await _store(here, started(origin, body.labels, at, worker))
    return Json({"success": True})


@routes.add("POST", "/api/tasks/{task_id:aiotrack}/executed", Scope.OPERATE, answer=TakenAnswer)
async def report_executed(here: Now, task_id: TaskId, body: Executed) -> Json:
    """Take TaskIQ's report that a worker is done with a task."""
    if task_id in here.site.untracked:
        return Json({"success": True})
    encoder = here.tracker.encoder
    at = _micros(body.finishedAt)
    value = None if body.returnValue is None else body.returnValue.return_value
    post = executed(
        Origin(encode_task_id(task_id), "", "", at, echoes=True),
        at,
        max(0.0, body.executionTime),
        result=None if value is None or body.error is not None else encoder.encode(value).text,
        error=None if body.error is None else encoder.text(body.error),
    )
    await _store(here, post)
    return Json({"success": True})


def _is_tracked(here: Here, task_id: str, message: Message) -> bool:
    """Whether a message is to be recorded; remembered, if not, for its end."""
    if is_tracked(message.labels):
        return True
    untracked = here.site.untracked
    untracked[task_id] = None
    if len(untracked) > UNTRACKED:
        del untracked[next(iter(untracked))]
    return False


def _micros(at: datetime) -> Micros:
    """Give a time as it is stored.

    Raises:
        Refused: No database could hold it.
    """
    found = to_micros(at.replace(tzinfo=UTC) if at.tzinfo is None else at)
    if not 0 < found <= LAST_MOMENT:
        raise Refused(422, "invalid-value", "a time before 1970, or after the year 9998")
    return found


def _origin(here: Here, task_id: str, message: Message, at: Micros) -> Origin:
    """Give the birth facts that a message tells, as a worker of ours would."""
    encoder, labels = here.tracker.encoder, message.labels
    module = word(labels.get("module"))
    args = encoder.encode_args(message.args, _names(here, message))
    kwargs = encoder.encode_kwargs(message.kwargs)
    name = encoder.name(message.taskName)
    origin = Origin(
        task_id=encode_task_id(task_id),
        task_name=name,
        module=guess_module(name) if module is None else encoder.name(module),
        created_at=moment(labels.get(CREATED_AT), here.tracker.clock.now()) or at,
        args=args.text,
        kwargs=kwargs.text,
        exact=args.exact and kwargs.exact,
    )
    fill(origin, labels, encoder)
    return origin


def _names(here: Here, message: Message) -> tuple[str, ...]:
    """Give the names of a task's parameters, where a broker here knows it."""
    for broker in here.tracker.brokers if message.args else ():
        task = broker.find_task(message.taskName)
        if task is not None:
            return parameters(task.original_func)
    return ()


async def _store(here: Here, post: Report) -> None:
    """Keep a post, and what all of them tell together."""
    repository = here.tracker.core().repository
    task_id = post.origin.task_id
    try:
        await repository.modify(task_id, take_in(post))
    except ExecutionNotFound:
        blank = Origin(task_id, "", "", post.origin.created_at, registered=True)
        sent = Report(blank, Witness.SENT, TaskStatus.PENDING)
        await repository.add([sent])
        await repository.modify(task_id, take_in(post))
