"""Verbs that keep records true and few: `cleanup`, `mark_timed_out`; ``settings`` beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiotrack import sweeps
from aiotrack.records import Records
from aiotrack.row_settings import RowSettings

if TYPE_CHECKING:
    import builtins

    from taskiq import ScheduledTask


class Sweeping(Records):
    """What schedules do otherwise, by hand; see `Tracker`."""

    @property
    def settings(self) -> RowSettings:
        """Settings in rows of the database: ``set``, ``get``, ``all``, ``unset``, ``explain``."""
        return RowSettings(self)

    async def cleanup(
        self, *, retention_days: float | None = None, only_completed: bool | None = None
    ) -> int:
        """Delete old records, with their attempts, logs and checkpoints; in short steps.

        The age counts from the end, of what never ended from its creation. Each record is kept as
        long as its creator's setting says.

        Args:
            retention_days: For all records, whatever anybody's settings say; 0 is at once, -1
                never.
            only_completed: False also deletes what never ended, but nothing whose worker is alive;
                default: the setting ``cleanup_only_completed``.

        Returns:
            How many executions went.

        Raises:
            InvalidSetting: *retention_days* is out of range.
            StoreUnavailable: The database did not answer; what went until then is gone.
        """
        core = await self._flushed()
        await core.repository.connect()  # it knows what time it is
        done: int = await sweeps.CLEANUP.run(
            core, retention_days=retention_days, only_completed=only_completed
        )
        return done

    async def mark_timed_out(self, *, timeout_minutes: float | None = None) -> int:
        """Presume that what runs, or waits for a retry, for too long has failed.

        The result backends of this process' brokers are asked first. A run has its own limit (label
        ``timeout``), else its creator's setting, else that for all; the default of ten minutes is
        not for runs that a living worker works on. What nobody began is ended only with the setting
        ``pending_timeout_minutes``. The verdict yields to the worker's own word.

        Args:
            timeout_minutes: For all that runs or waits for a retry, whatever its own limit or
                anybody's settings say; 0 is at once, -1 never.

        Returns:
            How many executions were presumed to have failed.

        Raises:
            InvalidSetting: *timeout_minutes* is out of range.
            StoreUnavailable: The database did not answer; what was done until then stays.
        """
        core = await self._flushed()
        await core.repository.connect()  # it knows what time it is
        done: int = await sweeps.MARK_TIMED_OUT.run(core, timeout_minutes=timeout_minutes)
        return done

    def sweep_schedules(self) -> builtins.list[ScheduledTask]:
        """Give TaskIQ's entries of the sweeps that are on, for sources other than labels.

        ``LabelScheduleSource`` finds them by itself: with both, each due time still runs once.
        """
        return sweeps.schedules(self)
