"""What was sent and what its records say now: the rows that the screen and the summary show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from aiotrack import Execution, LogLine, TaskStatus

if TYPE_CHECKING:
    from aiotrack.demo.kinds import Kind


@dataclass(slots=True, kw_only=True)
class Row:
    """One task: its kind, and its record once there is one."""

    kind: Kind
    execution: Execution | None = None

    @property
    def is_over(self) -> bool:
        """Whether its record says that nothing more will come."""
        return self.execution is not None and self.execution.is_completed


class Board:
    """The rows in the order of their kinds; what a task sends stands below it."""

    def __init__(self) -> None:
        self._sent: dict[str, Row] = {}
        self._children: dict[str, Row] = {}
        self._done: set[str] = set()
        self.heard: list[tuple[str, LogLine]] = []
        """What was logged while we listened, with the task's name."""
        self.began_at = datetime.now(UTC) - timedelta(seconds=5)  # the database's clock may differ
        self.sweeps: list[Execution] = []
        """What the scheduler sent on the tracker's own account."""
        self.scheduled: list[Execution] = []
        """What it sent by a definition."""
        self.states: list[str] = []
        """What the schedule of that was made, one after the other."""

    @property
    def rows(self) -> list[Row]:
        """Every row, children below their parents."""
        found = []
        for task_id, row in self._sent.items():
            found.append(row)
            if task_id in self._children:
                found.append(self._children[task_id])
        return found

    @property
    def is_over(self) -> bool:
        """Whether every record is final."""
        return bool(self._sent) and all(row.is_over for row in self.rows)

    @property
    def has_begun(self) -> bool:
        """Whether the worker has started a task."""
        return any(row.execution is not None and row.execution.runs for row in self.rows)

    def sent(self, task_id: str, kind: Kind) -> None:
        """Expect the record of a task that was sent."""
        self._sent[task_id] = Row(kind=kind)
        if kind.child is not None:
            self._children[task_id] = Row(kind=kind.child)

    def to_do(self) -> Iterator[Coroutine[Any, Any, object]]:
        """Yield what is to be done with those that run now, once each."""
        for task_id, row in self._sent.items():
            is_running = row.execution is not None and row.execution.is_running
            if row.kind.then is not None and is_running and task_id not in self._done:
                self._done.add(task_id)
                yield row.kind.then(task_id)

    def to_hear(self) -> list[str]:
        """Give the task_ids of those whose logs are shown as they come."""
        return [
            task_id for task_id, row in self._sent.items() if row.kind.is_heard and not row.is_over
        ]

    def update(self, executions: Iterable[Execution]) -> None:
        """Put records into the rows that expect them."""
        for execution in executions:
            row = self._sent.get(execution.task_id)
            if row is None and execution.parent_task_id is not None:
                row = self._children.get(execution.parent_task_id)
            if row is not None:
                row.execution = execution

    def counts(self) -> Mapping[TaskStatus, int]:
        """Count the records in each status."""
        return Counter(row.execution.status for row in self.rows if row.execution is not None)
