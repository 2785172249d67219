"""What a route works with: the tracker, and who calls."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, model_validator
from starlette.requests import Request

from aiotrack.api.access import Caller, Gate
from aiotrack.api.problems import Refused
from aiotrack.api.routes import Entry

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.core import Core
    from aiotrack.tracker import Tracker

log = logging.getLogger(__name__)

FOREIGN: ContextVar[frozenset[str]] = ContextVar("aiotrack_foreign", default=frozenset())
"""Query parameters of the dependencies that an application gives, such as its ``user``."""

Username = Callable[[str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all routes of one router share.

    Attributes:
        tracker: Whose executions they are.
        broker: What tasks are sent with; None: the tracker's own brokers.
        gate: Looks at tokens.
        has_user: Whether the application says who calls.
        username: Gives the name that is shown for a ``created_by``.
        untracked: The task_ids of the last messages that were not to be recorded; see `ingest`.
    """

    tracker: Tracker
    broker: AsyncBroker | None
    gate: Gate
    has_user: bool
    username: Username | None
    untracked: dict[str, None] = field(default_factory=dict)

    async def names(self, ids: Iterable[str | None]) -> dict[str, str | None]:
        """Give the names of those who sent something; each is asked for once."""
        found: dict[str, str | None] = {}
        for one in ids:
            if one is not None and self.username is not None and one not in found:
                found[one] = None
                try:
                    name = self.username(one)
                    name = await name if inspect.isawaitable(name) else name
                except Exception as error:  # the application's: executions are shown without names
                    log.warning("the application could not tell the name of a user: %r", error)
                else:
                    found[one] = None if name is None else str(name)
        return found


@dataclass(frozen=True, slots=True)
class Here:
    """One request: where it came in, and who sent it."""

    site: Site
    caller: Caller

    @property
    def tracker(self) -> Tracker:
        """Whose executions they are."""
        return self.site.tracker


def enter(request: Request, site: Site, caller: Caller) -> None:
    """Let the routes of this request know who calls."""
    request.state.aiotrack = Here(site, caller)


def here_of(request: Request) -> Here | None:
    """Give what `enter` has kept.

    None: FastAPI has not asked who calls, because what the application's dependency for it takes
    was not sent, or is wrong. It answers so by itself, once all others were asked.
    """
    found: Here | None = getattr(request.state, "aiotrack", None)
    return found


async def up_to_date(here: Here) -> Core:
    """Give what reads the database, once what this process told is in it."""
    tracker = here.tracker
    core = tracker.core()
    await core.recorder.catch_up(tracker.options.commit_budget)
    return core


async def _here(request: Request) -> Here | None:
    return here_of(request)  # no coroutine would cost a thread


Now = Annotated[Here, Depends(_here)]
"""The parameter of a route that gives `Here`."""

Maybe = Annotated[Here | None, Depends(_here)]
"""The parameter of a dependency: it is asked also where `here_of` gives None."""


def check(entry: Entry) -> Callable[[Request], Awaitable[None]]:
    """Make the dependency that lets only those in who may."""

    async def may_enter(request: Request) -> None:  # async: FastAPI runs others in threads
        scope, here = entry.scope, here_of(request)
        if scope is not None and here is not None:
            caller = here.caller
            if not caller.may(scope, of_all=entry.of_all):
                needed = f"the scope {scope}" if not caller.scope.covers(scope) else "access to all"
                raise Refused(403, "forbidden", f"this needs {needed}")
        if entry.is_closed:
            _close(request)

    return may_enter


def _close(request: Request) -> None:
    """Refuse query parameters that the route does not know: a typing error would be no filter.

    Where they are read into a `ClosedQuery` it does so, with all else that is wrong with them. And
    refuse a second value where there is one: which of them counts, nobody could know.
    """
    asked = request.query_params
    known, single, is_apart = _names(request.scope["route"])
    FOREIGN.set(known)
    twice = [name for name in asked if name in single and len(asked.getlist(name)) > 1]
    unknown = [] if is_apart else [name for name in asked if name not in known]
    if twice or unknown:
        said = f"unknown; known are {', '.join(sorted(known)) or 'none'}"
        faults = [(f"query.{name[:100]}", said) for name in unknown]
        faults += [(f"query.{name}", "is given twice") for name in twice]
        detail = "; ".join(map(": ".join, faults[:3]))
        raise Refused(422, "invalid-request", detail, faults=faults)


def _names(route: APIRoute) -> tuple[frozenset[str], frozenset[str], bool]:
    """Give the query parameters of a route, and of the application's own dependencies.

    Those of the route itself that take one value; and whether there are others than the first,
    which are read into a `ClosedQuery`.
    """
    found: set[str] = set()
    single: set[str] = set()
    is_apart = False
    for parameter in route.dependant.query_params:
        kind = parameter.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, ClosedQuery):
            fields = kind.model_fields
        else:
            fields = {parameter.alias: parameter.field_info}
        single |= {name for name, one in fields.items() if not isinstance(one.default, list)}
    left = [route.dependant]
    while left:
        one = left.pop()
        for parameter in one.query_params:
            kind = parameter.field_info.annotation
            if isinstance(kind, type) and issubclass(kind, ClosedQuery):
                is_apart = True
            else:
                found.add(parameter.alias)
        left += one.dependencies
    return frozenset(found), frozenset(single), is_apart


class ClosedQuery(BaseModel, extra="forbid"):
    """Query parameters, of which there are no others but those of the application itself."""

    @model_validator(mode="before")
    @classmethod
    def _of_ours(cls, values: Any) -> Any:
        foreign = FOREIGN.get() - cls.model_fields.keys()
        return {name: value for name, value in values.items() if name not in foreign}


def needs_caller(here: Here) -> str:
    """Give the id of who calls.

    Raises:
        Refused: Nobody in particular does: 401.
    """
    if here.caller.id is None:
        raise Refused(
            401,
            "unauthorized",
            "nobody is known here: the application has to say who calls",
            {"WWW-Authenticate": 'Bearer realm="aiotrack"'},
        )
    return here.caller.id
