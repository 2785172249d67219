"""The sweep that deletes old records: see docs/how-to/keep-the-database-small.md."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from aiotrack.errors import StoreUnavailable
from aiotrack.row_settings import RowSettings
from aiotrack.settings import NEVER, check_number
from aiotrack.sweep import Sweep

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.repository.control.retention import Deleted, Kind, Old

log = logging.getLogger(__name__)

DAY: Final = 86_400_000_000
"""Microseconds."""

GOAL: Final = 0.004
"""Seconds that a batch aims at. Measured on two cores, 100,000 of 1,000,000 executions with logs:
batches took 5 ms at the median, 16 to 21 at p99 beside other work, and the p99 of a recorder's
commits rose to 1.7 and 1.8 times of what it was. Some 3 ms are each batch's own, whatever it
deletes."""

PIECE: Final = 1000
"""Executions that are looked at together."""

FIRST, LEAST, MOST = 100, 10, 2000
"""Executions of a batch: the first, when each has many lines of logs, when none has any."""

FEW: Final = 200
"""Rows, of all tables, that are a millisecond's work: a batch of fewer that takes long waits for
something else, and would not be any faster if it were smaller."""

SHORTEST_PAUSE: Final = 0.02
"""Seconds between two batches; otherwise as long as the batch took: writers wait for one at most,
and the disk is theirs for most of the time. With half of it commits waited half as long again."""

AUDIT_PIECE: Final = 200
"""Rows of the audit that are deleted at once."""

TRIES: Final = 3
"""Batches in a row that the database may refuse, each half as large as the one before."""


async def _run(
    core: Core, *, retention_days: float | None = None, only_completed: bool | None = None
) -> int:
    """Delete what is old enough, and give how many executions that were.

    Args:
        core: Of the running loop.
        retention_days: For all records, whoever created them; None: what the settings say.
        only_completed: Spare what never ended; None: what the settings say.
    """
    from aiotrack.repository.control.retention import COMPLETED, NEVER_FINISHED

    if retention_days is not None:
        check_number("retention_days", retention_days)
    if only_completed is None:
        only_completed = core.tracker.options.cleanup_only_completed
    days = retention_days
    if days is None:
        days = await RowSettings(core.tracker).get("retention_days")
    cleaner = _Cleaner(core, days, is_for_all=retention_days is not None)
    done = await cleaner.clean(COMPLETED, ())
    if not only_completed:
        living = await core.repository.unfinished.living(core.tracker.clock.now())
        spared = living.workers | {core.tracker.worker_id}  # whatever it says of itself: it is here
        for kind in NEVER_FINISHED:
            done += await cleaner.clean(kind, spared)
    await _forget_deeds(core)
    return done


async def _forget_deeds(core: Core) -> None:
    """Delete old rows of the audit, in steps; they are no executions, and not counted."""
    from aiotrack.repository.control.audit import Audit

    days = core.tracker.options.audit_retention_days
    if days == NEVER:
        return
    before = core.tracker.clock.now() - int(days * DAY)
    while True:
        begun = time.monotonic()
        if await Audit(core.repository).forget(before, AUDIT_PIECE) < AUDIT_PIECE:
            return
        await asyncio.sleep(max(time.monotonic() - begun, SHORTEST_PAUSE))


class _Cleaner:
    """One clean-up.

    Args:
        core: Of the running loop.
        days: What is kept of those who say nothing else; -1 is for ever.
        is_for_all: Nobody has a say.
    """

    def __init__(self, core: Core, days: float, *, is_for_all: bool) -> None:
        self._repository = core.repository
        self._retention = core.repository.retention
        self._now = core.tracker.clock.now()
        self._days = days
        self._is_for_all = is_for_all
        self._size = FIRST
        self._told: set[int] = set()

    async def clean(self, kind: Kind, spared: Collection[str]) -> int:
        """Delete what is old of a kind, but nothing of the workers that are *spared*."""
        done = 0
        if self._days != NEVER:
            done += await self._clean_oldest(kind, spared)
        if not self._is_for_all:
            done += await self._clean_sooner(kind, spared)
        return done

    async def _clean_oldest(self, kind: Kind, spared: Collection[str]) -> int:
        """Walk from the oldest to what is young enough for most."""
        done, last = 0, None
        until = self._now - int(self._days * DAY)
        while found := await self._retention.oldest(
            kind, after=last, until=until, spared=spared, size=PIECE
        ):
            last = found[-1]
            done += await self._delete(kind, [one for one in found if self._is_old(one)])
        return done

    def _is_old(self, one: Old) -> bool:
        """Ask the creator of a record that is too old for most."""
        if self._is_for_all or one.days is None:
            return True
        return one.days != NEVER and one.moment <= self._now - int(one.days * DAY)

    async def _clean_sooner(self, kind: Kind, spared: Collection[str]) -> int:
        """Take what creators want to go before all others."""
        from aiotrack.repository.control.retention import ALWAYS

        general = ALWAYS if self._days == NEVER else self._days
        done = 0
        while found := await self._retention.sooner(
            kind, now=self._now, general=general, spared=spared, size=PIECE
        ):
            gone = await self._delete(kind, found)
            if not gone:
                break  # all of them changed just now: the next clean-up sees them again
            done += gone
        return done

    async def _delete(self, kind: Kind, found: Sequence[Old]) -> int:
        """Delete in batches of a size that follows what the last one took."""
        if not found:
            return 0
        await self._tell(found)
        done, faults, waiting = 0, 0, list(found)
        while waiting:
            batch, rest = waiting[: self._size], waiting[self._size :]
            try:
                deleted = await self._retention.delete(kind, batch)
            except StoreUnavailable:
                faults += 1
                if faults == TRIES:
                    raise
                self._size = max(LEAST, self._size // 2)
                continue
            done, waiting, faults = done + deleted.executions, rest, 0
            self._size = _fair(self._size, len(batch), deleted)
            await asyncio.sleep(max(deleted.took, SHORTEST_PAUSE))
        return done

    async def _tell(self, found: Sequence[Old]) -> None:
        """Let sums of these days be counted now and kept, before their rows go."""
        days = {one.created_at - one.created_at % DAY for one in found} - self._told
        if days and not self._told:
            await self._repository.rollups.roll_up()
        for day in sorted(days):
            await self._repository.rollups.clean(day, day + DAY)
        self._told |= days


def _fair(size: int, tried: int, deleted: Deleted) -> int:
    """Give the executions of the next batch, after one of *tried* that might have had *size*."""
    if tried < size and deleted.took <= GOAL:
        return size
    each = max(1.0, deleted.rows / max(1, deleted.executions))
    least = max(LEAST, int(FEW / each))
    return int(max(least, min(MOST, 2 * tried, tried * GOAL / max(deleted.took, 1e-4))))


CLEANUP = Sweep(
    name="cleanup",
    is_on=lambda settings: settings.cleanup_enabled,
    crontab=lambda settings: settings.cleanup_crontab,
    fallback=lambda settings: int(settings.cleanup_interval_hours * 3600),
    run=_run,
)
