"""An async-first execution tracker for TaskIQ workers.

Add `TrackerMiddleware` to a broker, and every execution is in your own SQL database. Names load on
first use: importing aiotrack loads no database driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiotrack.alerts.verbs import Alert
    from aiotrack.cancellation import CancelOutcome, raise_if_cancelled
    from aiotrack.client.faults import AccessRefused, ClientError
    from aiotrack.counts import Bucket, Counts, DurationBucket, Stats
    from aiotrack.current import current_execution, tracking
    from aiotrack.errors import (
        AioTrackError,
        DefinitionNotFound,
        DependencyFailed,
        ExecutionNotFound,
        InvalidDefinition,
        InvalidInput,
        InvalidQuery,
        InvalidResult,
        InvalidSetting,
        InvalidStatus,
        InvalidValue,
        LockError,
        LockLost,
        LockNotAcquired,
        LockReentry,
        LockUnavailable,
        MissingExtra,
        NoCurrentExecution,
        NotRepeatable,
        QueryTimeout,
        QueueFull,
        ScheduleUnavailable,
        SchemaOutdated,
        SchemaTooNew,
        SlowConsumer,
        StoreError,
        StoreUnavailable,
        TaskCancelled,
        TrackerNotFound,
        UnknownTask,
        WaitTimeout,
    )
    from aiotrack.health import Dependency, Health
    from aiotrack.locks.duplicates import prevent_duplicate_task
    from aiotrack.locks.verbs import (
        LockInfo,
        acquire_task_lock,
        is_task_locked,
        release_task_lock,
        task_lock,
    )
    from aiotrack.logs import TaskLogCollector
    from aiotrack.middleware import TrackerMiddleware
    from aiotrack.model import (
        Attempt,
        AuditEntry,
        Cause,
        Count,
        Execution,
        LogLine,
        Page,
        Queue,
        Rerun,
        TaskDefinition,
        TaskInfo,
        TaskStatus,
        Worker,
        WorkerStatus,
    )
    from aiotrack.repository.columns import Base
    from aiotrack.repository.control.fenced import fenced_update
    from aiotrack.repository.tables import AttemptRow, ExecutionRow, LogRow
    from aiotrack.schedules.source import DefinitionScheduleSource
    from aiotrack.settings import Settings
    from aiotrack.summaries import Summary, TaskSummary
    from aiotrack.tracker import Tracker
    from aiotrack.validation.retries import get_task_retry_labels

__version__ = "0.1.0"

_HOMES = {
    "aiotrack.alerts.verbs": ("Alert",),
    "aiotrack.cancellation": ("CancelOutcome", "raise_if_cancelled"),
    "aiotrack.client.faults": ("AccessRefused", "ClientError"),
    "aiotrack.counts": ("Bucket", "Counts", "DurationBucket", "Stats"),
    "aiotrack.current": ("current_execution", "tracking"),
    "aiotrack.errors": (
        "AioTrackError",
        "DependencyFailed",
        "ExecutionNotFound",
        "InvalidInput",
        "DefinitionNotFound",
        "InvalidDefinition",
        "InvalidQuery",
        "InvalidResult",
        "InvalidSetting",
        "InvalidStatus",
        "InvalidValue",
        "LockError",
        "LockLost",
        "LockNotAcquired",
        "LockReentry",
        "LockUnavailable",
        "MissingExtra",
        "NoCurrentExecution",
        "NotRepeatable",
        "QueryTimeout",
        "QueueFull",
        "ScheduleUnavailable",
        "SchemaOutdated",
        "SchemaTooNew",
        "SlowConsumer",
        "StoreError",
        "StoreUnavailable",
        "TaskCancelled",
        "TrackerNotFound",
        "UnknownTask",
        "WaitTimeout",
    ),
    "aiotrack.health": ("Dependency", "Health"),
    "aiotrack.locks.duplicates": ("prevent_duplicate_task",),
    "aiotrack.locks.verbs": (
        "LockInfo",
        "acquire_task_lock",
        "is_task_locked",
        "release_task_lock",
        "task_lock",
    ),
    "aiotrack.logs": ("TaskLogCollector",),
    "aiotrack.middleware": ("TrackerMiddleware",),
    "aiotrack.model": (
        "Attempt",
        "AuditEntry",
        "Cause",
        "Count",
        "Execution",
        "LogLine",
        "Page",
        "Queue",
        "Rerun",
        "TaskInfo",
        "TaskDefinition",
        "TaskStatus",
        "Worker",
        "WorkerStatus",
    ),
    "aiotrack.repository.control.fenced": ("fenced_update",),
    "aiotrack.repository.columns": ("Base",),
    "aiotrack.repository.tables": ("AttemptRow", "ExecutionRow", "LogRow"),
    "aiotrack.schedules.source": ("DefinitionScheduleSource",),
    "aiotrack.settings": ("Settings",),
    "aiotrack.summaries": ("Summary", "TaskSummary"),
    "aiotrack.tracker": ("Tracker",),
    "aiotrack.validation.retries": ("get_task_retry_labels",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccessRefused",
    "AioTrackError",
    "Alert",
    "Attempt",
    "AttemptRow",
    "AuditEntry",
    "Base",
    "Bucket",
    "CancelOutcome",
    "Cause",
    "ClientError",
    "Count",
    "Counts",
    "DefinitionNotFound",
    "DefinitionScheduleSource",
    "Dependency",
    "DependencyFailed",
    "DurationBucket",
    "Execution",
    "ExecutionNotFound",
    "ExecutionRow",
    "Health",
    "InvalidDefinition",
    "InvalidInput",
    "InvalidQuery",
    "InvalidResult",
    "InvalidSetting",
    "InvalidStatus",
    "InvalidValue",
    "LockError",
    "LockInfo",
    "LockLost",
    "LockNotAcquired",
    "LockReentry",
    "LockUnavailable",
    "LogLine",
    "LogRow",
    "MissingExtra",
    "NoCurrentExecution",
    "NotRepeatable",
    "Page",
    "QueryTimeout",
    "Queue",
    "QueueFull",
    "Rerun",
    "ScheduleUnavailable",
    "SchemaOutdated",
    "SchemaTooNew",
    "Settings",
    "SlowConsumer",
    "Stats",
    "StoreError",
    "StoreUnavailable",
    "Summary",
    "TaskCancelled",
    "TaskDefinition",
    "TaskInfo",
    "TaskLogCollector",
    "TaskStatus",
    "TaskSummary",
    "Tracker",
    "TrackerMiddleware",
    "TrackerNotFound",
    "UnknownTask",
    "WaitTimeout",
    "Worker",
    "WorkerStatus",
    "__version__",
    "acquire_task_lock",
    "current_execution",
    "fenced_update",
    "get_task_retry_labels",
    "is_task_locked",
    "prevent_duplicate_task",
    "raise_if_cancelled",
    "release_task_lock",
    "task_lock",
    "tracking",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'aiotrack' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
