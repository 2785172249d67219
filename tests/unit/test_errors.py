"""Errors travel: pickled, copied, and through TaskIQ's result backends they stay what they are."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime

import pytest
from taskiq import TaskiqResult

from aiotrack import errors
from aiotrack.errors import AioTrackError
from aiotrack.model import Execution, TaskStatus

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SENT = Execution(
    id=1, task_id="t", task_name="m:f", module="m", status=TaskStatus.PENDING, created_at=NOON
)
EXAMPLES: list[AioTrackError] = [
    errors.ExecutionNotFound("t"),
    errors.ExecutionNotFound(7),
    errors.TrackerNotFound(),
    errors.TrackerNotFound(("Tracker('a')", "Tracker('b')")),
    errors.NoCurrentExecution("checkpoint()"),
    errors.TaskCancelled("t"),
    errors.InvalidResult("no int"),
    errors.DefinitionNotFound("nightly"),
    errors.ScheduleUnavailable(ConnectionError()),
    errors.NotRepeatable("t", {"kwargs.password": "redacted"}),
    errors.NotRepeatable("t", {"task_name": "a sweep"}),
    errors.UnknownTask("m:f", brokers=0),
    errors.UnknownTask("m:f", brokers=1),
    errors.InvalidQuery("limit must be 1 to 500"),
    errors.InvalidStatus("perhaps", ("done",)),
    errors.InvalidValue("a time without an offset"),
    errors.InvalidInput(iter(["a: missing", "b: unknown"]), "m:f"),
    errors.InvalidDefinition(["cron: is none"]),
    errors.InvalidSetting("logs", "is not 'on'"),
    errors.MissingExtra("httpx", "client", "the client"),
    errors.QueueFull("gpu", 5, 5),
    errors.DependencyFailed("a", "which failed"),
    errors.WaitTimeout(SENT, 1.5),
    errors.SlowConsumer(),
    errors.LockNotAcquired("import", {"task_id": "t", "worker": None}),
    errors.LockReentry("import", {"task_id": "t"}),
    errors.LockLost("import", "its lease is over"),
    errors.LockUnavailable("import", ConnectionError("refused")),
    errors.StoreError("refused"),
    errors.StoreUnavailable("refused"),
    errors.QueryTimeout(2.0),
    errors.SchemaOutdated("0001", "0002"),
    errors.SchemaTooNew("0002", "0001"),
]
NAMES = [f"{type(one).__name__}-{number}" for number, one in enumerate(EXAMPLES)]


def test_every_error_has_an_example() -> None:
    """A new error is one of them."""
    every = {one for one in vars(errors).values() if isinstance(one, type)}
    tree = {one for one in every if issubclass(one, AioTrackError)}

    assert tree - {type(one) for one in EXAMPLES} == {AioTrackError, errors.LockError}


@pytest.mark.parametrize("error", EXAMPLES, ids=NAMES)
def test_an_error_is_pickled_and_copied_whole(error: AioTrackError) -> None:
    """Type, words and data are there again: a process pool hands errors on like that."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(error) is type(other)
        assert str(error) == str(other)
        assert vars(error) == vars(other)
        assert repr(error) == repr(other)


@pytest.mark.parametrize("error", EXAMPLES, ids=NAMES)
def test_a_result_backend_gives_the_error_back(error: AioTrackError) -> None:
    """Who waits for a task that could not get a lock can catch LockNotAcquired."""
    result = TaskiqResult(is_err=True, return_value=None, execution_time=0.0, error=error)
    told = json.loads(json.dumps(result.model_dump(mode="json")))
    other = TaskiqResult.model_validate(told).error

    if isinstance(error, errors.WaitTimeout):  # an execution is no JSON
        assert "m:f" in str(other)
        return
    assert type(error) is type(other)
    assert str(error) == str(other)
