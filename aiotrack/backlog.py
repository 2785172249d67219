"""How much memory waiting reports take, and which of them go first when there is no room."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from sys import getsizeof

from aiotrack.report import Report, Witness

log = logging.getLogger(__name__)

UNIT = 1024
"""Bytes that a report counts for at least; what a limit of so many reports stands for."""

BARE = 750
"""Bytes of a report without its texts, with its place in the buffer (measured)."""

ENTRY = 256
"""Bytes of a key of metadata with its stamp, without its texts (measured)."""

Key = tuple[str, str, int]
"""Whose report it is: the task_id, the run, and when the work was created."""


def key_of(report: Report) -> Key:
    """Give what a report is kept under; what has the same key is combined."""
    return (report.origin.task_id, report.run_id, report.origin.created_at)


def weigh(report: Report) -> int:
    """Give the bytes that a report takes in memory; measured to be right within a tenth."""
    origin = report.origin
    size = (
        BARE
        + getsizeof(origin.args)
        + getsizeof(origin.kwargs)
        + getsizeof(origin.metadata)
        + getsizeof(report.result)
        + getsizeof(report.error)
        + getsizeof(report.traceback)
    )
    if report.patch is not None:
        size += sum(
            UNIT // 4 + len(key) + getsizeof(said) for key, (_, said) in report.patch.items()
        )
    return max(UNIT, size)


class Room:
    """The room for reports in memory; drops the least important, then the oldest, when it is full.

    Sends go before starts and progress, those before what was handed back, final reports last.

    Args:
        reports: How many reports of `UNIT` bytes have room.
        counters: Counts what is dropped, by witness.
        let_go: Lets those go who wait for what is dropped, and gives the keys of theirs: they keep
            it another way or put it again, so it is not counted yet.
        spared: Reports that are never dropped, since their tasks wait for them.
    """

    def __init__(
        self,
        reports: int,
        counters: Counter[str],
        let_go: Callable[[Iterable[Key]], Iterable[Key]],
        spared: Collection[Witness] = (),
    ) -> None:
        self.most = reports * UNIT
        self.weight = self.most
        """Bytes at most; much may be gone that was counted."""
        self._counters = counters
        self._let_go = let_go
        self._dropped = [witness for witness in Witness if witness not in spared]

    def add(self, report: Report, buffer: dict[Key, Report], writing: dict[Key, Report]) -> None:
        """Count a report that was put into *buffer*; drop a twentieth when it is too much."""
        self.weight += weigh(report)
        if self.weight <= self.most:
            return
        self.weight = sum(map(weigh, chain(buffer.values(), writing.values())))
        if self.weight > self.most:
            before, count = self._counters["dropped"], len(buffer)
            self.weight -= self._drop(buffer, max(self.most // 20, self.weight - self.most))
            if before == 0 < self._counters["dropped"]:  # not for those that their hooks keep
                log.error("memory is full of %d reports: reports are lost", count)

    def _drop(self, buffer: dict[Key, Report], size: int) -> int:
        """Drop reports of so many bytes, if there are; give the bytes that are free now."""
        left = size
        dropped: dict[Key, Witness] = {}
        for witness in self._dropped:
            found: list[Key] = []
            for key, report in buffer.items():
                if left <= 0:
                    break
                if report.witness is witness:
                    found.append(key)
                    left -= weigh(report)
            for key in found:
                del buffer[key]
            dropped |= dict.fromkeys(found, witness)
            self._count(witness, len(found))
        self.miss(dropped)
        return size - left

    def miss(self, dropped: Mapping[Key, Witness]) -> None:
        """Let those go who wait for what was dropped."""
        for key in self._let_go(dropped):
            self._count(dropped[key], -1)

    def lose(self, reports: Iterable[Report]) -> None:
        """Count reports that nothing will ever take."""
        for report in reports:
            self._count(report.witness, 1)

    def _count(self, witness: Witness, count: int) -> None:
        self._counters["dropped"] += count
        self._counters[f"dropped_{witness.name.lower()}"] += count
