"""`create_app`: an application of its own, which ``aiotrack serve`` runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from aiotrack import __version__
from aiotrack.api.problems import answer_to
from aiotrack.api.router import create_ingest, create_router

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.api.access import Token
    from aiotrack.tracker import Tracker

PREFIX: Final = "/api/v1"


def create_app(
    tracker: Tracker,
    *,
    broker: AsyncBroker | None = None,
    user: Callable[..., Any] | None = None,
    access: str | Callable[..., Any] = "all",
    username: Callable[[str], Any] | None = None,
    tokens: Iterable[Token | str] = (),
) -> FastAPI:
    """Make an ASGI application: the API under ``/api/v1``, its document at ``openapi.json`` there.

    What TaskIQ's own admin middleware reports is taken at the root: see `create_ingest`. It starts
    and stops the tracker, and the broker that is given. Arguments as in `create_router`; reports
    of that middleware need a token even where *user* says who calls.

    Raises:
        InvalidSetting: A token that cannot be used.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await tracker.startup(wait=False)  # an API that is up can say that its database is not
        if broker is not None:
            await broker.startup()
        try:
            yield
        finally:
            if broker is not None:
                await broker.shutdown()
            await tracker.shutdown()

    given = list(tokens)
    app = _Application(
        title="aiotrack",
        version=__version__,
        description="Executions of TaskIQ tasks: what ran, what runs, and how to steer it.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # they load scripts of others
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        exception_handlers={HTTPException: _tell},
    )
    router = create_router(
        tracker, broker=broker, user=user, access=access, username=username, tokens=given
    )
    app.include_router(router, prefix=PREFIX)
    if given or user is None:  # a middleware is nobody's browser: without a token it stays out
        app.include_router(create_ingest(tracker, tokens=given))
    return app


class _Application(FastAPI):
    """Its document tells no null of parameters: a query cannot say one."""

    def openapi(self) -> dict[str, Any]:
        told = super().openapi()
        for operations in told["paths"].values():
            for operation in operations.values():
                for parameter in operation.get("parameters", ()):
                    _without_null(parameter["schema"])
        return told


def _without_null(schema: dict[str, Any]) -> None:
    kinds = [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) == 1:
        schema.update(kinds[0])
    elif kinds:
        schema["anyOf"] = kinds


async def _tell(request: Request, error: Exception) -> Response:
    """Tell of paths and methods that there are not, as of all else."""
    answer = answer_to(error)
    if answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        answer.headers["allow"] = ", ".join(_allowed(request)) or answer.headers.get("allow", "")
    return answer


def _allowed(request: Request) -> list[str]:
    """Give the methods of all routes of a path; Starlette tells those of the first one.

    A path that is a word of ours is none of those whose parameters could be that word.
    """
    found: dict[str, bool] = {}
    for method in ("DELETE", "GET", "PATCH", "POST", "PUT"):
        scope = {**request.scope, "method": method, "path_params": {}}
        for route in request.app.routes:
            match, child = route.matches(scope)
            if match is Match.FULL:
                found[method] = not child.get("path_params")
                break
    is_word = any(found.values())
    return [method for method, has_none in found.items() if has_none or not is_word]
