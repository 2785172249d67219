"""`create_router`: the routes of all resources, for a FastAPI application of yours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Security, params
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from aiotrack.api import (
    acts,
    alerts,
    audit,
    configs,
    events,
    executions,
    health,
    ingest,
    locks,
    metrics,
    queues,
    report,
    settings,
    tasks,
    workers,
)
from aiotrack.api.access import ANYBODY, Gate, Token, as_dependency, check_origin, of_user
from aiotrack.api.bodies import DEEPEST, MOST, read_body
from aiotrack.api.problems import answer_to, documented, is_expected
from aiotrack.api.routes import SCOPE, Entry
from aiotrack.api.site import Site, check, enter

if TYPE_CHECKING:
    from fastapi.params import Depends as Dependency
    from taskiq import AsyncBroker

    from aiotrack.tracker import Tracker

log = logging.getLogger(__name__)

RESOURCES = (
    *(events, executions, acts, tasks, configs),
    *(workers, locks, queues, settings, audit, alerts, report, health, metrics),
)
"""A module for each; deleting a resource is deleting its line."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

NO_HTTP: Final = "No HTTP, or a head of more than 64 KiB: the server's own answer."
_SAFE: Final = "/:@!$&'()*+,;=-._~"
"""Characters that stand for themselves in a path."""


def create_router(
    tracker: Tracker,
    *,
    broker: AsyncBroker | None = None,
    dependencies: Sequence[Dependency] = (),
    user: Callable[..., Any] | None = None,
    access: str | Callable[..., Any] = "all",
    username: Callable[[str], Any] | None = None,
    tokens: Iterable[Token | str] = (),
) -> APIRouter:
    """Make the routes, to be included by any application under any prefix.

    ``app.include_router(create_router(tracker, user=current_user), prefix="/tracking")``. The
    application starts and stops the tracker. Errors are RFC 9457 problems, also those that the
    application's own dependencies raise; but an exception for which it has a handler of its own
    goes to that.

    Args:
        tracker: Whose executions are shown.
        broker: What tasks are sent with. Default: the brokers of this process that the tracker is
            on.
        dependencies: As of any router: what has to hold before a request is served.
        user: A dependency that gives who calls: an id (text, int or UUID), or an object or mapping
            that has it as ``id``, ``user_id`` or ``sub``; None: nobody, which is a 401. May be a
            plain ``lambda request: ...``. Without it there is no caller: lists show all.
        access: What a caller may do: ``all``, ``read_only``, ``own`` (only what he sent himself),
            ``none``, or a dependency that gives one of these words; a parameter ``user`` of it is
            what *user* gives: ``lambda user: "all" if user.is_admin else "own"``. Only with *user*.
        username: Gives the name of a ``created_by``, for lists and details; may be async. When it
            fails it is logged, and the name null.
        tokens: Secrets that open the API, as `Token` or ``SECRET``, ``SCOPE:SECRET``,
            ``NAME:SCOPE:SECRET``. With both, a token comes first: of who has one *user* is not
            asked, and what is none of them is left to *user*.

    Raises:
        InvalidSetting: A token that cannot be used.
    """
    site = Site(
        tracker=tracker,
        broker=broker,
        gate=Gate(_read(tokens), has_user=user is not None),
        has_user=user is not None,
        username=username,
    )
    router = APIRouter(route_class=_route_of(site))
    entries = [entry for resource in RESOURCES for entry in resource.routes.entries]
    asked = None if user is None else Depends(_asking_user(site, user, access))
    _add_all(router, entries, site, _given(dependencies), asked)
    return router


def create_ingest(
    tracker: Tracker,
    *,
    dependencies: Sequence[Dependency] = (),
    tokens: Iterable[Token | str] = (),
) -> APIRouter:
    """Make the routes that TaskIQ's own admin middleware reports to.

    They are for the root of an application, since the middleware knows no prefix:
    ``app.include_router(create_ingest(tracker, tokens=[...]))``, and in the project that reports
    ``TaskiqAdminMiddleware(url="http://that-application", api_token=...)``.

    Args:
        tracker: Where the executions are recorded.
        dependencies: As of any router: what has to hold before a report is taken.
        tokens: As in `create_router`; a token needs the scope ``operate``. Without any, everybody
            who reaches the routes may report.

    Raises:
        InvalidSetting: A token that cannot be used.
    """
    gate = Gate(_read(tokens), has_user=False)
    site = Site(tracker=tracker, broker=None, gate=gate, has_user=False, username=None)
    route = _route_of(site, ingest.MOST, ingest.DEEPEST, is_lenient=True)
    router = APIRouter(route_class=route)
    _add_all(router, ingest.routes.entries, site, _given(dependencies))
    return router


def _given(dependencies: Iterable[Any]) -> list[Dependency]:
    """Give dependencies as routers take them; the function alone does, too."""
    return [one if isinstance(one, params.Depends) else Depends(one) for one in dependencies]


def _read(tokens: Iterable[Token | str]) -> list[Token]:
    return [one if isinstance(one, Token) else Token.parse(one) for one in tokens]


def _add_all(
    router: APIRouter,
    entries: Iterable[Entry],
    site: Site,
    dependencies: Sequence[Dependency],
    asked: Dependency | None = None,
) -> None:
    """Add routes; *asked* is the dependency that asks the application who calls."""
    bearer = Depends(HTTPBearer(auto_error=False))  # for the document: the gate has looked by then
    met = Depends(_meeting(site))
    of_tokens = _route_of(site, is_for_tokens=True)
    for entry in sorted(entries, key=_openness):
        if entry.scope is None:  # a probe has nothing to show
            _add(router, entry, [*dependencies, met])
            continue
        told = [bearer] if site.gate.has_tokens else []
        if asked is not None and told:  # FastAPI asks all dependencies of a route: it is another
            _add(router, entry, [*dependencies, met], of_tokens)
        _add(router, entry, [*told, *dependencies, asked or met])


