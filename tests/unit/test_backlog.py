"""What a report is thought to take in memory, and what it takes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from enum import Enum
from sys import getsizeof

import pytest

from aiotrack.backlog import UNIT, weigh
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness


def report(number: int) -> Report:
    """Give a report that shares no text with others but names."""
    origin = Origin(
        task_id=f"{number:032x}",
        task_name="shop.rows",
        module="shop",
        created_at=1_700_000_000_000_000 + number,
        args=f"[{number}]",
        kwargs=f'{{"note": "order {number}"}}',
    )
    one = Report(origin, Witness.ENDED, TaskStatus.SUCCESS, run_id=f"{number:032x}")
    one.started_at, one.finished_at = origin.created_at + 1, origin.created_at + 2
    one.duration, one.result = number / 3, f'"{number}"'
    return one


def with_progress(number: int) -> Report:
    """Give a report with metadata."""
    one = report(number)
    stamp = one.origin.created_at
    one.patch = {
        name: ((1, stamp + 1, stamp + 2), f'"{name} {number}"') for name in ("a", "b", "c")
    }
    return one


def with_long_texts(number: int) -> Report:
    """Give a report with a result, a traceback and arguments that are long."""
    one = report(number)
    one.result, one.traceback = f"{number}" * 3000, f"é{number}" * 1000
    one.origin.args = f"[{number}]" * 1000
    return one


def size_of(thing: object) -> int:
    """Give the bytes of all that belongs to a thing, each object once."""
    seen: dict[int, object] = {}
    left = [thing]
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, (type, Enum)):
            seen[id(one)] = one
            left += gc.get_referents(one)
    return sum(map(getsizeof, seen.values()))


@pytest.mark.parametrize("make", [report, with_progress, with_long_texts])
def test_the_estimate_is_right_within_a_quarter(make: Callable[[int], Report]) -> None:
    """It never tells less than nine tenths: the bound of memory leans on it."""
    buffer = {}
    for number in range(1000, 2000):
        one = make(number)
        buffer[(one.origin.task_id, one.run_id, one.origin.created_at)] = one
    true, told = size_of(buffer), sum(map(weigh, buffer.values()))

    assert told >= 1000 * UNIT
    assert 0.9 <= told / true <= 1.25
