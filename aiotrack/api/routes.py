"""The table of routes: each says what it needs, what it answers, and stands in it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from starlette.convertors import CONVERTOR_TYPES, PathConvertor, StringConvertor

from aiotrack.api.access import Scope

F = TypeVar("F", bound=Callable[..., Any])

SCOPE: Final = "x-aiotrack-scope"
"""Where the OpenAPI document says what a route needs; absent: nothing."""


class _Any(PathConvertor):
    """Any text with slashes in it: Starlette's ``path`` ends at a line's end."""

    regex = "(?s:.*)"


class _Number(StringConvertor):
    """The number of an execution, or what is none; but no word that is a path of its own."""

    regex = "(?!(?:cancel|rerun)(?:/|$))[^/]+"


CONVERTOR_TYPES.setdefault("aiotrack", _Any())  # {task_id:aiotrack} in a path
CONVERTOR_TYPES.setdefault("aiotrack_number", _Number())


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One route.

    Attributes:
        method: In capitals.
        path: With a slash at its end where the contract has one; the other form is served, too.
        endpoint: Its parameters and docstring are FastAPI's.
        scope: What the caller needs; None: nothing.
        of_all: It reaches beyond what the caller sent himself.
        answer: The model of what it answers; None: no body, or none of JSON.
        status: Of that answer.
        problems: Statuses that it may answer with, besides those of every route.
        media: What it answers with instead of JSON.
        forms: What it answers with besides JSON, if it is asked to.
        tag: The resource.
        also: Other answers that are no problems: the model of each status, or, where it has no
            body, what it says.
        is_closed: A query parameter that the route does not know is refused.
    """

    method: str
    path: str
    endpoint: Callable[..., Any]
    scope: Scope | None
    of_all: bool
    answer: type[BaseModel] | None
    status: int
    problems: tuple[int, ...]
    media: str | None
    forms: tuple[str, ...]
    also: Mapping[int, type[BaseModel] | str]
    tag: str
    is_closed: bool = False


NOTHING: Final[Mapping[int, type[BaseModel] | str]] = {}


class Routes:
    """The routes of one resource.

    Args:
        tag: Its name.
        of_all: Whether they reach beyond what a caller sent himself, where none says otherwise.
        is_closed: Whether a query parameter that a route does not know is refused.
    """

    def __init__(self, tag: str, *, of_all: bool = True, is_closed: bool = False) -> None:
        self._is_closed = is_closed
        self.entries: list[Entry] = []
        self._tag = tag
        self._of_all = of_all

    def add(
        self,
        method: str,
        path: str,
        scope: Scope | None,
        *,
        answer: type[BaseModel] | None = None,
        status: int = HTTPStatus.OK,
        problems: Sequence[int] = (),
        media: str | None = None,
        forms: Sequence[str] = (),
        also: Mapping[int, type[BaseModel] | str] = NOTHING,
        of_all: bool | None = None,
    ) -> Callable[[F], F]:
        """Add a function as a route; see `Entry`."""

        def decorate(endpoint: F) -> F:
            self.entries.append(
                Entry(
                    method=method,
                    path=path,
                    endpoint=endpoint,
                    scope=scope,
                    of_all=self._of_all if of_all is None else of_all,
                    answer=answer,
                    status=int(status),
                    problems=tuple(problems),
                    media=media,
                    forms=tuple(forms),
                    also=also,
                    tag=self._tag,
                    is_closed=self._is_closed,
                )
            )
            return endpoint

        return decorate
