"""What a verb makes of a schedule. Pure; moments are milliseconds, by Redis' clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from aiotrack.model import TaskDefinition
from aiotrack.schedules.entry import ACTIVE, DONE, FRESH, INACTIVE, PAUSED, SECOND, Entry

START: Final = "schedule.start"
STOP: Final = "schedule.stop"
PAUSE: Final = "schedule.pause"
RESUME: Final = "schedule.resume"
RETIME: Final = "schedule.retime"
TRIGGER: Final = "schedule.trigger"


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands in Redis, or is to stand there: ``entry`` None for nothing."""

    entry: Entry | None = None
    due: int | None = None

    @property
    def state(self) -> str:
        """``active``, ``paused`` or ``inactive``, as users see it."""
        return INACTIVE if self.entry is None or self.entry.state == DONE else self.entry.state


NOTHING: Final = Standing()


def move(action: str, definition: TaskDefinition, known: Standing, now: int) -> Standing:
    """Give what a schedule becomes.

    Args:
        action: `START`, `STOP`, `PAUSE`, `RESUME`, or `RETIME` after a change of its definition.
        definition: Its definition, as it is now.
        known: What stands there.
        now: The moment.
    """
    entry = known.entry
    if action == STOP or not definition.is_scheduled:
        return NOTHING
    if action == START and known.state == INACTIVE:
        return _started(definition, known, now)
    if entry is None or entry.state == DONE:
        return known
    return Standing(entry.to(PAUSED)) if action == PAUSE else _kept(action, definition, known, now)


def _kept(action: str, definition: TaskDefinition, known: Standing, now: int) -> Standing:
    """Give what an active or a paused one becomes that goes on."""
    entry = known.entry
    assert entry is not None
    fresh = Entry.of(definition, entry.state, entry.anchor)
    if fresh.timing != entry.timing:
        fresh = replace(fresh, anchor=_second(now))
    if action in {START, RESUME} and entry.state == PAUSED:
        at = fresh.timing.at  # a moment that came meanwhile: whoever sends knows what that means
        return Standing(fresh.to(ACTIVE), fresh.next(now) if at is None else at)
    if entry.state == PAUSED:
        return Standing(fresh)
    return Standing(fresh, known.due) if fresh.timing == entry.timing else _timed(fresh, now)


def _started(definition: TaskDefinition, known: Standing, now: int) -> Standing:
    entry = Entry.of(definition, ACTIVE, _second(now))
    moment = entry.timing.at
    if moment is not None and known.entry is not None and known.entry.timing.at == moment:
        return known  # it was sent: the same moment does not come again
    return _timed(entry, now)


def _timed(entry: Entry, now: int) -> Standing:
    """Give an active entry its next due time; a moment that is long over leaves nothing."""
    at = entry.timing.at
    if at is not None and at < now - FRESH:
        return NOTHING
    due = entry.next(now) if at is None else at
    return NOTHING if due is None else Standing(entry, due)


def restored(definition: TaskDefinition, state: str, anchor: int | None, now: int) -> Standing:
    """Give what a schedule was before Redis lost it; a moment that is over may have been sent."""
    entry = Entry.of(definition, state, _second(now) if anchor is None else anchor)
    if state == PAUSED:
        return Standing(entry)
    at = entry.timing.at
    return Standing(entry, entry.next(now) if at is None else at)


def _second(now: int) -> int:
    """Give the whole second: schedulers look once a second, on it."""
    return now // SECOND * SECOND
