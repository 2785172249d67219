"""The list that TaskIQ's scheduler walks through every second, changed in place.

TaskIQ sends a ``time`` schedule once for each schedule_id, so that every entry here has a name of
its own: the first of a definition ``task_<id>``, later ones with a number behind it. `Listing.take`
gives an entry its true name back before TaskIQ makes a message of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from taskiq import ScheduledTask

from aiotrack.body import find_task
from aiotrack.schedules.entry import Entry, labels_of_task, schedule_id, task_id
from aiotrack.schedules.timetable import Late, Line

if TYPE_CHECKING:
    from taskiq import AsyncBroker


@dataclass(frozen=True, slots=True)
class Due:
    """A due time (milliseconds) in the list; ``late`` when its sender did not send it in time."""

    line: Line
    entry: Entry
    due: int
    late: Late | None = None


class Listed(ScheduledTask):
    """TaskIQ's entry of a `Due`; pydantic need not look into that."""

    due: Any


class Listing:
    """Due times as TaskIQ's entries.

    Args:
        brokers: Those that know the tasks, whose labels a message bears, too.
        time_limit: Seconds that a run may take where neither definition nor task says it; 0: any.
    """

    def __init__(self, brokers: Iterable[AsyncBroker], time_limit: float) -> None:
        self.tasks: list[ScheduledTask] = []
        """One object for ever: TaskIQ keeps it, and sees what becomes of it."""
        self._brokers = brokers
        self._time_limit = time_limit
        self._places: dict[str, int] = {}
        self._of: dict[int, list[Listed]] = {}
        self._known: set[int] = set()
        self._numbers = itertools.count(1)

    def show(self, definition_id: int, dues: Sequence[tuple[Due, int]]) -> None:
        """List these due times of a definition and no others.

        What is in the list already stays: TaskIQ may be about to send it.

        Args:
            definition_id: Whose they are.
            dues: Each with its moment by this host's clock (milliseconds).
        """
        wanted = {_key(due) for due, _ in dues}
        for task in list(self._of.get(definition_id, ())):
            if task.due.late is None and _key(task.due) not in wanted:
                self._remove(task)
        shown = {_key(task.due) for task in self._of.get(definition_id, ())}
        for due, at in dues:
            if _key(due) not in shown:
                self.add(due, at)

    def add(self, due: Due, at: int) -> None:
        """List a due time.

        Raises:
            ValueError: The moment is in no calendar.
        """
        definition_id, entry = due.line.id, due.entry
        name = schedule_id(definition_id)
        if definition_id in self._known:
            name = f"{name}:{next(self._numbers)}"
        try:
            task = Listed(
                task_name=entry.task,
                labels=self._labels(entry.task) | dict(entry.labels),
                args=[],
                kwargs=dict(entry.kwargs),
                task_id=task_id(definition_id, due.due),
                schedule_id=name,
                time=datetime.fromtimestamp(at / 1000, UTC),
                due=due,
            )
        except (OverflowError, OSError) as error:
            raise ValueError(f"a moment that no calendar has: {error}") from error
        self._known.add(definition_id)
        self._places[name] = len(self.tasks)
        self._of.setdefault(definition_id, []).append(task)
        self.tasks.append(task)

    def take(self, task: ScheduledTask) -> Due | None:
        """Take an entry out, and give it its true name; None when it is not in the list."""
        if not isinstance(task, Listed) or task.schedule_id not in self._places:
            return None
        self._remove(task)
        due: Due = task.due
        task.schedule_id = schedule_id(due.line.id)
        return due

    def drop(self, definition_id: int) -> None:
        """Take out all that there is of a definition."""
        for task in list(self._of.get(definition_id, ())):
            self._remove(task)

    def has(self, late: Late) -> bool:
        """Tell whether a late due time is in the list."""
        return any(
            one.due.late is not None and one.due.due == late.due
            for one in self._of.get(late.id, ())
        )

    def _remove(self, task: Listed) -> None:
        place = self._places.pop(task.schedule_id)
        last = self.tasks.pop()
        if place < len(self.tasks):  # the last one takes its place: nothing else moves
            self.tasks[place] = last
            self._places[last.schedule_id] = place
        mine = self._of[task.due.line.id]
        mine.remove(task)
        if not mine:
            del self._of[task.due.line.id]

    def _labels(self, name: str) -> dict[str, Any]:
        """Give what the task's decorator says, as far as this process knows it."""
        found = find_task(self._brokers, name)
        return {} if found is None else labels_of_task(found[1], self._time_limit)


def _key(due: Due) -> tuple[int, int]:
    return due.line.revision, due.due
