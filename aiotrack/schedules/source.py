"""Feeds TaskIQ's scheduler with the due times of active definitions.

Every definition is listed with its next due time. When TaskIQ finds it due it asks `pre_send`,
which takes that due time from all other schedulers by one script, and lists the next one. What was
taken, and not said to be sent within ten seconds, is sent by anybody, under the same task_id.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from taskiq import ScheduledTask, ScheduleSource
from taskiq.exceptions import ScheduledTaskCancelledError

from aiotrack.errors import AioTrackError, ExecutionNotFound, InvalidValue, ScheduleUnavailable
from aiotrack.schedules.board import Board, host_now
from aiotrack.schedules.entry import DONE, FRESH, task_id
from aiotrack.schedules.feature import NO_REDIS, new_table
from aiotrack.schedules.listing import Due
from aiotrack.schedules.rebuild import rebuild
from aiotrack.schedules.timetable import Claim, LostError, Timetable

if TYPE_CHECKING:
    from aiotrack.records import Records

log = logging.getLogger(__name__)

LOOK: Final = 0.5
"""Seconds between two looks: with TaskIQ's own second a change takes effect within two."""

AHEAD: Final = 1000
"""Milliseconds that a host's clock may be ahead of Redis': so long a due time is waited for."""


class DefinitionScheduleSource(ScheduleSource):
    """What TaskIQ's scheduler sends by task definitions: ``TaskiqScheduler(broker, [source])``.

    Any number of schedulers may run: a due time is sent once, as the execution
    ``task_<id>:<time>``. A change takes effect within two seconds, whatever ``--update-interval``
    says. While Redis is away nothing is sent; when it has lost its data the schedules are made
    anew from the audit.

    A due time that was taken by a scheduler that died is sent by another one ten seconds later,
    unless its record is there. Who is killed between the broker's answer and the record leaves a
    run that nobody knows of: that one is sent twice, under one task_id. So is what a broker needs
    longer than ten seconds for.

    Args:
        tracker: With Redis. Its database is asked only after a fault.
        catch_up: What becomes of due times that nobody saw for a minute, or for one period where
            that is shorter (but never less than 20 s while this scheduler ran): ``skip`` drops
            them, ``one`` sends one run for all of them.

    Raises:
        InvalidValue: A *catch_up* that is neither.
        ScheduleUnavailable: The tracker has no Redis.
    """

    def __init__(self, tracker: Records, catch_up: Literal["skip", "one"] = "skip") -> None:
        if catch_up not in {"skip", "one"}:
            raise InvalidValue(f"catch_up must be 'skip' or 'one', not {catch_up!r}")
        if tracker.redis is None:
            raise ScheduleUnavailable(NO_REDIS)
        self._tracker = tracker
        self._sends_one = catch_up == "one"
        self._board = Board(tracker.brokers, tracker.options.task_timeout_seconds)
        self._table_here: Timetable | None = None
        self._looking: asyncio.Task[None] | None = None
        self._one_look = asyncio.Lock()
        self._is_deaf = False

    # ── what TaskIQ calls ───────────────────────────────────────────────────────────────────────
    async def startup(self) -> None:
        """Begin to look for changes."""
        await self._look()
        if self._looking is None:
            work = self._keep_looking()
            self._looking = asyncio.get_running_loop().create_task(
                work, context=contextvars.Context()
            )

    async def shutdown(self) -> None:
        """Stop, and disconnect."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.wait({looking})
        table, self._table_here = self._table_here, None
        if table is not None:
            await table.close()

    async def get_schedules(self) -> list[ScheduledTask]:
        """Give what is due next: always the same list, which changes by itself.

        When Redis does not answer it stays as it was.
        """
        await self._look()
        return self._board.listing.tasks

    async def pre_send(self, task: ScheduledTask) -> None:
        """Take a due time from all other schedulers.

        Raises:
            ScheduledTaskCancelledError: It is not to be sent, or not by us.
        """
        due = self._board.listing.take(task)
        if due is None:
            raise ScheduledTaskCancelledError
        try:
            is_ours = await (self._claim(due) if due.late is None else self._take_over(due))
        except asyncio.CancelledError:
            self._board.stale.add(due.line.id)  # whose it is now, Redis knows
            raise
        except Exception as error:
            self._board.stale.add(due.line.id)
            self._complain(error)
            raise ScheduledTaskCancelledError from error
        if not is_ours:
            raise ScheduledTaskCancelledError

    async def post_send(self, task: ScheduledTask) -> None:
        """Say that it was sent."""
        due = getattr(task, "due", None)
        if isinstance(due, Due):
            try:
                await self._table().sent(due.line.id, due.due)
            except ScheduleUnavailable as error:  # its record says it, to whoever would repeat it
                self._complain(error)

    # ── a due time ──────────────────────────────────────────────────────────────────────────────
    async def _claim(self, due: Due) -> bool:
        """Take what is due, or drop what was missed; list what is next, whoever has it."""
        board, entry = self._board, due.entry
        now, following = board.now(), entry.next(due.due)
        is_missed = board.is_missed(entry, due.due, now)
        if is_missed:  # those that are not missed yet are sent by themselves
            following = entry.next(max(due.due, now - FRESH))
            while following is not None and board.is_missed(entry, following, now):
                following = entry.next(following)
        is_dropped = is_missed and not self._sends_one
        found = await self._ask_for(due, following, is_dropped=is_dropped)
        if found is None:
            return False
        if found.line is not None:
            board.take(found.line)
        elif found.is_ours and following is not None:
            board.take(replace(due.line, due=following))
        else:
            board.stale.add(due.line.id)
        if found.is_ours and is_dropped:
            log.info("definition %d: what was due was missed, and is skipped", due.line.id)
        return found.is_ours and not is_dropped

    async def _ask_for(self, due: Due, following: int | None, *, is_dropped: bool) -> Claim | None:
        """Ask for a due time, a moment later when it is not due yet; None when all was lost."""
        done = due.entry.to(DONE) if following is None else None
        table = self._table()
        try:
            while True:
                found = await table.claim(
                    due.line, due.due, following, is_dropped=is_dropped, entry=done
                )
                if found.wait is None or found.wait > AHEAD:
                    return found
                await asyncio.sleep(found.wait / 1000)
        except LostError:
            self._board.forget_version()
            return None

    async def _take_over(self, due: Due) -> bool:
        """Send what somebody else did not, unless he did."""
        assert due.late is not None
        try:
            await self._tracker.get(task_id(due.line.id, due.due))
        except ExecutionNotFound:
            is_ours = await self._table().again(due.late)
            if is_ours:
                log.warning(
                    "definition %d: a run that another scheduler did not send is sent now",
                    due.line.id,
                )
            return is_ours
        await self._table().sent(due.line.id, due.due)
        return False

    # ── looking ─────────────────────────────────────────────────────────────────────────────────
    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self._look()

    async def _look(self) -> None:
        """Take over what changed in Redis; when it does not answer all stays as it was."""
        async with self._one_look:
            try:
                await self._read()
            except Exception as error:
                self._complain(error)
            else:
                if self._is_deaf:
                    log.info("the schedules are read again")
                self._is_deaf = False

    async def _read(self) -> None:
        board, table = self._board, self._table()
        asked = host_now()
        try:
            reading = await table.read(board.making, board.version, board.stale)
        except LostError:
            await rebuild(self._tracker.core(), table)
            board.forget_version()
            asked = host_now()
            reading = await table.read()
        for late in board.follow(reading, asked):
            await table.sent(late.id, late.due)  # too late, or wanted by nobody any more

    def _table(self) -> Timetable:
        if self._table_here is None:
            self._table_here = new_table(self._tracker)
        return self._table_here

    def _complain(self, error: Exception) -> None:
        """Tell once that Redis, or the database where it is needed, does not answer."""
        if not isinstance(error, AioTrackError | LostError):
            log.error("the schedules cannot be used as they are", exc_info=error)
        elif not self._is_deaf:
            self._is_deaf = True
            log.warning("no schedule is sent for now: %s", error)
