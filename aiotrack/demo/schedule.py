"""A task definition that a scheduler sends each second: paused, resumed, and taken away again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from aiotrack import Tracker

QUIET = 2.5
"""Seconds without a run that show that it is paused: two and a half of its periods."""
PATIENCE = 15.0
"""Seconds until each step must have shown."""


@dataclass(slots=True)
class Story:
    """What became of it, for the summary."""

    told: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


async def play(tracker: Tracker, task_name: str, *, name: str) -> Story:
    """Let a schedule fire, pause it, resume it; nothing of it stays but its records."""
    story = Story()
    definition = await tracker.definitions.create(
        name=name, task_type=task_name, schedule_kind="interval", schedule={"seconds": 1}
    )
    try:
        await tracker.schedules.start(definition.id, by="ada")
        fired = await _fired(tracker, definition.id, 2)
        await tracker.schedules.pause(definition.id, by="ada")
        await asyncio.sleep(0.5)  # what was sent is recorded
        before = await _count(tracker, definition.id)
        await asyncio.sleep(QUIET)
        paused = await _count(tracker, definition.id) - before
        await tracker.schedules.resume(definition.id, by="ada")
        resumed = await _fired(tracker, definition.id, before + 1) - before
    finally:
        await tracker.definitions.delete(definition.id)
    if fired < 2:
        story.faults.append(f"the schedule {name!r} fired {fired} times: is the scheduler there?")
    if paused:
        story.faults.append(f"the schedule {name!r} fired {paused} times while it was paused")
    if not resumed:
        story.faults.append(f"the schedule {name!r} did not fire after it was resumed")
    story.told.append(
        f"{task_name} by the schedule {name!r}: fired {before} times, {paused} while it was paused "
        f"for {QUIET:g} s, {resumed} after it was resumed"
    )
    return story


async def _fired(tracker: Tracker, definition_id: int, count: int) -> int:
    end = time.monotonic() + PATIENCE
    while True:
        found = await _count(tracker, definition_id)
        if found >= count or time.monotonic() > end:
            return found
        await asyncio.sleep(0.1)


async def _count(tracker: Tracker, definition_id: int) -> int:
    return (await tracker.count(config_id=definition_id)).value
