"""Counts as the API shows them: of a list, of a definition, of a stretch of time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, Field

from aiotrack.model import Counts, Stats


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
    is_approximate: bool = Field(description="Percentiles are right within 5 %.")


class StatsAnswer(SumsAnswer):
    """Counts and times of what matches, whole, by module, by task name and over time."""

    by_module: dict[str, CountsAnswer]
    by_task_name: dict[str, CountsAnswer]
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
        "timeline": [{"start": one.start, **_counts(one)} for one in stats.timeline],
    }
