"""What a route works with: the tracker, and who calls."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import Request

from aiotrack.api.access import Caller, Gate
from aiotrack.api.problems import Refused
from aiotrack.api.routes import Entry

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.core import Core
    from aiotrack.tracker import Tracker

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
                name = self.username(one)
                name = await name if inspect.isawaitable(name) else name
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


def here_of(request: Request) -> Here:
    """Give what `enter` has kept."""
    found: Here = request.state.aiotrack
    return found


async def up_to_date(here: Here) -> Core:
    """Give what reads the database, once what this process told is in it."""
    tracker = here.tracker
    core = tracker.core()
    if core.recorder.backlog:
        await tracker.flush(tracker.options.commit_budget)
    return core


async def _here(request: Request) -> Here:
    return here_of(request)  # no coroutine would cost a thread


Now = Annotated[Here, Depends(_here)]
"""The parameter of a route that gives `Here`."""


def check(entry: Entry) -> Callable[[Request], Awaitable[None]]:
    """Make the dependency that lets only those in who may."""

    async def may_enter(request: Request) -> None:  # async: FastAPI runs others in threads
        scope = entry.scope
        caller = here_of(request).caller
        if scope is not None and not caller.may(scope, of_all=entry.of_all):
            needed = f"the scope {scope}" if not caller.scope.covers(scope) else "access to all"
            raise Refused(403, "forbidden", f"this needs {needed}")
        if entry.is_closed:
            _refuse_unknown(request)

    return may_enter


def _refuse_unknown(request: Request) -> None:
    """Refuse query parameters that the route does not know: a typing error would be no filter."""
    known = _names(request.scope["route"])
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        said = f"unknown; known are {', '.join(sorted(known)) or 'none'}"
        faults = [(f"query.{name[:100]}", said) for name in unknown]
        detail = "; ".join(map(": ".join, faults[:3]))
        raise Refused(422, "invalid-request", detail, faults=faults)


def _names(route: APIRoute) -> frozenset[str]:
    """Give the query parameters of a route, and of the application's own dependencies."""
    found: set[str] = set()
    left = [route.dependant]
    while left:
        one = left.pop()
        found |= {parameter.alias for parameter in one.query_params}
        left += one.dependencies
    return frozenset(found)


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
