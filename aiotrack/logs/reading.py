"""Reading what was logged: by pages, and live. A slow reader holds no lines: it reads on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from aiotrack.clock import to_micros
from aiotrack.encode import encode_task_id
from aiotrack.errors import ExecutionNotFound, InvalidQuery
from aiotrack.logs.scroll import left_out
from aiotrack.model import MARKER, Execution, LogLine, Page
from aiotrack.settings import level_of

if TYPE_CHECKING:
    from aiotrack.logs.writer import Logs
    from aiotrack.repository.logs import RunKey

PIECE = 200
"""Lines that a follower reads at once."""

ASK_FIRST, ASK_LAST = 0.25, 1.0
"""Seconds between two looks of a follower that nobody wakes: half as many again after each look
that found nothing."""

QUIET = 1.0
"""Seconds without a line after the end of an execution: its worker writes a few times a second."""

JUST_NOW = 500_000
"""Microseconds after an end in which its worker may still write; it gathers for 200,000."""

LONG_AGO = 10_000_000
"""Microseconds after an end when its last lines are written for sure, or will never be."""


async def page(
    writer: Logs,
    task_id: str | int,
    *,
    attempt: int | None,
    level: str | int | None,
    limit: int,
    after: str | None,
) -> Page[LogLine]:
    """Give a page of lines; see `Tracker.logs`."""
    try:
        lowest = None if level is None else level_of(level)
    except ValueError as error:
        raise InvalidQuery(f"level: {error}") from None
    key = encode_task_id(task_id)
    await writer.flush(writer.tracker.options.commit_budget)
    found = await writer.store.page(key, attempt=attempt, level=lowest, limit=limit, after=after)
    if found is None:
        raise ExecutionNotFound(task_id if isinstance(task_id, str) else key)
    left = 0.0 if found.next is not None else await _still_written(writer, task_id)
    if left <= 0:
        return found
    await asyncio.sleep(left)
    again = await writer.store.page(key, attempt=attempt, level=lowest, limit=limit, after=after)
    return found if again is None else again


async def _still_written(writer: Logs, task_id: str | int) -> float:
    """Give the seconds in which another process may write lines of what it ended just now.

    Who waited for an execution asks for its lines at once, and would not ask again. Lines that a
    `TaskLogCollector` wrote may have no execution.
    """
    try:
        execution = await writer.core.reader.get(task_id)
    except ExecutionNotFound:
        return 0.0
    end, worker = execution.finished_at, execution.worker
    if end is None or worker in {None, writer.tracker.worker_id} or not writer.is_on:
        return 0.0
    return min(JUST_NOW, to_micros(end) + JUST_NOW - writer.tracker.clock.now()) / 1e6


async def follow(writer: Logs, task_id: str | int) -> AsyncGenerator[LogLine, None]:
    """Yield what is there, then what comes, until the execution is over; see `Tracker.tail`."""
    key = encode_task_id(task_id)
    heard = await writer.core.live.listen(key)
    seen: dict[RunKey, int] = {}
    ask = ASK_FIRST
    was_quiet = False
    while True:
        execution = await writer.core.reader.get(task_id)  # before the lines: they come before it
        if not seen or execution.is_completed:  # not at each look: its writes would wake us
            await writer.flush(writer.tracker.options.commit_budget)
        is_new = False
        async for line in _unseen(writer, key, seen):
            is_new = True
            yield line
        if execution.is_completed:
            if (was_quiet and not is_new) or _ended_long_ago(writer, execution):
                return
            was_quiet = not await heard.changed(QUIET)
        else:
            was_quiet = False
            ask = ASK_FIRST if is_new else min(ask * 1.5, ASK_LAST)
            await heard.changed(ask)


def _ended_long_ago(writer: Logs, execution: Execution) -> bool:
    end = execution.finished_at
    return end is not None and writer.tracker.clock.now() - to_micros(end) > LONG_AGO


async def _unseen(writer: Logs, key: str, seen: dict[RunKey, int]) -> AsyncIterator[LogLine]:
    """Yield what came to any run since the last look: two may be live, or overlap at a retry."""
    for run, last in (await writer.store.ends(key)).items():
        explained = run not in seen
        while (known := seen.get(run, 0)) < last:
            lines = await writer.store.since(key, run, known, PIECE)
            if not lines:
                break
            for seq, line in lines:
                gap = seq - known - 1
                is_marker = line.logger == MARKER
                if gap and not (explained or is_marker):
                    marker = await writer.store.marker(key, run)
                    gap -= marker is None or marker > known  # its number is kept free
                    if gap:  # the tail rolled on meanwhile
                        yield replace(line, level="WARNING", logger=MARKER, message=left_out(gap))
                explained = is_marker
                seen[run] = known = seq
                yield line
