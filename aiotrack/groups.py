"""The reports that are not committed: which are written together next, and which were."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from aiotrack.backlog import Key, Room, key_of
from aiotrack.culprits import PARTS, Refused, Unanswered
from aiotrack.report import Report, combine

GROUP = 500
"""Reports in one write at most; half as many after each write that fails: it may be too large."""


class Groups:
    """Reports by their run: some are being written, the others gather.

    Args:
        calm: So many may gather without being weighed.
    """

    def __init__(self, calm: int = GROUP) -> None:
        self._calm = calm
        self.buffer: dict[Key, Report] = {}
        """What gathers."""
        self.writing: dict[Key, Report] = {}
        """What is being written, or has to be written again."""
        self._most = GROUP
        self._suspects = 0

    def __len__(self) -> int:
        return len(self.buffer) + len(self.writing)

    def __contains__(self, key: Key) -> bool:
        return key in self.buffer or key in self.writing

    def hold(self, report: Report, room: Room, *, is_calm: bool) -> Key:
        """Keep a report, if there is *room* for it; while *is_calm* few are not weighed."""
        key = key_of(report)
        known = self.buffer.get(key)
        self.buffer[key] = report if known is None else combine(known, report)
        if is_calm and len(self.buffer) <= self._calm:
            room.weight = room.most  # not counted: the next time all are
        else:
            room.add(report, self.buffer, self.writing)
        return key

    def left(self) -> list[Report]:
        """Give all of them, the most important first."""
        left = [*self.writing.values(), *self.buffer.values()]
        return sorted(left, key=lambda report: report.witness, reverse=True)

    def has_other_than(self, apart: Collection[str]) -> bool:
        """Whether there are reports of other tasks than these."""
        return bool(self.writing) or any(key[0] not in apart for key in self.buffer)

    def of_task(self, task_id: str) -> list[Report]:
        """Give what gathers of a task."""
        return [report for key, report in self.buffer.items() if key[0] == task_id]

    def forget(self, *reports: Report) -> None:
        """Let reports go that are kept elsewhere."""
        for report in reports:
            key = key_of(report)
            for group in (self.buffer, self.writing):
                if group.get(key) is report:
                    del group[key]

    def take(self, count: int | None, apart: Collection[str]) -> dict[Key, Report]:
        """Let what gathers, or *count* of it, be written, but nothing of the tasks *apart*.

        Returns:
            What is left out.
        """
        left_out: dict[Key, Report] = {}
        if apart:
            left_out = {key: self.buffer.pop(key) for key in list(self.buffer) if key[0] in apart}
        if count is None:
            self.buffer, taken = {}, self.buffer
        else:
            taken = {key: self.buffer.pop(key) for key in list(islice(self.buffer, count))}
        if self.writing:
            for key in self.writing.keys() & taken.keys():
                taken[key] = combine(self.writing[key], taken[key])
            taken = {**self.writing, **taken}  # a new one: a writer that ends may hold the old
        self.writing = taken
        if left_out:
            self.buffer |= left_out
        return left_out

    def give_back(self) -> None:
        """Put what was not written before the rest: newer reports may join its own."""
        for key in self.writing.keys() & self.buffer.keys():
            self.buffer[key] = combine(self.writing[key], self.buffer[key])
        self.buffer = self.writing | self.buffer
        self.writing = {}

    def first(self) -> dict[Key, Report]:
        """Give the group to write now."""
        if len(self.writing) > self._most:
            return dict(islice(self.writing.items(), self._most))
        return self.writing

    def written(self, group: dict[Key, Report]) -> None:
        """Let a group go that was written."""
        self._suspects -= len(group)
        if self._suspects <= 0:
            self._most = min(GROUP, 2 * self._most)
        if group is self.writing:
            self.writing = {}
        else:
            for key, report in group.items():
                if self.writing.get(key) is report:
                    del self.writing[key]

    def divide(self, group: dict[Key, Report], error: Exception) -> Report | None:
        """Write less at once the next time, and not the same first where that is of no use.

        Returns:
            The one report that is not taken alone, which must wait apart.
        """
        lone = next(iter(group.values())) if len(group) == 1 else None
        is_unanswered = bool(group) and isinstance(error, Unanswered)
        self._most = max(1, len(group) // PARTS if is_unanswered else self._most // 2)
        self._suspects = len(group) if is_unanswered else 0
        if lone is not None or isinstance(error, Refused):
            for key in list(group):  # which may be all that is written
                if key in self.writing:
                    older, newer = self.writing.pop(key), self.buffer.pop(key, None)
                    self.buffer[key] = older if newer is None else combine(older, newer)
        return lone if isinstance(error, (Unanswered, Refused)) else None
