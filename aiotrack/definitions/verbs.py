"""What users call: ``tracker.definitions``."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, Unpack

from aiotrack.definitions.checks import DEFAULTS, REQUIRED, faults
from aiotrack.errors import (
    DefinitionNotFound,
    InvalidDefinition,
    InvalidQuery,
    ScheduleUnavailable,
    StoreError,
    StoreUnavailable,
)
from aiotrack.model import Page, TaskDefinition
from aiotrack.timing import MANUAL

if TYPE_CHECKING:
    import builtins

    from aiotrack.counts import Stats
    from aiotrack.records import Records
    from aiotrack.repository.control.definitions import DefinitionRows

log = logging.getLogger(__name__)

MOST: Final = 500
"""Definitions of one page."""

TRIES: Final = 40
"""How often an update begins anew because somebody else was quicker."""

PAUSE: Final = 0.1
"""Seconds before that at most: by chance, so that who met once does not meet again."""


class Fields(TypedDict, total=False):
    """What is said of a definition; `aiotrack.TaskDefinition` says what each means."""

    name: str
    description: str
    task_type: str
    schedule_kind: str
    schedule: dict[str, Any]
    parameters: dict[str, Any]
    max_retries: int
    timeout_seconds: float | None
    priority: int
    queue: str | None


class Follower(Protocol):
    """Who must know what becomes of a definition: its schedule."""

    async def rests(self, definition: TaskDefinition) -> bool:
        """Tell whether there is nothing to follow: it is manual, and nothing of it goes on."""

    async def check(self) -> None:
        """Raise when nothing can be followed now: then nothing is changed."""

    async def changed(self, definition: TaskDefinition, *, by: str | None) -> None:
        """Follow a change that is stored."""

    async def dropped(self, definition: TaskDefinition, *, by: str | None) -> None:
        """End what is going on: the definition is about to go."""


class Definitions:
    """The task definitions of a tracker; every verb that takes one takes its id or its name.

    Text that is no name may be its id in digits, or that of its schedule, ``task_<id>``.

    Args:
        tracker: Its database, and its brokers, which know the tasks there are. In a process
            without brokers the task's name and the parameters are taken as they are.
        follower: Hears of what changes.
    """

    def __init__(self, tracker: Records, follower: Follower) -> None:
        self._tracker = tracker
        self._follower = follower

    async def create(
        self, *, by: str | int | None = None, **fields: Unpack[Fields]
    ) -> TaskDefinition:
        """Store a new definition; its schedule is not started by that.

        Args:
            by: Who asks for it, for the audit.
            **fields: ``name`` and ``task_type`` at least.

        Raises:
            InvalidDefinition: Nothing is stored; ``faults`` lists all that is wrong.
            StoreUnavailable: The database did not answer.
        """
        told = _plain({**fields})
        found = faults(told, self._tracker.brokers)
        name = told.get("name")
        rows, now = await self._rows()
        if _is_name(name):
            found += await self._taken(name)
        if found:
            raise InvalidDefinition(found)
        made = await rows.create({**DEFAULTS, **told}, now=now)
        if made is None:
            raise InvalidDefinition([_taken_fault(name)])
        definition = await self.get(made)
        await self._record("definition.create", definition, None, told, by)
        return definition

    async def get(self, definition: int | str) -> TaskDefinition:
        """Give a definition.

        Raises:
            DefinitionNotFound: There is none.
            StoreUnavailable: The database did not answer.
        """
        rows, _ = await self._rows()
        found = await rows.meant(definition)
        if found is None:
            raise DefinitionNotFound(definition)
        return found

    async def get_by_name(self, name: str) -> TaskDefinition:
        """Give the definition with a name; raises as `get`."""
        rows, _ = await self._rows()
        found = await rows.find(str(name))
        if found is None:
            raise DefinitionNotFound(name)
        return found

    async def update(
        self,
        definition: int | str,
        *,
        by: str | int | None = None,
        **changes: Unpack[Fields],
    ) -> TaskDefinition:
        """Change a definition; a schedule that is active or paused follows at once.

        A new crontab, interval or moment is timed anew; other changes keep its times. One that is
        manual and stays so needs no Redis.

        Args:
            definition: Its id or name.
            by: Who asks for it, for the audit.
            **changes: Fields of it.

        Raises:
            DefinitionNotFound: There is none.
            InvalidDefinition: Nothing is stored; ``faults`` lists all that is wrong.
            ScheduleUnavailable: Redis did not answer, and nothing is stored; or it went away right
                after that was asked: ask again, which does no harm.
            StoreUnavailable: The database did not answer.
        """
        for _ in range(TRIES):
            known = await self.get(definition)
            before = _fields(known)
            told = _plain({**before, **changes})
            found = faults(told, self._tracker.brokers)
            if told["name"] != known.name and _is_name(told["name"]):
                found += await self._taken(told["name"])
            if found:
                raise InvalidDefinition(found)
            stays = told["schedule_kind"] == MANUAL and await self._follower.rests(known)
            if not stays:
                await self._follower.check()
            rows, now = await self._rows()
            try:
                is_ours = await rows.replace(known, told, now=now)
            except StoreUnavailable:
                raise
            except StoreError as error:
                raise InvalidDefinition([_taken_fault(told["name"])]) from error
            if is_ours:
                made = await self.get(known.id)
                changed = {key: value for key, value in told.items() if before[key] != value}
                old = {key: before[key] for key in changed}
                if changed:
                    await self._record("definition.update", made, old, changed, by)
                if not stays:
                    await self._follower.changed(made, by=_word(by))
                return made
            await asyncio.sleep(random.uniform(0, PAUSE))
        raise StoreUnavailable(f"the definition {definition!r} is being changed by others")

    async def delete(self, definition: int | str, *, by: str | int | None = None) -> None:
        """Delete a definition, and stop its schedule; its executions stay, with its id.

        A manual one without a schedule needs no Redis.

        Raises:
            DefinitionNotFound: There is none.
            ScheduleUnavailable: Redis did not answer: the definition stays.
            StoreUnavailable: The database did not answer.
        """
        known = await self.get(definition)
        if not await self._follower.rests(known):
            await self._follower.dropped(known, by=_word(by))
        rows, _ = await self._rows()
        if not await rows.delete(known.id):
            raise DefinitionNotFound(definition)
        try:  # who started it between found it still there
            if not await self._follower.rests(known):
                await self._follower.dropped(known, by=_word(by))
        except (ScheduleUnavailable, StoreUnavailable):
            log.warning("%r is deleted; if it was started meanwhile, it is still sent", known.name)
        await self._record("definition.delete", known, _fields(known), None, by)

    async def list(
        self,
        *,
        task_type: str | None = None,
        name: str | None = None,
        schedule_kind: str | None = None,
        text: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[TaskDefinition]:
        """Give a page of the definitions that match every filter, the oldest first.

        Args:
            task_type: Of this task.
            name: With exactly this name.
            schedule_kind: ``manual``, ``cron``, ``interval`` or ``once``.
            text: With this in the name, the description or the task's name, in any case;
                SQLite, and PostgreSQL with the locale C, know the case of ASCII letters only.
            limit: Rows of the page, 1 to 500.
            after: ``next`` of the page before, with the same filters.

        Raises:
            InvalidQuery: A filter, limit or cursor that cannot be served.
            StoreUnavailable: The database did not answer.
        """
        from aiotrack.repository.cursor import decode, encode, is_int, not_ours

        filters = {
            "task_type": task_type,
            "name": name,
            "schedule_kind": schedule_kind,
            "text": text,
        }
        for key, value in filters.items():
            if value is not None and not isinstance(value, str):
                raise InvalidQuery(f"{key} must be text, not {type(value).__name__}")
            if value is not None and "\0" in value:
                raise InvalidQuery(f"{key} must be without NUL characters")
        if not is_int(limit) or not 1 <= limit <= MOST:
            raise InvalidQuery(f"limit must be a whole number from 1 to {MOST}")
        digest = hashlib.sha256(repr(filters).encode(errors="replace")).hexdigest()[:16]
        start = 0
        if after is not None:
            kind, told, start, _ = decode(after)
            if [kind, told] != ["definitions", digest] or not is_int(start):
                raise not_ours()
        rows, _ = await self._rows()
        found = await rows.select(**filters, after=start, limit=limit + 1)
        items = found[:limit]
        is_last = len(found) <= limit
        return Page(items, None if is_last else encode(["definitions", digest, items[-1].id, 0]))

    async def stats(self, definition: int | str) -> Stats:
        """Count the executions that a definition sent; see `Tracker.stats`.

        Those of a deleted one are counted by its id.

        Raises:
            DefinitionNotFound: No definition has this name.
            QueryTimeout: Two seconds were over.
            StoreUnavailable: The database did not answer.
        """
        found = definition if type(definition) is int else (await self.get(definition)).id
        return await self._tracker.stats(config_id=found)

    async def count_by_type(self) -> dict[str, int]:
        """Tell how many definitions there are of each task."""
        rows, _ = await self._rows()
        return await rows.count_by_type()

    async def _rows(self) -> tuple[DefinitionRows, int]:
        """Give the rows, and the database's time."""
        from aiotrack.repository.control.definitions import DefinitionRows

        repository = self._tracker.core().repository
        await repository.connect()
        return DefinitionRows(repository), self._tracker.clock.now()

    async def _taken(self, name: Any) -> builtins.list[str]:
        rows, _ = await self._rows()
        return [_taken_fault(name)] if await rows.find(name) is not None else []

    async def _record(
        self,
        action: str,
        definition: TaskDefinition,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
        by: str | int | None,
    ) -> None:
        from aiotrack.repository.control.audit import Audit, Deed

        deed = Deed(
            at=self._tracker.clock.now(),
            actor=None if by is None else self._tracker.encoder.name(str(by)),
            action=action,
            target=f"definition:{definition.id}",
            before=self._shown(before),
            after=self._shown(after),
        )
        try:
            await Audit(self._tracker.core().repository).append(deed)
        except StoreError as error:  # it is done: who asks again would hear that the name is taken
            log.error("the audit does not know of %r on %r: %s", action, deed.target, error)

    def _shown(self, fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Give fields as the audit keeps them: bounded, and without secrets."""
        if fields is None:
            return None
        found: dict[str, Any] = json.loads(self._tracker.encoder.encode_kwargs(fields).text)
        return found


def _fields(definition: TaskDefinition) -> dict[str, Any]:
    return {name: getattr(definition, name) for name in (*REQUIRED, *DEFAULTS)}


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Give plain dictionaries for whatever mappings there are."""
    return {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()
    }


def _word(by: str | int | None) -> str | None:
    return None if by is None else str(by).replace("\0", "")


def _is_name(name: object) -> bool:
    return not faults({"name": name, "task_type": "x"}, ())


def _taken_fault(name: object) -> str:
    return f"name {name!r} is taken"
