"""A definition that a real scheduler sends every second: it fires, is paused, and goes on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiotrack import Execution, Tracker
    from aiotrack.demo.board import Board

PATIENCE: Final = 60.0
"""Seconds until it is given up; an idle machine needs seven."""

LOOK: Final = 0.2
"""Seconds between two looks."""

REST: Final = 2.2
"""Seconds of the pause: two due times are left out, and one that was on its way is done."""


async def show(board: Board, tracker: Tracker, name: str) -> None:
    """Let a definition run, rest and run again; put into *board* what became of it."""
    definitions, schedules = tracker.definitions, tracker.schedules
    made = await definitions.create(
        name=name,
        task_type="prices.refresh",
        schedule_kind="interval",
        schedule={"seconds": 1},
        parameters={"currency": "EUR"},
    )
    try:
        board.states.append(await schedules.start(name, by="ada"))
        await _until(tracker, made.id, 2)
        board.states.append(await schedules.pause(name))
        await asyncio.sleep(REST)
        before = len(await _runs(tracker, made.id))
        board.states.append(await schedules.resume(name))
        await _until(tracker, made.id, before + 1)
        board.scheduled = await _runs(tracker, made.id)
    finally:  # executions stay, with its id
        await definitions.delete(name)


async def _until(tracker: Tracker, definition_id: int, count: int) -> None:
    end = time.monotonic() + PATIENCE
    while len(await _runs(tracker, definition_id)) < count:
        if time.monotonic() > end:
            return
        await asyncio.sleep(LOOK)


async def _runs(tracker: Tracker, definition_id: int) -> list[Execution]:
    return (await tracker.list(config_id=definition_id, status="success")).items
