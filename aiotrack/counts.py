"""What `Tracker.stats` gives: counts by status, over time, and of durations. Stdlib only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many executions are in which status.

    ``skipped`` are those of them that did nothing, because the same work was already running.
    ``timed_out`` and ``lost`` are the failures of the error classes ``timeout`` and ``lost``.
    """

    total: int = 0
    pending: int = 0
    started: int = 0
    success: int = 0
    failure: int = 0
    retry: int = 0
    revoked: int = 0
    skipped: int = 0
    timed_out: int = 0
    lost: int = 0

    @property
    def failure_rate(self) -> float:
        """Share of failures among those that succeeded or failed, 0.0 to 1.0."""
        ended = self.success + self.failure
        return self.failure / ended if ended else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket(Counts):
    """Counts of what was created from ``start`` (aware, UTC) until the next bucket's."""

    start: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationBucket:
    """How many took longer than ``above`` seconds, and at most ``up_to``; None: without an end.

    The first one begins at 0 and holds what took no time at all, too.
    """

    above: float
    up_to: float | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(Counts):
    """Counts of what a filter matches, whole, by module, by task name and over time.

    Durations and waits are seconds, of the executions that have one, None when none has;
    ``timeline`` has no gaps. ``durations`` counts all durations, from below a millisecond to the
    longest, without gaps: up to 1, 2, 5, 10, ... 500 ms, 1, 2, 5, 10, 20, 30 s, 1, 2, 5, 10, 20,
    30 min, 1, 2, 5, 10, 24 h, and more; it is empty when there are none.

    ``is_approximate`` says that percentiles and ``durations`` were read from logarithmic buckets: a
    percentile is at most 5 % above or below the exact one, and what took within 5 % of a bound of
    ``durations`` may be counted on its other side. All else is exact.
    """

    by_module: Mapping[str, Counts] = field(default_factory=dict)
    by_task_name: Mapping[str, Counts] = field(default_factory=dict)
    mean_duration: float | None = None
    p50_duration: float | None = None
    p95_duration: float | None = None
    mean_wait: float | None = None
    p50_wait: float | None = None
    p95_wait: float | None = None
    is_approximate: bool = False
    durations: list[DurationBucket] = field(default_factory=list)
    timeline: list[Bucket] = field(default_factory=list)
