"""``/configs``: task definitions and their schedules."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Path, Query
from starlette.responses import Response

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.config_forms import (
    Action,
    ByTypeAnswer,
    Changes,
    ConfigAnswer,
    ConfigsAnswer,
    Fields,
    Kind,
    NewConfig,
    Verb,
    VerbAnswer,
)
from aiotrack.api.counts import StatsAnswer, shown_stats
from aiotrack.api.fields import AS_GIVEN, After, Limit, PageSize, Text, invalid
from aiotrack.api.problems import HEADERS
from aiotrack.api.routes import Routes
from aiotrack.api.site import Here, Now
from aiotrack.definitions import checks
from aiotrack.encode import inexact
from aiotrack.errors import DefinitionNotFound, InvalidDefinition, ScheduleUnavailable
from aiotrack.model import TaskDefinition

log = logging.getLogger(__name__)

T = TypeVar("T")

routes = Routes("configs", is_closed=True)

INACTIVE: Final = "inactive"


async def _config_of(
    config: Annotated[
        Text, Path(max_length=200, description="Its id, or its name, percent-encoded.")
    ],
) -> str:
    return config


Config = Annotated[str, Depends(_config_of)]
Exact = Annotated[Text | None, Query(max_length=1000)]


@routes.add("POST", "/configs", Scope.ADMIN, answer=ConfigAnswer, status=201)
async def create_config(
    here: Now,
    body: Annotated[NewConfig, AS_GIVEN],
    start: Annotated[bool, Query(description="False: its schedule is not started.")] = True,  # noqa: FBT002 - a query's
) -> Json:
    """Store a definition, and start its schedule, unless it is manual or *start* is false.

    While Redis does not answer nothing is stored, unless *start* is false: 503. Should it go away
    just between the two, the definition is there, and its `schedule_status` null.
    """
    fields = _checked(here, body, {})
    _refuse_masked(fields.get("parameters"))
    is_started = start and fields.get("schedule_kind", "manual") != "manual"
    if is_started:
        await here.tracker.schedules.statuses()  # raises before anything is stored
    made = await _told(here.tracker.definitions.create(by=here.caller.actor, **fields))
    if is_started:
        try:
            await here.tracker.schedules.start(made.id, by=here.caller.actor)
        except ScheduleUnavailable as error:  # it was there a moment ago; the answer says null
            log.warning("%s is stored, but not started: %s", made.name, error)
    return Json(await _with_schedule(here, made), 201)


@routes.add("GET", "/configs", Scope.READ, answer=ConfigsAnswer)
async def list_configs(
    here: Now,
    task_type: Exact = None,
    name: Exact = None,
    schedule_kind: Annotated[Kind | None, Query()] = None,
    text: Annotated[
        Text | None, Query(max_length=1000, description="In name, description or task, any case.")
    ] = None,
    limit: Limit = 50,
    page_size: PageSize = None,
    after: After = None,
) -> Json:
    """Definitions that match every filter, the oldest first."""
    page = await here.tracker.definitions.list(
        task_type=task_type,
        name=name,
        schedule_kind=schedule_kind,
        text=text,
        limit=page_size or limit,
        after=after,
    )
    states: dict[int, str] | None = None
    runs: dict[int, datetime] = {}
    if page.items:
        try:
            states = await here.tracker.schedules.statuses()
            runs = await here.tracker.schedules.next_runs()
        except ScheduleUnavailable:
            states = None
    items = [_shown(here, one, _state(states, one), runs.get(one.id)) for one in page.items]
    return Json({"items": items, "next": page.next})


@routes.add("GET", "/config-types/", Scope.READ, answer=ByTypeAnswer)
async def count_configs_by_type(here: Now) -> Json:
    """How many definitions there are of each task."""
    return Json({"counts": await here.tracker.definitions.count_by_type()})


@routes.add("POST", "/configs/{config}/schedule", Scope.OPERATE, answer=VerbAnswer, problems=(409,))
async def steer_config(
    here: Now,
    config: Config,
    body: Verb | None = None,
    action: Annotated[Action | None, Query(description="Instead of a body.")] = None,
) -> Json:
    """Start, stop, pause or resume its schedule, or send it now, once: `trigger`.

    All but `trigger` may be repeated. 503 while Redis does not answer; `trigger` needs none.
    """
    said, reason = (body.action, body.reason) if body is not None else (None, None)
    if said is not None and action is not None and said != action:
        raise invalid([("query.action", f"is not the body's, {said}")])
    verb = said or action
    if verb is None:
        raise invalid([("body.action", "is missing: start, stop, pause, resume or trigger")])
    known = await _find(here, config)
    schedules, actor = here.tracker.schedules, here.caller.actor
    task_id: str | None = None
    if verb == "trigger":
        task_id = (await schedules.trigger(known.id, by=actor, reason=reason)).task_id
    else:
        do = {
            "start": schedules.start,
            "stop": schedules.stop,
            "pause": schedules.pause,
            "resume": schedules.resume,
        }[verb]
        await _told(do(known.id, by=actor, reason=reason))
    shown = await _with_schedule(here, known)
    told = {key: shown[key] for key in ("id", "schedule_status", "next_run_at")}
    return Json(told | {"task_id": task_id})


@routes.add("GET", "/configs/{config}/stats/", Scope.READ, answer=StatsAnswer)
async def get_config_stats(here: Now, config: Config) -> Json:
    """What became of its executions."""
    known = await _find(here, config)
    return Json(shown_stats(await here.tracker.definitions.stats(known.id)))


@routes.add("GET", "/configs/{config}", Scope.READ, answer=ConfigAnswer)
async def get_config(here: Now, config: Config) -> Json:
    """A definition, with its schedule's state."""
    return Json(await _with_schedule(here, await _find(here, config)))


