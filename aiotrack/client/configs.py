"""Task definitions and their schedules, asked of the REST API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiotrack.client import shapes
from aiotrack.client.transport import Again, Transport
from aiotrack.errors import DefinitionNotFound, ScheduleUnavailable

if TYPE_CHECKING:
    from aiotrack.counts import Stats
    from aiotrack.model import Execution, Page, TaskDefinition


async def _path(transport: Transport, definition: int | str) -> str:
    """Give the path of a definition; a text is a name before it is an id, as for the tracker.

    In a path the API reads a number as an id first, and a URL loses dots: such names are looked up.

    Raises:
        DefinitionNotFound: No path leads to such a name.
    """
    key = str(definition)
    is_number = key.isascii() and key.isdigit()
    if isinstance(definition, str) and (is_number or key in {".", ".."}):
        found = await _named(transport, key)
        key = key if found is None else str(found["id"])
    if key in {"", ".", ".."} or not shapes.is_whole(key):
        raise DefinitionNotFound(definition)
    return f"/configs/{quote(key, safe='')}"


async def _named(transport: Transport, name: str) -> Any:
    """Give what the API tells of the definition with exactly this name; None: there is none."""
    if not shapes.is_whole(name):
        return None
    told = await transport.ask("GET", "/configs", params=[("name", name)])
    return told["items"][0] if told["items"] else None


def _state(told: Mapping[str, Any]) -> str:
    """Give the state that an answer tells.

    Raises:
        ScheduleUnavailable: The server does not know it.
    """
    if told["schedule_status"] is None:
        raise ScheduleUnavailable("the API's server could not ask it")
    return str(told["schedule_status"])


class Definitions:
    """The task definitions; every verb that takes one takes its id or its name."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, *, start: bool = False, **fields: Any) -> TaskDefinition:
        """Store a new definition.

        Args:
            start: Whether its schedule is started, too.
            **fields: As `Tracker.definitions.create` takes them.

        Raises:
            InvalidDefinition: Nothing is stored; ``faults`` lists all that is wrong.
        """
        params = [("start", str(start).lower())]
        told = await self._transport.ask(
            "POST", "/configs", params=params, body=fields, again=Again.UNHEARD
        )
        return shapes.definition(told)

    async def get(self, definition: int | str) -> TaskDefinition:
        """Give a definition.

        Raises:
            DefinitionNotFound: There is none.
        """
        path = await _path(self._transport, definition)
        return shapes.definition(await self._transport.ask("GET", path, key=definition))

    async def get_by_name(self, name: str) -> TaskDefinition:
        """Give the definition with a name; raises as `get`."""
        found = await _named(self._transport, str(name))
        if found is None:
            raise DefinitionNotFound(name)
        return shapes.definition(found)

    async def stats(self, definition: int | str) -> Stats:
        """Count the executions that a definition sent; raises as `get`."""
        path = f"{await _path(self._transport, definition)}/stats/"
        return shapes.stats(await self._transport.ask("GET", path, key=definition))

    async def count_by_type(self) -> dict[str, int]:
        """Tell how many definitions there are of each task."""
        counts: dict[str, int] = (await self._transport.ask("GET", "/config-types/"))["counts"]
        return counts

    async def list(
        self, *, limit: int = 50, after: str | None = None, **filters: str | None
    ) -> Page[TaskDefinition]:
        """Give a page of definitions, the oldest first.

        Args:
            limit: Rows of the page, 1 to 500.
            after: ``next`` of the page before, with the same filters.
            **filters: ``task_type``, ``name``, ``schedule_kind``, ``text``.
        """
        given = {"limit": str(limit), "after": after, **filters}
        params = [(name, value) for name, value in given.items() if value is not None]
        return shapes.definitions(await self._transport.ask("GET", "/configs", params=params))

    async def update(self, definition: int | str, **changes: Any) -> TaskDefinition:
        """Change what is said; an active schedule follows at once.

        Raises:
            DefinitionNotFound: There is none.
            InvalidDefinition: Nothing is changed; ``faults`` lists all that is wrong.
        """
        path = await _path(self._transport, definition)
        told = await self._transport.ask("PATCH", path, key=definition, body=changes)
        return shapes.definition(told)

    async def delete(self, definition: int | str) -> None:
        """Delete a definition, and stop its schedule; its executions stay.

        Raises:
            DefinitionNotFound: There is none.
        """
        path = await _path(self._transport, definition)
        await self._transport.ask("DELETE", path, key=definition, again=Again.UNHEARD)


class Schedules:
    """The schedules of definitions; every verb takes a definition's id or name."""

    def __init__(self, transport: Transport, get: Callable[[str], Awaitable[Execution]]) -> None:
        self._transport = transport
        self._get = get

    async def start(self, definition: int | str, *, reason: str | None = None) -> str:
        """Let it run; gives the new state. As all of these it raises what the tracker would."""
        return await self._do("start", definition, reason)

    async def stop(self, definition: int | str, *, reason: str | None = None) -> str:
        """End it; gives the new state."""
        return await self._do("stop", definition, reason)

    async def pause(self, definition: int | str, *, reason: str | None = None) -> str:
        """Hold it; gives the new state."""
        return await self._do("pause", definition, reason)

    async def resume(self, definition: int | str, *, reason: str | None = None) -> str:
        """Let it go on; gives the new state."""
        return await self._do("resume", definition, reason)

    async def trigger(self, definition: int | str, *, reason: str | None = None) -> Execution:
        """Send it now, once, and give the execution."""
        told = await self._steer("trigger", definition, reason, Again.UNHEARD)
        return await self._get(told["task_id"])

    async def status(self, definition: int | str) -> str:
        """Give ``active``, ``paused`` or ``inactive``.

        Raises:
            DefinitionNotFound: There is none.
            ScheduleUnavailable: The server's Redis does not answer.
        """
        return _state(await self._standing(definition))

    async def statuses(self) -> dict[int, str]:
        """Give the state of every definition, by id; raises as `status`."""
        found: dict[int, str] = {}
        params = [("limit", "500")]
        while True:
            told = await self._transport.ask("GET", "/configs", params=params)
            found |= {one["id"]: _state(one) for one in told["items"]}
            if told["next"] is None:
                return found
            params = [("limit", "500"), ("after", told["next"])]

    async def next_run(self, definition: int | str) -> datetime | None:
        """Give when it is due; None: it is not. Raises as `status`."""
        told = await self._standing(definition)
        _state(told)
        due = told["next_run_at"]
        return None if due is None else datetime.fromisoformat(due)

    async def _standing(self, definition: int | str) -> Any:
        path = await _path(self._transport, definition)
        return await self._transport.ask("GET", path, key=definition)

    async def _do(self, action: str, definition: int | str, reason: str | None) -> str:
        return _state(await self._steer(action, definition, reason, Again.ALWAYS))

    async def _steer(
        self, action: str, definition: int | str, reason: str | None, again: Again
    ) -> Any:
        body = {"action": action, "reason": reason}
        path = f"{await _path(self._transport, definition)}/schedule"
        return await self._transport.ask("POST", path, key=definition, body=body, again=again)
