"""What is wrong with a definition: everything, not only the first thing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from aiotrack import catalog, timing
from aiotrack.body import find_task
from aiotrack.errors import InvalidValue
from aiotrack.labels import MOST

if TYPE_CHECKING:
    from taskiq import AsyncBroker

LONGEST_NAME: Final = 200
HIGHEST: Final = 10
"""The highest priority; the lowest is 1."""

DEFAULTS: Final[Mapping[str, Any]] = {
    "description": "",
    "schedule_kind": timing.MANUAL,
    "schedule": {},
    "parameters": {},
    "max_retries": 0,
    "timeout_seconds": None,
    "priority": 5,
    "queue": None,
}
REQUIRED: Final = ("name", "task_type")


def faults(fields: Mapping[str, Any], brokers: Iterable[AsyncBroker]) -> list[str]:
    """Tell all that is wrong.

    Args:
        fields: All that is said of a definition.
        brokers: Those that know which tasks there are; without any, the task is not checked.
    """
    told = [f"{name} is missing" for name in REQUIRED if name not in fields]
    known = (*REQUIRED, *DEFAULTS)
    told += [
        f"{name!r} is no field of a definition; they are: {', '.join(known)}"
        for name in fields
        if name not in known
    ]
    for name, check in _CHECKS.items():
        if name in fields:
            told += [f"{name} {fault}" for fault in check(fields[name])]
    told += timing.faults(fields.get("schedule_kind", timing.MANUAL), fields.get("schedule", {}))
    return told + _task_faults(fields, list(brokers))


def _task_faults(fields: Mapping[str, Any], brokers: list[AsyncBroker]) -> list[str]:
    name, parameters = fields.get("task_type"), fields.get("parameters", {})
    if not brokers or not isinstance(name, str) or _name_faults(name):
        return []
    found = find_task(brokers, name)
    if found is None:
        return [f"task_type: no broker here knows a task {name!r}"]
    broker, task = found
    refused = _refused_queue(broker, fields.get("queue"))
    if _parameter_faults(parameters):
        return refused
    told = catalog.faults(task.original_func, (), parameters)
    return [*refused, *(f"parameters: {fault}" for fault in told)]


def _refused_queue(broker: AsyncBroker, queue: object) -> list[str]:
    """Ask a broker that can tell: else each send would fail, and nobody would see it before."""
    check = getattr(broker, "check_queue", None)
    if check is None or queue is None or _queue_faults(queue):
        return []
    try:
        check(queue)
    except InvalidValue as error:
        return [f"queue: {error}"]
    return []


def _name_faults(value: object, most: int | None = None) -> list[str]:
    if not isinstance(value, str) or not value.strip():
        return ["must be text, and not empty"]
    if most is not None and len(value) > most:
        return [f"has {len(value)} characters; {most} are the most"]
    return _text_faults(value)


def _text_faults(value: object) -> list[str]:
    if not isinstance(value, str):
        return [f"must be text, not {type(value).__name__}"]
    try:
        value.encode()
    except UnicodeEncodeError:
        return ["holds half a character, which no database takes"]
    return ["holds a NUL character, which no database takes"] if "\0" in value else []


def _parameter_faults(value: object) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"must be a mapping of keyword arguments, not {type(value).__name__}"]
    odd = [key for key in value if not isinstance(key, str)]
    if odd:
        return [f"must have text as keys, not {odd[0]!r}"]
    try:
        told = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        told.encode()
        is_same = json.loads(told) == value
    except (TypeError, ValueError, RecursionError) as error:
        return [f"must be JSON: {error}"]
    return [] if is_same else ["must be JSON: text as keys, lists and no tuples"]


def _whole_faults(low: int, high: int) -> Callable[[object], list[str]]:
    def check(value: object) -> list[str]:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return []
        return [f"must be a whole number from {low} to {high}, not {str(value)[:40]!r}"]

    return check


def _timeout_faults(value: object) -> list[str]:
    if value is None:
        return []
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 < cast("float", value) <= timing.LONGEST:  # nan is in no range
        return []
    return [f"must be seconds, more than 0, or None, not {str(value)[:40]!r}"]


def _queue_faults(value: object) -> list[str]:
    return [] if value is None else _name_faults(value)


_CHECKS: Final[Mapping[str, Callable[[Any], list[str]]]] = {
    "name": lambda value: _name_faults(value, LONGEST_NAME),
    "description": _text_faults,
    "task_type": _name_faults,
    "parameters": _parameter_faults,
    "max_retries": _whole_faults(0, MOST),
    "timeout_seconds": _timeout_faults,
    "priority": _whole_faults(1, HIGHEST),
    "queue": _queue_faults,
}
