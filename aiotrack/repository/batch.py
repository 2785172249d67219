"""A group of reports, sorted by what one statement can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aiotrack.errors import StoreError
from aiotrack.report import SINGLE_FACTS, Origin, Report, Witness
from aiotrack.repository.fold import is_fast


class PoisonError(StoreError):
    """The database blames a value of the group, not itself; never leaves the repository."""


def says_all(run: Origin, sent: Origin) -> bool:
    """Whether a run's report leaves nothing that its send could add."""
    return (
        run.created_at == sent.created_at
        and run.module == sent.module
        and run.metadata == sent.metadata
        and all(
            getattr(sent, name) is None or getattr(run, name) is not None for name in SINGLE_FACTS
        )
    )


@dataclass(slots=True)
class Batch:
    """Reports by their way in: a send, a worker's plain report, or a fold under a row lock.

    Each list is in the order of task_ids: 24 of 60 unsorted groups deadlocked, 0 of 60 sorted.
    No task_id stands twice in a list, which one statement could not take.
    """

    sends: Sequence[Report] = ()
    runs: Sequence[Report] = ()
    slow: dict[str, list[Report]] = field(default_factory=dict)

    @classmethod
    def of(cls, reports: Sequence[Report]) -> Batch:
        """Sort *reports*."""
        if len(reports) == 1 and is_fast(reports[0]):  # one that waits alone: no time for the rest
            is_send = reports[0].witness is Witness.SENT
            return cls(sends=reports) if is_send else cls(runs=reports)
        batch = cls()
        sends: dict[str, Report] = {}
        runs: dict[str, Report] = {}
        for report in reports:
            task_id = report.origin.task_id
            fast = sends if report.witness is Witness.SENT else runs
            if is_fast(report) and task_id not in fast:
                fast[task_id] = report
            else:
                batch.add_slow(batch.slow, report)
        for task_id, report in runs.items():
            sent = sends.get(task_id)
            if sent is not None and says_all(report.origin, sent.origin):
                del sends[task_id]  # the run says all that its send says
        batch.sends = [sends[task_id] for task_id in sorted(sends)]
        batch.runs = [runs[task_id] for task_id in sorted(runs)]
        return batch

    def ends(self) -> list[int]:
        """Give when the executions were created that one statement may end.

        Starts and sends of that way never change what ended; a fold looks for itself.
        """
        return [run.origin.created_at for run in self.runs if run.witness is Witness.ENDED]

    @staticmethod
    def add_slow(slow: dict[str, list[Report]], report: Report) -> None:
        """Put a report among those that need the row's lock."""
        slow.setdefault(report.origin.task_id, []).append(report)

    def sort_sends(self, touched: set[str], slow: dict[str, list[Report]]) -> None:
        """Find the sends that met a row that says otherwise."""
        for report in self.sends:
            if report.origin.task_id in touched:
                self.add_slow(slow, report)

    def sort_runs(self, taken: set[str], slow: dict[str, list[Report]]) -> None:
        """Find the reports that the statement refused."""
        for report in self.runs:
            if report.origin.task_id not in taken:
                self.add_slow(slow, report)
