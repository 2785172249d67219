"""JSON of the API turned into what the tracker gives, and filters into query parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiotrack.alerts.verbs import Alert
from aiotrack.counts import Bucket, Counts, DurationBucket, Stats
from aiotrack.errors import InvalidQuery
from aiotrack.health import Dependency, Health
from aiotrack.locks.verbs import LockInfo
from aiotrack.model import (
    Attempt,
    AuditEntry,
    Cause,
    Execution,
    LogLine,
    Page,
    Queue,
    TaskDefinition,
    TaskInfo,
    TaskStatus,
    Worker,
    WorkerStatus,
)
from aiotrack.row_settings import Explanation

if TYPE_CHECKING:
    from aiotrack.repository.filters import Narrowing

T = TypeVar("T")

Params = list[tuple[str, str]]

_TIMES: Final = frozenset(
    {
        "created_at",
        "started_at",
        "finished_at",
        "beat_at",
        "stopped_at",
        "at",
        "since",
        "start",
        "updated_at",
        "began_at",
        "ended_at",
    }
)
_EXACT: Final = ("module", "task_name", "created_by", "worker", "error_class", "schedule_id")

_NOTHING: Final = ("worker", "\0")
"""No database holds such a text. That none of no values fits, a query string cannot say."""


# ── what is asked ───────────────────────────────────────────────────────────────────────────────
def params_of(filters: Narrowing) -> Params:
    """Give filters as query parameters; with all that the token may see.

    Raises:
        InvalidQuery: A filter that the API cannot be asked for, or none that there is.
        InvalidStatus: Nobody knows the status.
    """
    given: dict[str, Any] = {name: value for name, value in filters.items() if value is not None}
    told: Params = [("my_tasks", "false")]
    is_empty = False
    for name in (*_EXACT, "config_id", "status"):
        if name in given:
            words = _words(name, _several(given.pop(name)))
            told += [(name, word) for word in words]
            is_empty = is_empty or not words
    for name in ("since", "until"):
        if name in given:
            told.append((name, moment(name, given.pop(name))))
    if text := str(given.pop("text", "")):
        told.append(("text", text))
    for key, value in given.pop("metadata", {}).items():
        if isinstance(value, (Mapping, list, tuple)):
            fault = f"metadata[{key!r}]: over the API a key is asked for by a text or a number"
            raise InvalidQuery(fault)
        told.append((f"metadata.{key}", json.dumps(value)))
    if given:
        raise InvalidQuery(f"unknown filters: {', '.join(given)}")
    return [*(one for one in told if one[0] != _NOTHING[0]), _NOTHING] if is_empty else told


def chosen(filters: Narrowing) -> Params:
    """Give filters for what is done to all that they match; without any, all are meant.

    Raises:
        InvalidQuery: As `params_of`, or filters were given that narrow nothing.
        InvalidStatus: Nobody knows the status.
    """
    told = params_of(filters)
    if len(told) > 1:
        return told
    if any(value is not None for value in filters.values()):
        fault = "an empty text or metadata narrows nothing: leave it out if all are meant"
        raise InvalidQuery(fault)
    return [*told, ("all", "true")]


def _words(name: str, values: Iterable[Any]) -> list[str]:
    """Give the alternatives of a filter; an empty text would count for none in a query string."""
    if name == "status":
        return [TaskStatus.parse(value).value for value in values]
    return [word for word in map(str, values) if word and is_whole(word)]


def is_whole(text: str) -> bool:
    """Whether it holds no half of a character, which no URL can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _several(value: Any) -> Iterable[Any]:
    if isinstance(value, (str, int)):
        return (value,)
    return tuple(value)


def moment(name: str, value: object) -> str:
    """Give an aware time, or one that was so long ago, as the API takes it.

    Raises:
        InvalidQuery: It is neither.
    """
    if isinstance(value, timedelta):
        return (datetime.now(UTC) - value).isoformat()
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidQuery(f"{name} must be an aware datetime, or a timedelta (= ago)")
    return value.isoformat()


# ── what is answered ────────────────────────────────────────────────────────────────────────────
def execution(told: Mapping[str, Any]) -> Execution:
    """Give an execution; of a row in a list only what the row carries, and its progress."""
    made = _fields(Execution, told) | {"status": TaskStatus(told["status"])}
    if "metadata" not in told:
        progress = told.get("progress") or {}
        made["metadata"] = {
            f"progress_{name}": value for name, value in progress.items() if value is not None
        }
    return Execution(**made)


def page(told: Mapping[str, Any]) -> Page[Execution]:
    """Give a page of rows."""
    return Page([execution(one) for one in told["items"]], told["next"])


def attempt(told: Mapping[str, Any]) -> Attempt:
    """Give a run of an execution."""
    status = {"status": TaskStatus(told["status"]), "cause": Cause(told["cause"])}
    return Attempt(**_fields(Attempt, told) | status)


def lines(told: Mapping[str, Any]) -> Page[LogLine]:
    """Give a page of what was logged."""
    return Page([LogLine(**_fields(LogLine, one)) for one in told["items"]], told["next"])


def stats(told: Mapping[str, Any]) -> Stats:
    """Give counts."""
    made = _fields(Stats, told)
    made["durations"] = [
        DurationBucket(**_fields(DurationBucket, one)) for one in told["durations"]
    ]
    made["timeline"] = [Bucket(**_fields(Bucket, one)) for one in told["timeline"]]
    for name in ("by_module", "by_task_name"):
        made[name] = {key: Counts(**_fields(Counts, one)) for key, one in told[name].items()}
    return Stats(**made)


def worker(told: Mapping[str, Any]) -> Worker:
    """Give a worker; whether its tasks are async is not told."""
    made = _fields(Worker, told) | {"status": WorkerStatus(told["status"])}
    return Worker(**made | {"tasks": dict.fromkeys(told["tasks"], True)})


def queue(told: Mapping[str, Any]) -> Queue:
    """Give a queue."""
    return Queue(**_fields(Queue, told))


def task(told: Mapping[str, Any]) -> TaskInfo:
    """Give a task that can be sent."""
    return TaskInfo(**_fields(TaskInfo, told))


def definition(told: Mapping[str, Any]) -> TaskDefinition:
    """Give a task definition."""
    return TaskDefinition(**_fields(TaskDefinition, told))


def definitions(told: Mapping[str, Any]) -> Page[TaskDefinition]:
    """Give a page of task definitions."""
    return Page([definition(one) for one in told["items"]], told["next"])


def lock(told: Mapping[str, Any]) -> LockInfo:
    """Give a lock that is held."""
    return LockInfo(**_fields(LockInfo, told))


def audit(told: Mapping[str, Any]) -> Page[AuditEntry]:
    """Give a page of the audit."""
    return Page([AuditEntry(**_fields(AuditEntry, one)) for one in told["items"]], told["next"])


def alert(told: Mapping[str, Any]) -> Alert:
    """Give an alert."""
    return Alert(**_fields(Alert, told))


def explanation(told: Mapping[str, Any]) -> Explanation:
    """Give why a setting is what it is."""
    return Explanation(**_fields(Explanation, told))


def health(told: Mapping[str, Any]) -> Health:
    """Give how it stands."""
    found = {
        name: Dependency(**_fields(Dependency, one)) for name, one in told["dependencies"].items()
    }
    return Health(**_fields(Health, told) | {"dependencies": found})


def _fields(kind: type[Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a dataclass takes of an answer; times as such, what is new left out."""
    names = [one.name for one in fields(kind)]
    return {name: _value(name, told[name]) for name in names if name in told}


def _value(name: str, value: Any) -> Any:
    if name in _TIMES and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value
