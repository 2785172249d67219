"""What a rollup holds of one module and task name, and how sums become rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiotrack.clock import to_datetime
from aiotrack.model import OWN_MODULE
from aiotrack.repository.statistics import histogram
from aiotrack.repository.statistics.histogram import Histogram

WHOLE, MODULE, NAME = 0, 1, 2
"""Levels of the rollups: all modules but our own, one module, one task name of a module."""

"""The module of our own sweeps, which stats leave out unless asked."""

STATUSES: Final = ("success", "failure", "revoked")
"""What is rolled up; the other statuses are counted live."""

KINDS: Final = ("skipped", "timed_out", "lost")
"""What is counted besides: they are among the statuses."""

_NUMBERS: Final = (
    *STATUSES,
    *KINDS,
    "duration_count",
    "duration_sum",
    "wait_count",
    "wait_sum",
)

Row = Mapping[Any, Any]


@dataclass(slots=True)
class Sums:
    """Counts, seconds and their histograms."""

    numbers: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_NUMBERS, 0))
    durations: Histogram = field(default_factory=dict)
    waits: Histogram = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        """Add what another part holds."""
        for name in _NUMBERS:
            self.numbers[name] += other.numbers[name]
        for mine, theirs in ((self.durations, other.durations), (self.waits, other.waits)):
            for key, count in theirs.items():
                mine[key] = mine.get(key, 0) + count


Names = dict[tuple[str, str], Sums]
"""By module and task name."""


def add_counts(sums: Sums, row: Row) -> None:
    """Add a row of ``live.sums`` with its status."""
    sums.numbers[row["status"].lower()] += row["count"]
    for name in _NUMBERS[len(STATUSES) :]:
        sums.numbers[name] += row[name]


def add_histogram(sums: Sums, row: Row) -> None:
    """Add a row of ``live.packed``."""
    histogram.add(sums.waits if row["kind"] else sums.durations, row["histogram"])


def sums_of(row: Row) -> Sums:
    """Read a rollup's row."""
    sums = Sums({name: row[name] for name in _NUMBERS})
    histogram.add(sums.durations, row["durations"])
    histogram.add(sums.waits, row["waits"])
    return sums


def record(span: str, level: int, start: int, name: tuple[str, str], sums: Sums) -> dict[str, Any]:
    """Give a row."""
    module, task_name = name
    return {
        "span": span,
        "level": level,
        "start": to_datetime(start),
        "module": module,
        "task_name": task_name,
        **sums.numbers,
        "durations": histogram.write(sums.durations),
        "waits": histogram.write(sums.waits),
    }


def records(span: str, start: int, names: Mapping[tuple[str, str], Sums]) -> list[dict[str, Any]]:
    """Give the rows of a period at all levels; there is always one for the whole."""
    whole = Sums()
    modules: dict[str, Sums] = {}
    for (module, _), sums in names.items():
        if module not in modules:
            modules[module] = Sums()
        modules[module].add(sums)
    for module, sums in modules.items():
        if module != OWN_MODULE:
            whole.add(sums)
    every = [(WHOLE, ("", ""), whole)]
    every += [(MODULE, (module, ""), sums) for module, sums in sorted(modules.items())]
    every += [(NAME, key, sums) for key, sums in sorted(names.items())]
    return [record(span, level, start, name, sums) for level, name, sums in every]
