"""What a caller wants of a send, and everything that is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiotrack import catalog
from aiotrack.encode import encode_task_id
from aiotrack.errors import InvalidInput
from aiotrack.labels import PRIORITIES

if TYPE_CHECKING:
    from taskiq import AsyncTaskiqDecoratedTask

UNTOLD: Final = 1
"""The priority of what says none; a task's own label comes before it."""

MOST_NEEDS: Final = 1000
"""Executions that one may wait for: a guess. Who has more lets them wait for each other in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One send, checked. ``needs`` maps task_ids as they are stored to what the caller said."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)


def check(
    task: AsyncTaskiqDecoratedTask[Any, Any],
    args: Any,
    kwargs: Any,
    *,
    priority: Any,
    timeout: Any,
    depends_on: Any,
    default_timeout: float,
) -> Wish:
    """Read what `Tracker.submit` was given; *default_timeout* is seconds, 0 for none.

    Raises:
        InvalidInput: With every fault.
    """
    faults: list[str] = []
    given = _arguments(task, args, kwargs, faults)
    labels: dict[str, Any] = {}
    number = _priority(priority, faults)
    if number != UNTOLD or "priority" not in task.labels:
        labels["priority"] = number
    if timeout is not None:
        labels["timeout"] = _seconds(timeout, faults)
    elif "timeout" not in task.labels and default_timeout > 0:
        labels["timeout"] = default_timeout
    needs = _needs(depends_on, faults)
    if faults:
        raise InvalidInput(faults, task.task_name)
    return Wish(args=given[0], kwargs=given[1], labels=labels, needs=needs)


def _arguments(
    task: AsyncTaskiqDecoratedTask[Any, Any], args: Any, kwargs: Any, faults: list[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not isinstance(args, (list, tuple)):
        faults.append(f"args is a list or tuple, not {type(args).__name__}")
        args = ()
    if kwargs is not None and not (
        isinstance(kwargs, Mapping) and all(isinstance(key, str) for key in kwargs)
    ):
        faults.append("kwargs is a mapping of names to values")
        kwargs = None
    if not faults:
        faults += catalog.faults(task.original_func, args, kwargs)
    return tuple(args), dict(kwargs or {})


def _priority(value: Any, faults: list[str]) -> int:
    if value is None:
        return UNTOLD
    if isinstance(value, str):
        number = PRIORITIES.get(value.strip().lower())
    else:
        is_number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10
        number = int(value) if is_number else None
    if number is None:
        words = ", ".join(PRIORITIES)
        faults.append(f"priority is a whole number from 1 to 10, or one of {words}; not {value!r}")
    return UNTOLD if number is None else number


def _seconds(value: Any, faults: list[str]) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 < value < math.inf):
        faults.append(f"timeout is a number of seconds above 0, not {value!r}")
        return 0.0
    return float(value)


def _needs(given: Any, faults: list[str]) -> dict[str, str]:
    if isinstance(given, (str, int)) or hasattr(given, "task_id"):
        given = (given,)
    if not isinstance(given, Iterable):
        faults.append(f"depends_on lists task_ids or executions, not {given!r}")
        return {}
    found: dict[str, str] = {}
    for one in given:
        told = getattr(one, "task_id", one)
        if isinstance(told, bool) or not isinstance(told, (str, int)):
            faults.append(f"depends_on lists task_ids or executions, not {one!r}")
        else:
            found[encode_task_id(told)] = str(told)
    if len(found) > MOST_NEEDS:
        faults.append(f"depends_on lists at most {MOST_NEEDS} executions, not {len(found)}")
    return found
