"""What people read: statuses, executions, attempts, pages, counts. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any, Final, Generic, TypeVar

from aiotrack.errors import InvalidStatus

T = TypeVar("T")


class TaskStatus(StrEnum):
    """The six words that an execution can be in."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    RETRY = "RETRY"
    REVOKED = "REVOKED"

    @property
    def is_final(self) -> bool:
        """Whether nothing more is expected: SUCCESS, FAILURE or REVOKED."""
        return self in FINAL

    @classmethod
    def parse(cls, word: object, mapping: Mapping[Any, object] | None = None) -> TaskStatus:
        """Read a status in our words or in those of other tools, in any case.

        Args:
            word: ``created``, ``queued``, ``in_progress``, ``completed``, ``timed_out``, ...; or
                a member of an enum whose value it is.
            mapping: The caller's own words (any case) or numbers to any word we know; asked first.

        Raises:
            InvalidStatus: Nobody knows the word.
        """
        if isinstance(word, cls):
            return word
        text = _plain(word)
        own = {_plain(key): value for key, value in mapping.items()} if mapping else {}
        found = _WORDS.get(_plain(own.get(text, text)))
        if found is None:
            raise InvalidStatus(word, (*sorted(own), *_WORDS))
        return found


FINAL = frozenset({TaskStatus.SUCCESS, TaskStatus.FAILURE, TaskStatus.REVOKED})

_VOCABULARY = {
    TaskStatus.PENDING: "pending created queued scheduled assigned",
    TaskStatus.STARTED: "started running in_progress processing",
    TaskStatus.SUCCESS: "success succeeded completed done",
    TaskStatus.FAILURE: "failure failed error timeout timed_out",
    TaskStatus.RETRY: "retry retrying",
    TaskStatus.REVOKED: "revoked cancelled canceled aborted",
}
_WORDS = {word: status for status, words in _VOCABULARY.items() for word in words.split()}


def _plain(word: object) -> str:
    """Give a word as it is looked up; a number of another tool is one, too."""
    value = word.value if isinstance(word, Enum) else word
    is_word = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value).strip().lower() if is_word else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One execution of a task, as it is known now; equal when all that is known is.

    Times are aware and UTC, on the database's clock. ``duration`` and ``wait`` are seconds.
    ``attempt`` counts from 1; in RETRY it is the attempt that is waited for, and ``error`` is the
    last attempt's. ``time_limit`` is what a run may take, in seconds. ``presumed`` says that the
    verdict is a sweep's and yields to the worker's word.
    """

    id: int
    task_id: str
    task_name: str
    module: str
    status: TaskStatus
    attempt: int = 1
    queue: str | None = None
    priority: int | None = None
    worker: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration: float | None = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    error_class: str | None = None
    traceback: str | None = None
    created_by: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    schedule_id: str | None = None
    config_id: int | None = None
    parent_task_id: str | None = None
    rerun_of: str | None = None
    presumed: bool = False
    runs: int = 0
    duplicates: int = 0
    cancel_reason: str | None = None
    cancelled_by: str | None = None
    trace_id: str | None = None
    time_limit: float | None = None

    def __hash__(self) -> int:
        return hash(self.task_id)

    @property
    def wait(self) -> float | None:
        """Seconds between created and started; None before the start."""
        if self.started_at is None:
            return None
        return max(0.0, (self.started_at - self.created_at).total_seconds())

    @property
    def is_completed(self) -> bool:
        """Whether the status is final."""
        return self.status.is_final

    @property
    def is_running(self) -> bool:
        """Whether a worker runs it now."""
        return self.status is TaskStatus.STARTED

    @property
    def is_success(self) -> bool:
        """Whether it ended well."""
        return self.status is TaskStatus.SUCCESS


class Cause(StrEnum):
    """Why a run began."""

    FIRST = "first"
    RETRY = "retry"
    REDELIVERY = "redelivery"
    REQUEUE = "requeue"
    RERUN = "rerun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of an execution, with its own error. Times and units as in `Execution`."""

    attempt: int
    cause: Cause
    worker: str | None = None
    status: TaskStatus
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration: float | None = None
    error: str | None = None
    error_type: str | None = None
    error_class: str | None = None
    traceback: str | None = None


