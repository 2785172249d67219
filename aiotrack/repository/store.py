"""The repository: what is written into one database, by group and by hand."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from aiotrack.errors import ExecutionNotFound, StoreError, StoreUnavailable
from aiotrack.report import History, Report, is_unsettled, settled
from aiotrack.repository.batch import PoisonError
from aiotrack.repository.connections import Connections
from aiotrack.repository.poison import Refusal, without_values
from aiotrack.repository.sqlite import SqliteWriter

if TYPE_CHECKING:
    from aiotrack.repository.connections import Writer
    from aiotrack.repository.control.retention import Retention
    from aiotrack.repository.control.setting_rows import SettingRows
    from aiotrack.repository.control.unfinished import Unfinished
    from aiotrack.repository.statistics.rollups import Rollups

log = logging.getLogger(__name__)

T = TypeVar("T")


class Repository(Connections):
    """Executions in one database.

    Args:
        database: A URL, or an engine that stays its owner's.
        clock: Learns the database's time at the first connection, and now and then.
        pgbouncer: A transaction pooler stands before it; else it is found out.
        keys: Metadata keys that get an index.
        on_commit: Called with the reports that are durable now; it must not raise.
    """

    _writer_apart: Writer | None = None

    async def write(self, reports: Sequence[Report]) -> list[Report]:
        """Commit *reports*, in any order and any number of times with the same outcome.

        A value that the database refuses costs only itself: its report is stored without values
        and says so; its neighbours are stored whole.

        Returns:
            Those that it refuses even without values while it takes others: they are lost.

        Raises:
            StoreUnavailable: Some may not be stored; write them again.
        """
        if not self._ready:
            await self.connect()
        return await self._write(self._writer, reports)

    async def add(self, reports: Sequence[Report]) -> None:
        """Commit *reports* for a caller who waits: all, or an error.

        Raises:
            StoreUnavailable: Some may not be stored.
            StoreError: The database refuses them.
        """
        if await self.apart(self.write(reports)):
            raise StoreError(f"the database refuses what is told of {reports[0].origin.task_id}")

    async def write_apart(
        self,
        reports: Sequence[Report],
        is_patient: bool,  # noqa: FBT001 - nothing else it could mean
    ) -> list[Report]:
        """Do as `write`, over a connection of its own: they may wait for somebody's lock.

        Args:
            reports: What to commit.
            is_patient: A statement may take as long as in `write`; else a moment only.
        """
        if not self._ready:
            await self.connect()
        if self._writer_apart is None:
            self._writer_apart = self._make_writer(_stay)
        self._writer_apart.be_patient(is_patient)
        return await self._write(self._writer_apart, reports)

    async def _write(self, writer: Writer, reports: Sequence[Report]) -> list[Report]:
        if any(map(is_unsettled, reports)):
            reports = [settled(report, self._clock.settle) for report in reports]
        refused = await self._write_some(writer, reports)
        if not refused:
            return []
        culprits = [one.report for one in refused]
        others = [report for report in reports if not any(report is one for one in culprits)]
        if others and not await self._write_some(writer, others[:1]):  # it takes them still
            refused = await self._write_some(writer, culprits)
            return self._refusals.lose(refused)
        return self._refusals.judge(refused)

    async def _write_some(self, writer: Writer, reports: Sequence[Report]) -> list[Refusal]:
        """Commit reports, in smaller groups where the database refuses a value; give what it does.

        Halves, not rows: of a group with one culprit nine groups of 500 are written, not 500 rows.
        """
        try:
            await writer.write(reports)
        except StoreUnavailable:
            raise
        except Exception as error:  # the data's fault, or ours: neither may stop its neighbours
            if len(reports) == 1:
                return await self._write_stub(writer, reports[0], error)
            half = len(reports) // 2
            refused = await self._write_some(writer, reports[:half])
            return refused + await self._write_some(writer, reports[half:])
        self._refusals.taken += len(reports)
        self._on_commit(reports)
        if time.monotonic() >= self._learn_at:
            self._learn_again()
        return []

    async def _write_stub(self, writer: Writer, report: Report, error: Exception) -> list[Refusal]:
        stub = without_values(report, str(error))
        try:
            is_whole = await writer.write_either(report, stub)
        except StoreUnavailable:
            raise
        except Exception:
            return [Refusal(report, error)]
        if not is_whole:
            what = "a value of task %s cannot be stored; its record is kept without: %s"
            log.error(what, report.origin.task_id, error)
        self._refusals.taken += 1
        self._on_commit([report if is_whole else stub])
        return []

    async def release(self) -> None:
        """Close every connection; what is needed again opens again."""
        if self._writer_apart is not None:
            await self._writer_apart.release()
        await super().release()

    async def modify(self, task_id: str, change: Callable[[History], Iterable[Report]]) -> None:
        """Lock an execution and add the reports that *change* makes from its history.

        Raises:
            ExecutionNotFound: There is no such execution.
            StoreUnavailable: The database did not take it.
        """
        if task_id not in await self.revise([task_id], change):
            raise ExecutionNotFound(task_id)

    async def revise(
        self, task_ids: Sequence[str], change: Callable[[History], Iterable[Report]]
    ) -> list[str]:
        """Lock executions and add the reports that *change* makes from the history of each.

        Args:
            task_ids: A few hundred at most: all are locked until all are written.
            change: Called with each as it stands; none of its reports is lost to a race.

        Returns:
            The task_ids of those there are.

        Raises:
            StoreUnavailable: The database did not take it.
        """
        if not self._ready:
            await self.connect()
        made: dict[str, list[Report]] = {}  # by task: a conflict asks *change* again

        def remembered(history: History) -> Iterable[Report]:
            reports = made[history.task_id] = list(change(history))
            return reports

        async def work() -> list[str]:
            known = await self._writer.revise(task_ids, remembered)
            told = [report for reports in made.values() for report in reports]
            if told:
                self._on_commit(told)
            return known

        try:
            return await self.apart(work())
        except PoisonError as error:
            raise StoreError(f"the database refuses a value: {error}") from error

    async def execute(self, statement: str, values: Sequence[Any]) -> Sequence[Any]:
        """Run one statement that writes, commit it, and give its rows.

        Args:
            statement: With ``$1``, ``$2``, ... for *values*, each once and in this order, in
                words that both databases know.
            values: What they take as it is: a time is a datetime, or microseconds for SQLite.

        Raises:
            StoreUnavailable: The database did not answer: it may have taken it.
            StoreError: It refuses a value.
        """
        if not self._ready:
            await self.connect()
        try:
            return await self.apart(self._writer.execute(statement, values))
        except PoisonError as error:
            raise StoreError(f"the database refuses a value: {error}") from error

    async def in_sqlite(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do *work* in a transaction of the one thread that writes to a SQLite file.

        Raises:
            PoisonError: SQLite blames the data.
            StoreUnavailable: The file did not take it.
        """
        assert isinstance(self._writer, SqliteWriter)
        return await self._writer.run(work)

    async def send_with(
        self, report: Report, statements: Sequence[tuple[str, Sequence[Any]]]
    ) -> None:
        """Commit a plain send of a new task, and statements with it, as a whole.

        Args:
            report: Of the send.
            statements: Each with its values, as in `execute`.

        Raises:
            StoreUnavailable: The database did not answer: it may have taken all of it.
            StoreError: It refuses a value.
        """
        if not self._ready:
            await self.connect()
        try:
            await self.apart(self._writer.send_with(report, statements))
        except PoisonError as error:
            raise StoreError(f"the database refuses a value: {error}") from error
        self._on_commit([report])

    async def claim(self, report: Report) -> bool:
        """Store a plain report of a task nobody knows; False when there is one of its task_id."""
        if not self._ready:
            await self.connect()
        is_ours = await self.apart(self._writer.claim(report))
        if is_ours:
            self._on_commit([report])
        return is_ours

    @property
    def rollups(self) -> Rollups:
        """What keeps sums of what ended."""
        from aiotrack.repository.statistics.rollups import Rollups

        return Rollups(self)

    @property
    def settings(self) -> SettingRows:
        """Settings that were made while the product runs."""
        from aiotrack.repository.control.setting_rows import SettingRows

        return SettingRows(self)

    @property
    def unfinished(self) -> Unfinished:
        """What finds executions that did not end."""
        from aiotrack.repository.control.unfinished import Unfinished

        return Unfinished(self)

    @property
    def retention(self) -> Retention:
        """What finds old executions, and deletes them."""
        from aiotrack.repository.control.retention import Retention

        return Retention(self)


async def _stay() -> None:
    """Leave the other connections as they are: who waits for a lock says nothing of the server."""