@routes.add("PATCH", "/configs/{config}", Scope.ADMIN, answer=ConfigAnswer)
async def update_config(here: Now, config: Config, body: Annotated[Changes, AS_GIVEN]) -> Json:
    """Change what is said; a schedule that is active or paused follows at once.

    What an answer showed masked, and comes back as it was shown, stays as it is.
    """
    known = await _find(here, config)
    fields = {name: getattr(known, name) for name in Fields.model_fields}
    changes = _unmasked(here, known, _checked(here, body, fields))
    update = here.tracker.definitions.update(known.id, by=here.caller.actor, **changes)
    return Json(await _with_schedule(here, await _told(update)))


@routes.add("DELETE", "/configs/{config}", Scope.ADMIN, status=204)
async def delete_config(here: Now, config: Config) -> Response:
    """Delete a definition, and stop its schedule; its executions stay, with its id."""
    known = await _find(here, config)
    await here.tracker.definitions.delete(known.id, by=here.caller.actor)
    return Response(status_code=204, headers=HEADERS)


async def _find(here: Here, config: str) -> TaskDefinition:
    """Give a definition by its id, else by its name, which may be a number, too."""
    if config.isascii() and config.isdigit():
        with contextlib.suppress(DefinitionNotFound):
            return await here.tracker.definitions.get(int(config))
    return await here.tracker.definitions.get(config)


def _checked(here: Here, body: object, known: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of a body; what they say is checked by whoever stores them.

    Raises:
        Refused: 422: no object, or fields that there are not; with all else that is wrong.
    """
    if not isinstance(body, dict):
        raise invalid([("body", "must be an object")])
    fields = {name: value for name, value in body.items() if name in Fields.model_fields}
    unknown = [name for name in body if name not in fields]
    if unknown:
        told = [(f"body.{name[:100]}", "is no field of a definition") for name in unknown]
        found = checks.faults({**known, **fields}, here.tracker.brokers)
        raise invalid(told + list(map(_placed, found)), InvalidDefinition.code)
    return fields


async def _told(work: Awaitable[T]) -> T:
    """Do what may find faults in a definition, and tell where each of them is."""
    try:
        return await work
    except InvalidDefinition as error:
        raise invalid(map(_placed, error.faults), error.code) from error


def _placed(fault: str) -> tuple[str, str]:
    """Give a fault with its path: it begins with the name of its field."""
    name, _, said = fault.partition(" ")
    field = name.rstrip(":").partition(".")[0]
    return (f"body.{field}", said) if field in Fields.model_fields else ("body", fault)


async def _with_schedule(here: Here, known: TaskDefinition) -> dict[str, Any]:
    try:
        state = await here.tracker.schedules.status(known.id)
        due = await here.tracker.schedules.next_run(known.id)
    except ScheduleUnavailable:
        return _shown(here, known, None, None)
    return _shown(here, known, state, due)


def _state(states: Mapping[int, str] | None, known: TaskDefinition) -> str | None:
    return None if states is None else states.get(known.id, INACTIVE)


def _shown(
    here: Here, known: TaskDefinition, state: str | None, due: datetime | None
) -> dict[str, Any]:
    return asdict(known) | {
        **_without_secrets(here, known),
        "is_scheduled": known.is_scheduled,
        "schedule_status": state,
        "next_run_at": due,
    }


def _without_secrets(here: Here, known: TaskDefinition) -> dict[str, Any]:
    """Give what may hold secrets as it may be seen: they are stored, for they have to be sent."""
    encoder = here.tracker.encoder
    encoded = encoder.encode_kwargs(known.parameters)
    return {
        "description": encoder.text(known.description),
        "parameters": known.parameters if encoded.exact else json.loads(encoded.text),
    }


def _unmasked(here: Here, known: TaskDefinition, changes: dict[str, Any]) -> dict[str, Any]:
    """Give changes without what was shown masked and comes back as it was shown.

    Raises:
        Refused: 422: something masked is to be stored elsewhere.
    """
    shown = _without_secrets(here, known)
    parameters = changes.get("parameters")
    if changes.get("description") == shown["description"]:
        changes = changes | {"description": known.description}
    if isinstance(parameters, dict):
        back = {
            name: known.parameters[name]
            for name, value in parameters.items()
            if name in known.parameters and shown["parameters"].get(name) == value
        }
        changes = changes | {"parameters": parameters | back}
        _refuse_masked({name: one for name, one in parameters.items() if name not in back})
    return changes


def _refuse_masked(parameters: object) -> None:
    masked = [
        path for path, why in inexact(parameters, "body.parameters") if why in {"redacted", "cut"}
    ]
    if masked:
        said = "is what stands for a value that is not shown: send the value, or leave all out"
        raise invalid([(path, said) for path in masked], InvalidDefinition.code)