class WorkerStatus(StrEnum):
    """How a worker process is, by its beats."""

    ALIVE = "alive"
    LOST = "lost"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that runs tasks, as it told of itself last; times are the database's, aware, UTC.

    ``status`` is ``lost`` when nothing was heard for three beats and nobody said farewell.
    ``tasks`` maps each task that it knows to whether its body is async. ``concurrency`` is how many
    it runs at once (None: unlimited, or not found out) and ``running`` how many it does. ``memory``
    is bytes in RAM, ``cpu`` the share of one core since the beat before; None where the system does
    not tell. ``versions`` has ``python``, ``taskiq`` and ``aiotrack``.
    """

    id: str
    host: str
    pid: int
    status: WorkerStatus
    started_at: datetime
    beat_at: datetime
    stopped_at: datetime | None = None
    queues: list[str] = field(default_factory=list)
    tasks: Mapping[str, bool] = field(default_factory=dict)
    concurrency: int | None = None
    running: int = 0
    memory: int | None = None
    cpu: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether it beats."""
        return self.status is WorkerStatus.ALIVE

    @property
    def lost(self) -> bool:
        """Whether it fell silent without a farewell."""
        return self.status is WorkerStatus.LOST

    @property
    def load(self) -> float | None:
        """Share of its concurrency that is in use, 0.0 to 1.0; None where that is not known."""
        return self.running / self.concurrency if self.concurrency else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Where a broker's messages wait.

    ``depth`` counts what waits and is with no worker; ``oldest_age`` is the seconds that the oldest
    of it has waited, None where nothing does or the broker cannot tell; ``consumers`` are those
    that are known to listen (None: not known); ``dead_letters`` were set aside after too many
    deliveries.
    """

    name: str
    depth: int
    oldest_age: float | None = None
    consumers: int | None = None
    dead_letters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """A task that can be sent. ``parameters`` is a JSON schema of its keyword arguments."""

    name: str
    queue: str | None
    labels: Mapping[str, Any]
    doc: str | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefinition:
    """A task that is sent by its definition: by hand, or by a schedule. It knows no state.

    ``task_type`` is the task's name, ``parameters`` are its keyword arguments. ``schedule_kind`` is
    ``manual``, ``cron``, ``interval`` or ``once``, and ``schedule`` what that needs:
    ``{"cron": "*/5 * * * *", "tz": "Europe/Berlin"}`` (UTC without ``tz``), ``{"seconds": 300}``,
    ``{"at": "2027-01-01T00:00:00Z"}``. ``timeout_seconds`` is what a run may take (None: the
    task's own limit), ``max_retries`` how often it is tried again (0: as the task's own labels
    say), ``priority`` 1 to 10, the highest first. Ids are never used again.
    """

    id: int
    name: str
    description: str = ""
    task_type: str
    schedule_kind: str = "manual"
    schedule: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    max_retries: int = 0
    timeout_seconds: float | None = None
    priority: int = 5
    queue: str | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def is_scheduled(self) -> bool:
        """Whether a schedule may send it: it is not ``manual``."""
        return self.schedule_kind != "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what to what, and why.

    ``at`` is aware and UTC, on the database's clock; ``actor`` is None where nobody said who asks.
    ``action`` is a word such as ``schedule.pause``, ``target`` one such as ``definition:7``.
    ``before`` and ``after`` are what changed, bounded and without secrets.
    """

    at: datetime
    actor: str | None = None
    action: str
    target: str
    reason: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


LASTING: Final = frozenset(
    f"schedule.{verb}" for verb in ("start", "stop", "pause", "resume", "retime")
)
"""Actions of the audit that say what a schedule is from then on."""


DEPENDS_ON: Final = "depends_on"
"""Key of an execution's metadata: what it waits for, or waited for."""

OWN_MODULE: Final = "aiotrack"
"""The module of the sweeps' own records, which `Tracker.stats` leaves out unless asked."""


def is_own(task_name: str) -> bool:
    """Tell whether a task is a sweep: those are sent by schedules, and may delete."""
    return task_name.startswith(f"{OWN_MODULE}:")


MARKER = "aiotrack"
"""The logger of the line that stands for lines that were left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that an attempt logged.

    ``at`` is aware and UTC, on the database's clock; ``level`` a name such as ``"INFO"``. Where
    lines were left out one of the logger ``"aiotrack"`` stands in their place, and says how many.
    """

    at: datetime
    level: str
    logger: str
    message: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """What became of an execution that was to be rerun.

    ``task_id`` is the old one's; ``execution`` the new one, or ``error`` says why there is none.
    """

    task_id: str
    execution: Execution | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows in order, ``for row in page``; and the cursor of what follows (None at the end)."""

    items: list[T]
    next: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are, as people are told: ``str()`` gives ``9,999``, or ``10,000+``."""

    value: int
    is_exact: bool = True

    def __str__(self) -> str:
        return f"{self.value:,}" if self.is_exact else f"{self.value:,}+"
