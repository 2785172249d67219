"""Makes the schedules anew after Redis has lost them: from the last deed on each definition."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from aiotrack.errors import ExecutionNotFound
from aiotrack.model import LASTING
from aiotrack.schedules.entry import ACTIVE, DONE, INACTIVE, PAUSED, task_id
from aiotrack.schedules.moves import Standing, restored

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.model import TaskDefinition
    from aiotrack.repository.control.audit import Deed
    from aiotrack.schedules.timetable import Timetable

log = logging.getLogger(__name__)

KNOWN: Final = 86_400_000
"""Milliseconds for which the record of what was sent is surely there: who keeps them for less?"""


async def rebuild(core: Core, table: Timetable) -> None:
    """Make them, unless somebody else does. Nothing is sent for what was due meanwhile.

    An interval keeps its grid. A moment that is over is sent only if no execution of it is known,
    and not after a day: then its record may have been cleaned up.

    Raises:
        ScheduleUnavailable: Redis did not answer.
        StoreUnavailable: The database did not answer.
    """
    from aiotrack.repository.control.audit import Audit
    from aiotrack.repository.control.definitions import DefinitionRows

    await core.repository.connect()
    definitions = await DefinitionRows(core.repository).select()
    targets = [f"definition:{definition.id}" for definition in definitions]
    deeds = await Audit(core.repository).last_of(LASTING, targets)
    now = await table.now()
    found: list[tuple[int, Standing]] = []
    for definition in definitions:
        deed = deeds.get(f"definition:{definition.id}")
        standing = _standing(definition, deed, now)
        if standing is not None:
            found.append((definition.id, await _unless_sent(core, definition.id, standing, now)))
    lines = [(one, s.entry, s.due) for one, s in found if s.entry is not None]
    if not await table.make(lines) or not deeds:
        return  # somebody else told it; or nothing was ever scheduled
    counted = Counter(standing.state for _, standing in found)
    log.warning(
        "the schedules were not in Redis, and are made anew from the audit: "
        "%d active, %d paused, %d inactive",
        counted[ACTIVE],
        counted[PAUSED],
        len(definitions) - counted[ACTIVE] - counted[PAUSED],
    )


def _standing(definition: TaskDefinition, deed: Deed | None, now: int) -> Standing | None:
    """Give what a definition's schedule was; None: inactive."""
    after = (deed.after if deed is not None else None) or {}
    state, anchor = after.get("state", INACTIVE), after.get("anchor")
    if not definition.is_scheduled or state not in {ACTIVE, PAUSED}:
        return None
    try:
        return restored(definition, state, anchor if isinstance(anchor, int) else None, now)
    except ValueError as error:  # such as a time zone that this machine does not know
        log.error("%s is not scheduled any more: %s", definition.name, error)
        return None


async def _unless_sent(core: Core, definition_id: int, standing: Standing, now: int) -> Standing:
    entry, due = standing.entry, standing.due
    if entry is None or entry.timing.at is None or due is None or due > now:
        return standing
    if due < now - KNOWN:
        return Standing(entry.to(DONE))
    try:
        await core.reader.get(task_id(definition_id, due))
    except ExecutionNotFound:
        return standing
    return Standing(entry.to(DONE))
