"""The run in this context, and what `tracking` hands on to everything sent inside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiotrack.errors import InvalidValue
from aiotrack.model import TaskStatus
from aiotrack.report import Witness

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

    from taskiq import AsyncTaskiqDecoratedTask

    from aiotrack.core import Core
    from aiotrack.logs.collector import Collecting
    from aiotrack.logs.scroll import Scroll
    from aiotrack.model import Execution
    from aiotrack.progress import Progress
    from aiotrack.report import Micros, Origin, Report
    from aiotrack.tracker import Tracker


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody's wish to end an execution."""

    reason: str | None = None
    by: str | None = None


@dataclass(slots=True, eq=False, repr=False)
class Run:
    """One delivery of a task in this process, from ``pre_execute`` to ``post_execute``."""

    tracker: Tracker
    origin: Origin
    message_id: str
    run_id: str
    attempt: int
    requeues: int
    worker: str
    started_at: Micros
    name: str = ""
    """The task's, as its broker knows it."""
    task: AsyncTaskiqDecoratedTask[Any, Any] | None = None
    """The task, if its broker knows it."""
    core: Core | None = None
    """What belongs to its loop."""
    labels: dict[str, Any] = field(default_factory=dict)
    """The message's: what is set here before the body's exception leaves it, TaskIQ's retry
    middlewares read."""
    begun: float = field(default_factory=time.perf_counter)
    token: Token[Run | None] | None = None
    twin: Run | None = None
    """The run of another tracker for the same delivery, where a broker has several."""
    watch: tuple[asyncio.Task[Any], Callable[[asyncio.Task[Any]], None]] | None = None
    exception: BaseException | None = None
    frame: FrameType | None = None
    """TaskIQ's, in which it failed."""
    is_entered: bool = False
    """Whether its body was called: what it calls itself are plain functions."""
    body: asyncio.Task[Any] | None = None
    """What awaits its async body, as long as it does: only then may it be cancelled."""
    cancel: Cancel | None = None
    """Who wants it to end."""
    is_interrupted: bool = False
    """Whether its body was cancelled by that wish."""
    error_class: str | None = None
    """Of its failure, where a feature knows it better than the error alone tells."""
    check: Callable[[Any], None] | None = None
    """What its return value has to pass; raises `InvalidResult`."""
    skipped: object = None
    """What `prevent_duplicate_task` answered instead of its body."""
    resent: bool = False
    """A message with this task_id was sent while it ran: a retry, whatever the result says."""
    is_set_aside: bool = False
    """Another delivery of the same work lives: its result is the one that counts."""
    is_over: bool = False
    is_told: bool = False
    """Whether a report of it was made."""
    progress: Progress | None = None
    home: asyncio.AbstractEventLoop | None = None
    """The event loop of a tracked block; that of a broker's task is known by ``watch``."""
    logs: Scroll | None = None
    """What it logged and is not written yet."""
    told: Report | None = None
    """An end of it that `Tracker.update` told while it ran: returning does not undo that."""
    result: Any = None
    """What a tracked block or function gave; tasks give theirs to TaskIQ."""

    def __repr__(self) -> str:
        named = f"task_id={self.task_id!r}, task_name={self.task_name!r}"
        return f"Run({named}, attempt={self.attempt}, cancelled={self.cancelled})"

    def started(self) -> Report:
        """Report that it runs."""
        return self.tracker.report_of(self, Witness.STARTED, TaskStatus.STARTED)

    def interrupt(self, cancel: Cancel) -> bool:
        """Keep it from running, or cancel its body; in its loop, from another task.

        Returns:
            Whether its body gets a `CancelledError` now.
        """
        self.cancel = self.cancel or cancel
        if self.body is None or self.is_interrupted:
            return False
        self.is_interrupted = self.body.cancel()
        return self.is_interrupted

    def elapsed(self) -> float:
        """Give the seconds since it began."""
        return time.perf_counter() - self.begun

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to end it: what `raise_if_cancelled` looks at."""
        return any(one.cancel is not None for one in self.with_twins())

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it runs in, or that runs its thread; None in plain sync code."""
        watch = self.watch
        return self.home if watch is None else watch[0].get_loop()

    def pair(self) -> None:
        """Meet the run of another tracker for the same delivery.

        In-place brokers nest the next attempt of a task in the one that failed: that is another.
        """
        mine, one = (self.message_id, self.attempt, self.requeues), self.outer
        if one is not None and mine == (one.message_id, one.attempt, one.requeues):
            self.twin = one

    def with_twins(self) -> Iterator[Run]:
        """Give this run, and those of other trackers for the same delivery."""
        one: Run | None = self
        while one is not None:
            yield one
            one = one.twin

    @property
    def is_nested(self) -> bool:
        """Whether another run waits for it in this context: in-place brokers nest them."""
        return self.outer is not None

    @property
    def outer(self) -> Run | None:
        """The run that waits for it in this context."""
        old = None if self.token is None else self.token.old_value
        return old if isinstance(old, Run) else None

    @property
    def task_id(self) -> str:
        """The id of the task that runs."""
        return self.message_id

    @property
    def task_name(self) -> str:
        """The name of the task that runs."""
        return self.origin.task_name


