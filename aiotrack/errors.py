"""What can go wrong, as one tree.

::

    AioTrackError
    ├── ExecutionNotFound (LookupError)      no record has this id
    ├── TrackerNotFound (LookupError)        no tracker is running here, or several are
    ├── NoCurrentExecution (LookupError)     no execution runs in this context
    ├── InvalidQuery (ValueError)            a filter, cursor, limit or order that cannot be served
    ├── InvalidStatus (ValueError)           a status word that nobody knows
    ├── InvalidValue (ValueError)            an argument outside its range, a time without an offset
    │   └── InvalidInput                     what a task was to be sent with, every fault of it
    │       └── InvalidDefinition            what is wrong with a task definition, all of it
    ├── InvalidSetting (ValueError)          a setting or URL that cannot be used
    ├── MissingExtra (ImportError)           an optional package is not installed
    ├── TaskCancelled                        the result of an execution that somebody cancelled
    ├── InvalidResult (ValueError)           what a task returned is not what it promised
    ├── DefinitionNotFound (LookupError)     no task definition has this id or name
    ├── ScheduleUnavailable                  Redis does not answer: nobody knows what is scheduled
    ├── NotRepeatable (ValueError)           arguments are not stored as they were, or a sweep
    ├── UnknownTask (LookupError)            no broker here knows a task of this name
    ├── QueueFull                            too many messages wait: nothing more is sent for now
    ├── DependencyFailed                     what an execution waited for did not succeed
    ├── WaitTimeout (TimeoutError)           an execution did not end in time
    ├── SlowConsumer                         who follows many executions does not read
    ├── LockError
    │   ├── LockNotAcquired                  others hold the lock
    │   │   └── LockReentry                  this very task holds it
    │   ├── LockLost                         it was ours, and is not any more
    │   └── LockUnavailable                  Redis does not answer: nobody knows who holds it
    └── StoreError
        ├── StoreUnavailable                 the database did not answer, or refused
        ├── QueryTimeout (TimeoutError)      no index serves the filter and two seconds were over
        ├── SchemaOutdated                   the database is older than this release
        └── SchemaTooNew                     the database is newer than this release

The data are attributes, the message is made from them and says what to do next. ``code`` is the
kebab-case name that a machine can read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiotrack.model import Execution


_ASK_REDIS = "is Redis running, and is redis= or AIOTRACK_REDIS_URL right?"


class AioTrackError(Exception):
    """Root of everything that aiotrack raises on purpose."""

    code = "aiotrack-error"
    _text: str | None = None

    def _tell(self, text: str, *data: object) -> None:
        """Keep the message; ``args`` make the error again, in pickles and in result backends."""
        self._text, self.args = text, data

    def __str__(self) -> str:
        return super().__str__() if self._text is None else self._text


def _shown(key: str | int, word: str) -> str:
    if isinstance(key, int):
        return f"id {key}" if key.bit_length() < 64 else "an id of that size"
    return f"{word} {key!r}"


class ExecutionNotFound(AioTrackError, LookupError):
    """No execution has this ``task_id`` (text) or ``id`` (int)."""

    code = "execution-not-found"

    def __init__(self, key: str | int) -> None:
        self.key = key
        self._tell(f"no execution with {_shown(key, 'task_id')}", key)


class TrackerNotFound(AioTrackError, LookupError):
    """No tracker is running in this process, or several are and none was named."""

    code = "tracker-not-found"

    def __init__(self, candidates: tuple[str, ...] = ()) -> None:
        self.candidates = candidates
        text = "no tracker is running here: start one with 'async with Tracker(...)'"
        if candidates:
            text = f"several trackers are running ({', '.join(candidates)}): name the one you mean"
        self._tell(text, candidates)


class NoCurrentExecution(AioTrackError, LookupError):
    """No execution runs in this context, or it is over."""

    code = "no-current-execution"

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self._tell(
            f"{wanted} outside a running execution: call it from a task of a tracked broker, "
            "or inside 'async with tracker.track(...)'",
            wanted,
        )


class TaskCancelled(AioTrackError):
    """What stands in the result of an execution that was cancelled: it has no other one."""

    code = "task-cancelled"

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self._tell(f"the execution {task_id} was cancelled", task_id)


class InvalidResult(AioTrackError, ValueError):
    """What a task returned does not fit its return annotation, or its validator refused it."""

    code = "invalid-result"


class DefinitionNotFound(AioTrackError, LookupError):
    """No task definition has this id (int) or name (text)."""

    code = "definition-not-found"

    def __init__(self, key: str | int) -> None:
        self.key = key
        self._tell(f"no task definition with {_shown(key, 'name')}", key)


class ScheduleUnavailable(AioTrackError):
    """Redis does not answer, or there is none: nobody knows what is scheduled."""

    code = "schedule-unavailable"

    def __init__(self, reason: object) -> None:
        told = str(reason) or type(reason).__name__
        self._tell(f"schedules cannot be read or changed: {told}; {_ASK_REDIS}", told)


class NotRepeatable(AioTrackError, ValueError):
    """An execution cannot be sent again: an argument is not stored as it was, or it is a sweep's.

    ``fields`` maps what is missing to the reason, e.g. ``{"kwargs.password": "redacted"}``.
    """

    code = "not-repeatable"

    def __init__(self, task_id: str, fields: Mapping[str, str]) -> None:
        self.task_id = task_id
        self.fields = dict(fields)
        told = ", ".join(f"{name} ({reason})" for name, reason in fields.items())
        text = f"{task_id!r} cannot be run again with the arguments that it had: {told}; "
        text += "send the task with arguments of your own"
        if "task_name" in fields:  # no arguments would help
            text = f"{task_id!r} cannot be run again: {told}"
        self._tell(text, task_id, self.fields)


class UnknownTask(AioTrackError, LookupError):
    """No broker of this tracker, in this process, knows a task of this name."""

    code = "unknown-task"

    def __init__(self, task_name: str, brokers: int) -> None:
        self.task_name = task_name
        without = "no broker here has this tracker's TrackerMiddleware"
        hint = "import the module that defines it" if brokers else without
        text = f"no broker of this tracker knows the task {task_name!r}: {hint}"
        self._tell(text, task_name, brokers)


class InvalidQuery(AioTrackError, ValueError):
    """A filter, cursor, limit or order that cannot be served."""

    code = "invalid-query"


class InvalidStatus(AioTrackError, ValueError):
    """A status word that is in no vocabulary we know."""

    code = "invalid-status"

    def __init__(self, word: object, known: tuple[str, ...]) -> None:
        self.word = word
        text = f"unknown status {word!r}: use one of {', '.join(known)}, or pass a mapping"
        self._tell(text, word, known)


class InvalidValue(AioTrackError, ValueError):
    """An argument outside its range, or a time without an offset."""

    code = "invalid-value"


class InvalidInput(InvalidValue):
    """What a task was to be sent with cannot be used; ``faults`` lists all that is wrong."""

    code = "invalid-input"

    def __init__(self, faults: Iterable[str], task_name: str | None = None) -> None:
        self.faults, self.task_name = list(faults), task_name
        told = "; ".join(self.faults)
        told = told if task_name is None else f"{task_name} was not sent: {told}"
        self._tell(told, self.faults, task_name)


class InvalidDefinition(InvalidInput):
    """A task definition cannot be stored, or scheduled; ``faults`` lists all that is wrong."""

    code = "invalid-definition"


class InvalidSetting(AioTrackError, ValueError):
    """A setting that cannot be used; ``key`` is its name."""

    code = "invalid-setting"

    def __init__(self, key: str, fault: str) -> None:
        self.key = key
        self.fault = fault
        self._tell(f"{key}: {fault}", key, fault)


class MissingExtra(AioTrackError, ImportError):
    """An optional package is needed and not installed."""

    code = "missing-extra"

    def __init__(self, package: str, extra: str, feature: str) -> None:
        self.package, self.extra, self.feature = package, extra, feature
        super().__init__(name=package)
        text = f"{feature} needs the package '{package}': type  pip install 'aiotrack[{extra}]'"
        self._tell(text, package, extra, feature)


class QueueFull(AioTrackError):
    """As many messages wait in a queue as the setting ``max_queue`` allows: nothing was sent."""

    code = "queue-full"

    def __init__(self, queue: str, depth: int, limit: int) -> None:
        self.queue, self.depth, self.limit = queue, depth, limit
        self._tell(
            f"{depth:,} messages wait in the queue {queue!r}, and max_queue is {limit:,}: "
            "try again later, or start more workers",
            *(queue, depth, limit),
        )


class DependencyFailed(AioTrackError):
    """An execution was not sent: ``needs`` is what it waited for, ``reason`` what became of that.

    It stands in the record of what waited, and in its result.
    """

    code = "dependency-failed"

    def __init__(self, needs: str, reason: str) -> None:
        self.needs = needs
        self.reason = reason
        self._tell(f"it was never sent: it waited for {needs} {reason}", needs, reason)


class WaitTimeout(AioTrackError, TimeoutError):
    """An execution did not end in time; ``execution`` is what was known last."""

    code = "wait-timeout"

    def __init__(self, execution: Execution, seconds: float) -> None:
        self.execution = execution
        self.seconds = seconds
        name, task_id, status = execution.task_name, execution.task_id, execution.status
        self._tell(f"{name} {task_id!r} is {status} after {seconds:g} s", execution, seconds)


class SlowConsumer(AioTrackError):
    """Who follows many executions did not read for long; begin anew, or narrow the filter."""

    code = "slow-consumer"

    def __init__(self) -> None:
        self._tell(
            "more than 10,000 executions changed since the last one was read: "
            "read faster, narrow the filter, or begin anew from list()"
        )


class LockError(AioTrackError):
    """A lock could not be had, or kept; ``name`` says which."""

    code = "lock-error"
    name: str


class LockNotAcquired(LockError):
    """Others hold the lock; ``holder`` is what is known of them (task_id, worker, ...)."""

    code = "lock-not-acquired"

    def __init__(self, name: str, holder: Mapping[str, Any]) -> None:
        self.name = name
        self.holder = holder
        told = ", ".join(f"{key} {value}" for key, value in holder.items() if value is not None)
        self._tell(f"lock {name!r} is held{f' by {told}' if told else ''}", name, holder)


class LockReentry(LockNotAcquired):
    """The task that asks for the lock holds it already: it would wait for itself."""

    code = "lock-reentry"

    def __init__(self, name: str, holder: Mapping[str, Any]) -> None:
        super().__init__(name, holder)
        self._text = f"lock {name!r} is held by this very task: it would wait for itself"


class LockLost(LockError):
    """The lock was ours, and is not any more: what was done since may have been done twice."""

    code = "lock-lost"

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        self._tell(f"lock {name!r} was lost: {reason}", name, reason)


class LockUnavailable(LockError):
    """Redis does not answer or refuses, so that nobody knows who holds the lock."""

    code = "lock-unavailable"

    def __init__(self, name: str, reason: object) -> None:
        self.name = name
        told = str(reason) or type(reason).__name__
        self._tell(f"lock {name!r} cannot be taken or freed: {told}; {_ASK_REDIS}", name, told)


class StoreError(AioTrackError):
    """The database cannot do what was asked."""

    code = "store-error"


class StoreUnavailable(StoreError):
    """The database did not answer, or refused; the cause is chained."""

    code = "store-unavailable"


class QueryTimeout(StoreError, TimeoutError):
    """No index serves the filter, and the time for it is over."""

    code = "query-timeout"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._tell(
            f"no answer in {seconds:g} s: narrow the filter (since=, module=, task_name=, "
            "an indexed metadata key)",
            seconds,
        )


class SchemaOutdated(StoreError):
    """The database holds an older schema than this release needs."""

    code = "schema-outdated"

    def __init__(self, found: str, needed: str) -> None:
        self.found = found
        self.needed = needed
        self._tell(
            f"the aiotrack schema is at {found}, this release needs {needed}: "
            "type  aiotrack db upgrade  or call  await tracker.upgrade()",
            *(found, needed),
        )


class SchemaTooNew(StoreError):
    """The database holds a newer schema than this release knows."""

    code = "schema-too-new"

    def __init__(self, found: str, known: str) -> None:
        self.found = found
        self.known = known
        self._tell(
            f"the aiotrack schema is at {found}, this release knows {known}: "
            "type  pip install -U aiotrack",
            *(found, known),
        )
