"""The names that users rely on: changing this list is changing the contract."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import aiotrack

PUBLIC = {
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
    "Dependency",
    "DependencyFailed",
    "DurationBucket",
    "Health",
    "Execution",
    "ExecutionNotFound",
    "ExecutionRow",
    "InvalidInput",
    "DefinitionNotFound",
    "DefinitionScheduleSource",
    "InvalidDefinition",
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
    "TaskInfo",
    "TaskDefinition",
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
}

ERRORS = Path(aiotrack.__file__).with_name("errors.py")


def test_the_public_names_are_pinned() -> None:
    """aiotrack.__all__ is exactly the list that we promise."""

    assert sorted(PUBLIC) == sorted(aiotrack.__all__)


@pytest.mark.parametrize("name", sorted(aiotrack.__all__))
def test_a_public_name_resolves(name: str) -> None:
    """Every promised name exists and says what it is."""
    thing = getattr(aiotrack, name)

    assert thing is not None
    assert isinstance(thing, str) or inspect.getdoc(thing)


def test_dir_shows_the_public_names() -> None:
    """Completion in a shell offers every public name, before any was used."""

    assert set(aiotrack.__all__) <= set(dir(aiotrack))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing error gets Python's own answer."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = aiotrack.no_such_name


def test_every_error_is_public() -> None:
    """What aiotrack raises can be caught by a name imported from aiotrack."""
    tree = ast.parse(ERRORS.read_text(encoding="utf-8"))
    errors = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}

    assert errors <= set(aiotrack.__all__)