CURRENT: ContextVar[Run | None] = ContextVar("aiotrack_run", default=None)


def current_execution() -> Run | None:
    """Give the execution that runs in this context: its ``task_id`` and ``attempt``, or None."""
    return CURRENT.get()


def run_here(tracker: object) -> Run | None:
    """Give the run that lives in this context; where several trackers record it, *tracker*'s."""
    here = CURRENT.get()
    if here is None or here.is_over:
        return None
    run: Run | None = here
    while run is not None and run.message_id == here.message_id:
        if run.tracker is tracker:
            return run
        run = run.outer
    return here


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What messages sent in this context take along."""

    created_by: str | None = None
    module: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    said_in: Run | None = None
    """The run in which the parent was named, if any."""
    durability: str | None = None

    def parent_for(self, run: Run | None) -> str | None:
        """Give the parent named here, if *run*, this context's, did not begin after that."""
        return self.parent if run is None or run is self.said_in else None


INHERITED: ContextVar[Inherited | None] = ContextVar("aiotrack_tracking", default=None)

COLLECTING: ContextVar[Collecting | None] = ContextVar("aiotrack_collecting", default=None)
"""The innermost `TaskLogCollector` of this context."""


@dataclass(frozen=True, slots=True)
class _Aside:
    """What is not known while an untracked message is run, in whose place, and before that."""

    message_id: str
    run: Run
    collecting: Collecting | None
    outer: _Aside | None


_ASIDE: ContextVar[_Aside | None] = ContextVar("aiotrack_aside", default=None)


def stand_aside(message_id: str) -> None:
    """Let an untracked message know no run: in-place brokers run it inside the one that sent it."""
    run = CURRENT.get()
    if run is not None:
        _ASIDE.set(_Aside(message_id, run, COLLECTING.get(), _ASIDE.get()))
        CURRENT.set(None)
        COLLECTING.set(None)


def run_aside() -> Run | None:
    """Give the run that stands aside here."""
    aside = _ASIDE.get()
    return None if aside is None else aside.run


def come_back(message_id: str) -> None:
    """Let the run be known again that stood aside for this message, if one did."""
    aside = _ASIDE.get()
    if aside is not None and aside.message_id == message_id:
        _ASIDE.set(aside.outer)
        CURRENT.set(aside.run)
        COLLECTING.set(aside.collecting)


def _after_fork() -> None:
    """Let a child know no run: all that a pool's process ever does is done in this context."""
    CURRENT.set(None)
    INHERITED.set(None)
    COLLECTING.set(None)
    _ASIDE.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def tracking(
    *,
    created_by: str | int | None = None,
    module: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    parent: str | int | Execution | Run | None = None,
    durability: str | None = None,
) -> Iterator[None]:
    """Let everything sent inside inherit these facts, also on its workers.

    Blocks nest: the inner one wins, and metadata is merged key by key.

    Args:
        created_by: Who asked for the work; an int is kept as text.
        module: Business scope.
        metadata: Key-value pairs for the records; values as JSON.
        parent: The work that this belongs to, or its task_id; default: the run in this
            context, also one that begins inside the block.
        durability: ``"async"``: sends do not wait until their PENDING is committed.

    Raises:
        InvalidValue: durability is another word, or metadata is no mapping.
    """
    if durability not in {None, "commit", "async"}:
        raise InvalidValue(f"durability is 'commit' or 'async', not {durability!r}")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidValue(f"metadata is a mapping, not {type(metadata).__name__}")
    outer = INHERITED.get() or Inherited()
    inner = Inherited(
        created_by=outer.created_by if created_by is None else str(created_by),
        module=module or outer.module,
        metadata={**outer.metadata, **(metadata or {})},
        parent=outer.parent if parent is None else str(getattr(parent, "task_id", parent)),
        said_in=outer.said_in if parent is None else CURRENT.get(),
        durability=durability or outer.durability,
    )
    token = INHERITED.set(inner)
    try:
        yield
    finally:
        INHERITED.reset(token)
