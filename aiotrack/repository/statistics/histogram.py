"""Durations in logarithmic buckets: percentiles within 5 %, and sums of histograms are histograms.

Bucket ``i`` holds the seconds above g^(i-1) up to g^i; its middle 2 g^i / (g + 1) is at most 5 %
off any of them. What is shorter than a microsecond (or negative: hosts without our clock) is in
the bucket `NOTHING`.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

ERROR: Final = 0.05
GROWTH: Final = (1 + ERROR) / (1 - ERROR)
LOG: Final = math.log(GROWTH)

SHORTEST: Final = 1e-6
"""Seconds; times are stored in whole microseconds."""

NOTHING: Final = -1000
"""The bucket of what took no time; below that of the shortest."""

SECOND, MINUTE, HOUR = 1.0, 60.0, 3600.0
BOUNDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(SECOND * count for count in (1, 2, 5, 10, 20, 30)),
    *(MINUTE * count for count in (1, 2, 5, 10, 20, 30)),
    *(HOUR * count for count in (1, 2, 5, 10, 24)),
)
"""Seconds between which people are shown how many there are: each about twice the one before."""

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


def spread(histogram: Histogram) -> list[int]:
    """Count between the `BOUNDS`, and beyond them: a bucket is where its middle is."""
    found = [0] * (len(BOUNDS) + 1)
    for key, count in histogram.items():
        found[bisect_left(BOUNDS, middle(int(key)))] += count
    return found


def exact_spread(values: Sequence[float]) -> list[int]:
    """Count *values* between the `BOUNDS`, and beyond them; one on a bound is below it."""
    ordered = sorted(values)
    ends = [*(bisect_right(ordered, bound) for bound in BOUNDS), len(ordered)]
    return [end - begin for begin, end in pairwise((0, *ends))]


def _between(at: Callable[[int], float], rank: float) -> float:
    low, high = math.floor(rank), math.ceil(rank)
    return at(low) + (at(high) - at(low)) * (rank - low)
