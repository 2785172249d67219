"""What users call: ``tracker.schedules``."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from taskiq.kicker import AsyncKicker

from aiotrack import catalog
from aiotrack.body import find_task
from aiotrack.clock import to_datetime
from aiotrack.errors import (
    DefinitionNotFound,
    ExecutionNotFound,
    InvalidDefinition,
    ScheduleUnavailable,
    StoreUnavailable,
    UnknownTask,
)
from aiotrack.model import LASTING
from aiotrack.schedules import moves
from aiotrack.schedules.entry import INACTIVE, labels_of, labels_of_task
from aiotrack.schedules.feature import Timetables
from aiotrack.schedules.moves import NOTHING, Standing, move
from aiotrack.schedules.rebuild import rebuild

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiotrack.core import Core
    from aiotrack.model import Execution, TaskDefinition
    from aiotrack.records import Records
    from aiotrack.schedules.timetable import Line, Reading, Timetable

log = logging.getLogger(__name__)

TRIES: Final = 20
"""How often a change begins anew because somebody else was quicker, or Redis lost its data."""

BOUNDS: Final = 2**63


class Schedules:
    """The schedules of a tracker's definitions; each verb takes a definition's id or name.

    A schedule's own id, ``task_<id>``, names it, too.

    Every verb but `trigger` may be repeated, and gives the state: ``active``, ``paused`` or
    ``inactive``. The change is in Redis first, then in the audit: when an error came between, ask
    again. Schedulers obey within two seconds.
    """

    def __init__(self, tracker: Records) -> None:
        self._tracker = tracker

    async def start(
        self, definition: int | str, *, by: str | int | None = None, reason: str | None = None
    ) -> str:
        """Let a definition be sent by its schedule; a paused one goes on.

        An interval runs first when it is over once. A moment that was over for a minute leaves it
        inactive, and so does one that was sent.

        Args:
            definition: Its id or name.
            by: Who asks for it, for the audit.
            reason: Why, for the audit.

        Returns:
            The state.

        Raises:
            DefinitionNotFound: There is none.
            InvalidDefinition: It is manual.
            ScheduleUnavailable: Redis did not answer, or the tracker has none.
            StoreUnavailable: The database did not answer.
        """
        return await self._change(moves.START, definition, by, reason)

    async def stop(
        self, definition: int | str, *, by: str | int | None = None, reason: str | None = None
    ) -> str:
        """Let a definition be sent no more; what was sent goes on. As `start`."""
        return await self._change(moves.STOP, definition, by, reason)

    async def pause(
        self, definition: int | str, *, by: str | int | None = None, reason: str | None = None
    ) -> str:
        """Let a definition rest until `resume`; nothing is sent for what it misses. As `start`."""
        return await self._change(moves.PAUSE, definition, by, reason)

    async def resume(
        self, definition: int | str, *, by: str | int | None = None, reason: str | None = None
    ) -> str:
        """Let a paused one go on at its next time: an interval keeps its grid. As `start`.

        A moment that came meanwhile is sent, or not, by the schedulers' ``catch_up``.
        """
        return await self._change(moves.RESUME, definition, by, reason)

    async def trigger(
        self, definition: int | str, *, by: str | int | None = None, reason: str | None = None
    ) -> Execution:
        """Send a definition now, once, whatever its kind and state; needs no Redis.

        Args:
            definition: Its id or name.
            by: Who asks for it: the execution's ``created_by``, and for the audit.
            reason: Why, for the audit.

        Returns:
            The new execution.

        Raises:
            DefinitionNotFound: There is none.
            UnknownTask: No broker of this tracker, in this process, knows the task.
            InvalidDefinition: It has a parameter that TaskIQ takes for no task: ``self``.
            StoreUnavailable: The database did not answer.
            taskiq.SendTaskError: The broker did not take it.
        """
        known = await self._find(definition)
        found = find_task(self._tracker.brokers, known.task_type)
        if found is None:
            raise UnknownTask(known.task_type, brokers=len(self._tracker.brokers))
        if wrong := catalog.unsendable(known.parameters):
            raise InvalidDefinition(f"parameters: {fault}" for fault in wrong)
        broker, task = found
        labels = labels_of_task(task, self._tracker.options.task_timeout_seconds)
        labels |= labels_of(known)
        if by is not None:
            labels["created_by"] = str(by)
        new_id: str = broker.id_generator()
        kicker: AsyncKicker[..., Any] = AsyncKicker(known.task_type, broker, labels)
        await kicker.with_task_id(new_id).kiq(**known.parameters)
        await self._record(moves.TRIGGER, known.id, by, reason, None, {"task_id": new_id})
        try:
            return await self._tracker.get(new_id)
        except (ExecutionNotFound, StoreUnavailable) as error:
            raise StoreUnavailable(
                f"{known.name!r} was sent as {new_id!r}, whose record cannot be read for now"
            ) from error

    async def status(self, definition: int | str) -> str:
        """Tell the state: ``active``, ``paused`` or ``inactive``; the last also of unknown ids.

        Raises:
            DefinitionNotFound: No definition has this name.
            ScheduleUnavailable: Redis did not answer, or the tracker has none.
        """
        return (await self._standing(definition)).state

    async def statuses(self) -> dict[int, str]:
        """Tell the state of every definition, by id.

        Raises:
            ScheduleUnavailable: Redis did not answer, or the tracker has none.
            StoreUnavailable: The database did not answer.
        """
        from aiotrack.repository.control.definitions import DefinitionRows

        found = await self._read()
        known = await DefinitionRows(self._core().repository).ids()
        states = {line.id: standing_of(line).state for line in found.lines}
        return dict.fromkeys(known, INACTIVE) | states

    async def next_run(self, definition: int | str) -> datetime | None:
        """Tell when a definition is due next, aware and UTC; None unless it is active.

        Raises:
            DefinitionNotFound: No definition has this name.
            ScheduleUnavailable: Redis did not answer, or the tracker has none.
        """
        return _moment(await self._standing(definition))

    async def next_runs(self) -> dict[int, datetime]:
        """Tell when the active ones are due next, by id; raises as `next_run`."""
        standings = {line.id: standing_of(line) for line in (await self._read()).lines}
        times = {one: _moment(standing) for one, standing in standings.items()}
        return {one: at for one, at in times.items() if at is not None}

    # ── what definitions need ───────────────────────────────────────────────────────────────────
    async def rests(self, definition: TaskDefinition) -> bool:
        """Tell by the audit, without Redis, whether there is nothing to follow; see `Follower`."""
        from aiotrack.repository.control.audit import Audit

        if definition.is_scheduled:
            return False
        target = f"definition:{definition.id}"
        kept = await Audit(self._core().repository).last_of(LASTING, [target])
        return target not in kept or kept[target].after == _told(NOTHING)

    async def check(self) -> None:
        """Raise when nothing can be changed here now; see `aiotrack.definitions.verbs.Follower`."""
        if self._tracker.redis is not None:
            await self._line(0)

    async def changed(self, definition: TaskDefinition, *, by: str | None) -> None:
        """Follow a change of a definition."""
        if self._tracker.redis is not None:
            await self._move(moves.RETIME, definition, by, None)
        elif definition.is_scheduled:
            log.warning(
                "this process has no Redis: if %r is scheduled, it goes on as it was until it is "
                "started once more",
                definition.name,
            )

    async def dropped(self, definition: TaskDefinition, *, by: str | None) -> None:
        """Stop what is about to go."""
        if self._tracker.redis is not None:
            await self._move(moves.STOP, definition, by, "the definition was deleted")

    # ── how ─────────────────────────────────────────────────────────────────────────────────────
    async def _change(
        self, action: str, definition: int | str, by: str | int | None, reason: str | None
    ) -> str:
        self._table()  # without Redis nothing is asked of the database
        known = await self._find(definition)
        if action == moves.START and not known.is_scheduled:
            fault = f"{known.name!r} is manual: it has no schedule; use trigger"
            raise InvalidDefinition([fault])
        return await self._move(action, known, by, reason)

    async def _move(
        self, action: str, definition: TaskDefinition, by: str | int | None, reason: str | None
    ) -> str:
        for _ in range(TRIES):
            line, now = await self._line(definition.id)
            known = standing_of(line)
            made = move(action, definition, known, now)
            # What cannot be read is replaced, too: `known` says nothing of it.
            is_same = made == known and (line.raw is None) == (known.entry is None)
            if is_same or await self._put(line, made):
                await self._record_change(action, definition.id, by, reason, known, made)
                latest = definition if made.entry is None else await self._latest(definition.id)
                if latest == definition:
                    return made.state
                if latest is None:
                    action = moves.STOP
                else:
                    action, definition = moves.RETIME, latest
        raise ScheduleUnavailable(f"the schedule of {definition.name!r} is being changed by others")

    async def _latest(self, definition_id: int) -> TaskDefinition | None:
        """Read a definition again: who changed or deleted it meanwhile did not see our change."""
        from aiotrack.repository.control.definitions import DefinitionRows

        return await DefinitionRows(self._core().repository).meant(definition_id)

    async def _put(self, line: Line, made: Standing) -> bool:
        from aiotrack.schedules.timetable import LostError

        try:
            return await self._table().put(line, made.entry, made.due)
        except LostError:
            return False  # what reads it next makes everything anew

    async def _record_change(
        self,
        action: str,
        definition_id: int,
        by: str | int | None,
        reason: str | None,
        known: Standing,
        made: Standing,
    ) -> None:
        """Keep what was done; what changed nothing only if an earlier try could not be kept."""
        from aiotrack.repository.control.audit import Audit

        after = _told(made)
        if known == made:
            target = f"definition:{definition_id}"
            kept = await Audit(self._core().repository).last_of(LASTING, [target])
            last = kept[target].after if target in kept else _told(NOTHING)
            if last == after:
                return
        await self._record(action, definition_id, by, reason, _told(known), after)

    async def _record(
        self,
        action: str,
        definition_id: int,
        by: str | int | None,
        reason: str | None,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        from aiotrack.repository.control.audit import Audit, Deed

        core = self._core()
        await core.repository.connect()  # it knows what time it is
        deed = Deed(
            at=self._tracker.clock.now(),
            actor=None if by is None else self._tracker.encoder.name(str(by)),
            action=action,
            target=f"definition:{definition_id}",
            reason=None if reason is None else self._tracker.encoder.text(reason),
            before=before,
            after=after,
        )
        await Audit(core.repository).append(deed)

    async def _find(self, definition: int | str) -> TaskDefinition:
        from aiotrack.repository.control.definitions import DefinitionRows

        found = await DefinitionRows(self._core().repository).meant(definition)
        if found is None:
            raise DefinitionNotFound(definition)
        return found

    async def _standing(self, definition: int | str) -> Standing:
        self._table()
        if type(definition) is not int:  # True is no id
            definition = (await self._find(definition)).id
        if not 0 <= definition < BOUNDS:
            return NOTHING
        return standing_of((await self._line(definition))[0])

    async def _line(self, definition_id: int) -> tuple[Line, int]:
        from aiotrack.schedules.timetable import LostError

        for _ in range(TRIES):
            try:
                return await self._table().line(definition_id)
            except LostError:
                await rebuild(self._core(), self._table())
        raise ScheduleUnavailable("Redis loses its data again and again")

    async def _read(self) -> Reading:
        from aiotrack.schedules.timetable import LostError

        for _ in range(TRIES):
            try:
                return await self._table().read()
            except LostError:
                await rebuild(self._core(), self._table())
        raise ScheduleUnavailable("Redis loses its data again and again")

    def _core(self) -> Core:
        return self._tracker.core()

    def _table(self) -> Timetable:
        return self._core().feature(Timetables).table()


def standing_of(line: Line) -> Standing:
    """Give what stands in a line; what cannot be read counts as nothing."""
    try:
        entry = line.entry()
    except ValueError:
        return NOTHING
    return Standing(entry, line.due) if entry is not None else NOTHING


def _moment(standing: Standing) -> datetime | None:
    due = standing.due
    if standing.entry is None or standing.state != "active" or due is None:
        return None
    try:
        return to_datetime(due * 1000)
    except OverflowError:
        return None


def _told(standing: Standing) -> dict[str, Any]:
    """Give what the audit keeps: what is needed to make it anew."""
    entry = standing.entry
    if entry is None or standing.state == INACTIVE:
        return {"state": INACTIVE}
    return {"state": standing.state, "anchor": entry.anchor}
