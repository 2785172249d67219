"""What Redis keeps of a schedule: all that a tick needs, as JSON. Checked entry by entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from aiotrack import timing
from aiotrack.clock import EPOCH, to_datetime
from aiotrack.labels import CONFIG, SCHEDULE, is_tracked
from aiotrack.model import TaskDefinition
from aiotrack.timing import Timing

if TYPE_CHECKING:
    from taskiq import AsyncTaskiqDecoratedTask

ACTIVE: Final = "active"
PAUSED: Final = "paused"
INACTIVE: Final = "inactive"
DONE: Final = "done"
"""In Redis only: a moment that is over; users see `INACTIVE`."""

SECOND: Final = 1000

FRESH: Final = 60 * SECOND
"""A due time that is older than this, or than its period, was missed: nobody looked at it."""

PATIENCE: Final = 20 * SECOND
"""Short periods are not missed for that long by who was there: a machine may stand still."""

_TYPES: Final[Mapping[str, type]] = {
    "state": str,
    "kind": str,
    "schedule": dict,
    "anchor": int,
    "task": str,
    "kwargs": dict,
    "labels": dict,
}


def schedule_id(definition_id: int) -> str:
    """Name the schedule of a definition, as executions have it."""
    return f"task_{definition_id}"


def task_id(definition_id: int, due: int) -> str:
    """Name the execution of a due time: the same, whoever sends it."""
    moment = to_datetime(due * 1000) or EPOCH
    told = moment.isoformat(timespec="seconds" if due % SECOND == 0 else "milliseconds")
    return f"{schedule_id(definition_id)}:{told.replace('+00:00', 'Z')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One schedule. ``anchor`` is where the grid of an interval begins, in milliseconds."""

    state: str
    kind: str
    schedule: Mapping[str, Any]
    anchor: int
    task: str
    kwargs: Mapping[str, Any]
    labels: Mapping[str, Any]
    timing: Timing = field(compare=False)

    @classmethod
    def of(cls, definition: TaskDefinition, state: str, anchor: int) -> Entry:
        """Make the entry of a definition.

        Raises:
            ValueError: It has no schedule.
        """
        timed = timing.parse(definition.schedule_kind, definition.schedule)
        if timed is None:
            raise ValueError(f"{definition.name!r} is manual: it has no schedule")
        return cls(
            state=state,
            kind=definition.schedule_kind,
            schedule=definition.schedule,
            anchor=anchor,
            task=definition.task_type,
            kwargs=definition.parameters,
            labels=labels_of(definition),
            timing=timed,
        )

    @classmethod
    def read(cls, raw: bytes) -> Entry:
        """Read what stands in Redis, which anybody may have written.

        Raises:
            ValueError: It is none of ours.
        """
        try:
            told = json.loads(raw.decode())
        except RecursionError:
            raise ValueError("JSON that is too deep") from None
        fields: dict[str, Any] = {}
        if isinstance(told, dict):
            fields = {name: told.get(name) for name in _TYPES}
        odd = [name for name, kind in _TYPES.items() if type(fields.get(name)) is not kind]
        if odd:
            raise ValueError(f"no {odd[0]}, or of a wrong type")
        if told["state"] not in {ACTIVE, PAUSED, DONE}:
            raise ValueError("a state that there is not")
        if any(isinstance(one, list | dict | None) for one in told["labels"].values()):
            raise ValueError("labels of a wrong type")
        timed = timing.parse(told["kind"], told["schedule"])
        if timed is None:
            raise ValueError("a manual one")
        return cls(**fields, timing=timed)

    def write(self) -> str:
        """Give the JSON of it."""
        return json.dumps({name: getattr(self, name) for name in _TYPES}, separators=(",", ":"))

    def to(self, state: str) -> Entry:
        """Give it in another state."""
        return replace(self, state=state)

    def next(self, after: int) -> int | None:
        """Give the first due time later than a moment."""
        return self.timing.next(self.anchor, after)

    def patience(self, due: int, *, seen: bool) -> int:
        """Give how old a due time may become until it is missed, in milliseconds.

        Args:
            due: The due time.
            seen: Somebody was there when it came: a claim that failed, a pause of the machine.
        """
        period = self.timing.period(self.anchor, due)
        fresh = FRESH if period is None else min(FRESH, period)
        return max(fresh, PATIENCE) if seen else fresh


def labels_of_task(task: AsyncTaskiqDecoratedTask[Any, Any], time_limit: float) -> dict[str, Any]:
    """Give what a task's decorator says; without a time limit there, the default in seconds.

    What a definition sends is recorded, also of a task that otherwise is not.
    """
    told = {key: value for key, value in task.labels.items() if key != "schedule"}
    if not is_tracked(told):
        told["track"] = True
    if time_limit > 0:
        told.setdefault("timeout", time_limit)
    return told


def labels_of(definition: TaskDefinition) -> dict[str, Any]:
    """Give the labels of whatever a definition sends."""
    told: dict[str, Any] = {
        CONFIG: definition.id,
        SCHEDULE: schedule_id(definition.id),
        "priority": definition.priority,
    }
    if definition.timeout_seconds is not None:
        told["timeout"] = definition.timeout_seconds
    if definition.queue is not None:
        told |= {"queue": definition.queue, "queue_name": definition.queue}  # brokers read either
    if definition.max_retries:
        # TaskIQ's label counts attempts, the first one too
        told |= {"max_retries": definition.max_retries + 1, "retry_on_error": True}
    return told
