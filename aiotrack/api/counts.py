"""Counts as the API shows them: of a list, of a definition, of a stretch of time."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from aiotrack.counts import Counts, Stats


class CountsAnswer(BaseModel):
    """How many executions are in which status."""

    total: int
    pending: int
    started: int
    success: int
    failure: int
    retry: int
    revoked: int
    skipped: int = Field(description="Of all these: did nothing, as the same work was running.")
    timed_out: int = Field(description="Of the failures: of the error class `timeout`.")
    lost: int = Field(description="Of the failures: of the error class `lost`.")
    failure_rate: float = Field(description="failure / (success + failure), 0 to 1.")


class BucketAnswer(CountsAnswer):
    """Counts of what was created from `start` until the next bucket's."""

    start: datetime


class SumsAnswer(CountsAnswer):
    """Counts and times; times are seconds, null where nothing has one."""

    mean_duration: float | None
    p50_duration: float | None
    p95_duration: float | None
    mean_wait: float | None
    p50_wait: float | None
    p95_wait: float | None
    is_approximate: bool = Field(
        description="Percentiles, and between which bounds a duration is counted, are right "
        "within 5 %."
    )


class DurationBucketAnswer(BaseModel):
    """How many took longer than `above` seconds, and at most `up_to`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"above": 0.2, "up_to": 0.5, "count": 310}]}
    )

    above: float = Field(description="Seconds; the first one has what took no time at all, too.")
    up_to: float | None = Field(description="Seconds; null: without an end.")
    count: int


class StatsAnswer(SumsAnswer):
    """Counts and times of what matches, whole, by module, by task name and over time."""

    by_module: dict[str, CountsAnswer]
    by_task_name: dict[str, CountsAnswer]
    durations: list[DurationBucketAnswer] = Field(
        description="From below a millisecond to the longest, without gaps; bounds are 1, 2, 5, "
        "10, ... 500 ms, 1, 2, 5, 10, 20, 30 s, 1, 2, 5, 10, 20, 30 min, 1, 2, 5, 10, 24 h."
    )
    timeline: list[BucketAnswer]


_COUNTS: Final = tuple(CountsAnswer.model_fields)
_TIMES: Final = tuple(
    f"{what}_{of}" for of in ("duration", "wait") for what in ("mean", "p50", "p95")
)


def _counts(of: Counts) -> dict[str, Any]:
    return {name: getattr(of, name) for name in _COUNTS}


def shown_stats(stats: Stats) -> dict[str, Any]:
    """Give counts as the API shows them."""
    return {
        **_counts(stats),
        "by_module": {name: _counts(of) for name, of in stats.by_module.items()},
        "by_task_name": {name: _counts(of) for name, of in stats.by_task_name.items()},
        **{name: getattr(stats, name) for name in _TIMES},
        "is_approximate": stats.is_approximate,
        "durations": [asdict(one) for one in stats.durations],
        "timeline": [{"start": one.start, **_counts(one)} for one in stats.timeline],
    }