def _openness(entry: Entry) -> list[bool]:
    """Sort words before parameters: the first path that fits is taken."""
    return [part.startswith("{") for part in entry.path.strip("/").split("/")]


def _route_of(
    site: Site,
    most: int = MOST,
    deepest: int = DEEPEST,
    *,
    is_lenient: bool = False,
    is_for_tokens: bool = False,
) -> type[APIRoute]:
    class Route(APIRoute):
        """Lets in who may come in, and tells errors as problems."""

        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            """Be there, where it is for tokens, only with one that somebody has."""
            match, child = self._matches(scope)
            if is_for_tokens and match is not Match.NONE:
                return (match, child) if site.gate.knows(Headers(scope=scope)) else (Match.NONE, {})
            return match, child

        def _matches(self, scope: Scope) -> tuple[Match, Scope]:
            """Take a slash within a percent-encoded task_id for what it is."""
            if b"%2f" not in scope.get("raw_path", b"").lower():
                return super().matches(scope)
            match, child = super().matches(_undecoded(scope))
            if match is not Match.NONE:
                given = child["path_params"]
                child["path_params"] = {
                    name: unquote(value) if isinstance(value, str) else value
                    for name, value in given.items()
                }
            return match, child

        def get_route_handler(self) -> Handler:
            handler = super().get_route_handler()
            is_open = SCOPE not in (self.openapi_extra or {})

            async def handle(request: Request) -> Response:
                try:
                    caller = ANYBODY if is_open else site.gate.caller(request)
                    check_origin(request)
                    request.state.aiotrack_caller = caller
                    await read_body(request, most, deepest, is_lenient=is_lenient)
                    return await handler(request)
                except Exception as error:
                    if not is_expected(error) and _is_handled(request, error):
                        raise
                    return answer_to(error)

            return handle

    return Route


def _is_handled(request: Request, error: Exception) -> bool:
    """Whether the application answers such an error itself; a handler for all is its last one."""
    kinds = type(error).__mro__
    return any(kind in request.app.exception_handlers for kind in kinds[: kinds.index(Exception)])


def _undecoded(scope: Scope) -> dict[str, Any]:
    """Give a scope whose path is as it was sent."""
    path = scope["raw_path"].partition(b"?")[0].decode("latin-1")
    return {**scope, "path": path, "root_path": quote(scope.get("root_path", ""), safe=_SAFE)}


def _meeting(site: Site) -> Callable[..., Any]:
    """Make the dependency that keeps whom the gate found."""

    async def meet(request: Request) -> None:
        enter(request, site, request.state.aiotrack_caller)

    return meet


def _asking_user(
    site: Site, user: Callable[..., Any], access: str | Callable[..., Any]
) -> Callable[..., Any]:
    """Make the dependency that asks the application who calls."""

    async def give() -> Any:
        return access

    who = _asking(user, as_dependency(user))
    told = give if isinstance(access, str) else as_dependency(access, who)
    asked = _asking(access, told)

    async def meet_user(request: Request, user: Any = who, access: Any = asked) -> None:
        enter(request, site, of_user(user, access))

    return meet_user


def _asking(given: object, function: Callable[..., Any]) -> Any:
    """Ask a dependency as it was given: ``Security(...)`` has scopes."""
    scopes = given.scopes if isinstance(given, params.Security) else None
    return Depends(function) if scopes is None else Security(function, scopes=scopes)


def _add(
    router: APIRouter,
    entry: Entry,
    dependencies: list[Dependency],
    hidden: type[APIRoute] | None = None,
) -> None:
    """Add a route twice: a slash at the end of a path is optional; one that is *hidden*, untold."""
    answered: dict[str, Any] = {"description": "As asked."}
    if entry.answer is not None:
        answered["model"] = entry.answer
    texts = entry.forms if entry.media is None else (entry.media,)
    if texts:
        answered["content"] = {one: {"schema": {"type": "string"}} for one in texts}
    statuses = {413, 415, 422, 503, *entry.problems}
    if entry.scope is not None:
        statuses |= {401, 403}
    if "{" in entry.path:
        statuses.add(404)
    if entry.method != "GET":
        statuses.add(403)
    else:
        statuses -= {413, 415}
    extra = {} if entry.scope is None else {SCOPE: str(entry.scope)}
    bare = entry.path.rstrip("/")
    answers: dict[int | str, dict[str, Any]] = documented(*sorted(statuses))
    for status, told in entry.also.items():
        if isinstance(told, str):
            answers[status] = {"description": told}
        else:
            answers[status] = answers.get(status, {}) | {"model": told}
    answers[400] = {
        "description": NO_HTTP,
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    answers[entry.status] = answered
    for path in dict.fromkeys((entry.path, bare, f"{bare}/")):
        router.add_api_route(
            path,
            entry.endpoint,
            methods=[entry.method],
            dependencies=[*dependencies, Depends(check(entry))],
            response_model=None,
            status_code=entry.status,
            responses=answers,
            tags=[entry.tag],
            operation_id=entry.endpoint.__name__,
            include_in_schema=path == entry.path and hidden is None,
            openapi_extra=extra,
            route_class_override=hidden,
        )
