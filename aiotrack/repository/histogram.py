"""Durations in logarithmic buckets: percentiles within 5 %, and sums of histograms are histograms.

Bucket ``i`` holds the seconds above g^(i-1) up to g^i; its middle 2 g^i / (g + 1) is at most 5 %
off any of them. What is shorter than a microsecond (or negative: hosts without our clock) is in
the bucket `NOTHING`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Final

ERROR: Final = 0.05
GROWTH: Final = (1 + ERROR) / (1 - ERROR)
LOG: Final = math.log(GROWTH)

SHORTEST: Final = 1e-6
"""Seconds; times are stored in whole microseconds."""

NOTHING: Final = -1000
"""The bucket of what took no time; below that of the shortest."""

Histogram = dict[str, int]
"""Buckets and counts; as JSON has them, for they are read a hundred at a time."""


def bucket(seconds: float) -> int:
    """Give the bucket of a duration; the databases' own words for it are in ``live``."""
    return NOTHING if seconds < SHORTEST else math.ceil(math.log(seconds) / LOG)


def middle(index: int) -> float:
    """Give the seconds that stand for a bucket."""
    return 0.0 if index == NOTHING else 2 * GROWTH**index / (GROWTH + 1)


def write(histogram: Histogram) -> str:
    """Give a histogram as JSON."""
    return json.dumps(histogram, separators=(",", ":"))


def add(total: Histogram, text: str) -> None:
    """Add what `write` wrote, or a database's JSON object of bucket and count."""
    for key, count in json.loads(text).items():
        total[key] = total.get(key, 0) + count


def percentiles(histogram: Histogram, shares: Sequence[float]) -> list[float | None]:
    """Give the value below which each share lies, between ranks as ``percentile_cont`` does."""
    if not histogram:
        return [None] * len(shares)
    keys = sorted(map(int, histogram))
    ends, total = [], 0
    for key in keys:
        total += histogram[str(key)]
        ends.append(total)

    def at(rank: int) -> float:
        return middle(keys[next(i for i, end in enumerate(ends) if rank < end)])

    return [_between(at, share * (total - 1)) for share in shares]


def exact(values: Sequence[float], shares: Sequence[float]) -> list[float | None]:
    """Give the exact percentiles of *values*."""
    if not values:
        return [None] * len(shares)
    ordered = sorted(values)
    return [_between(ordered.__getitem__, share * (len(ordered) - 1)) for share in shares]


def _between(at: Callable[[int], float], rank: float) -> float:
    low, high = math.floor(rank), math.ceil(rank)
    return at(low) + (at(high) - at(low)) * (rank - low)
