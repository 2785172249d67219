"""`TaskLogCollector`: what code logs that no worker runs, put to an execution."""

from __future__ import annotations

import contextlib
import logging
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from aiotrack.current import COLLECTING, CURRENT
from aiotrack.encode import encode_task_id
from aiotrack.errors import InvalidValue, TrackerNotFound
from aiotrack.finding import the_tracker
from aiotrack.logs.hearing import scroll_of, writer_near
from aiotrack.logs.scroll import Scroll
from aiotrack.settings import level_of

if TYPE_CHECKING:
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.logs.writer import Logs
    from aiotrack.tracker import Tracker


@dataclass(slots=True, eq=False)
class Collecting:
    """What a collector takes in its context, for as long as its block runs."""

    scroll: Scroll
    level: int
    logger: str | None
    outer: Collecting | None
    is_over: bool = False

    def wants(self, record: logging.LogRecord) -> bool:
        """Tell whether a record belongs to it."""
        if self.is_over or record.levelno < self.level:
            return False
        return self.logger is None or f"{record.name}.".startswith(f"{self.logger}.")


class TaskLogCollector:
    """Keeps what a block of code logs as the logs of an execution.

    For work that no worker runs: a function in a web process, a script, a thread. Inside a run it
    needs no *task_id*, and adds what the tracker alone would not keep, such as DEBUG lines of one
    logger. A line is kept once.

    Args:
        task_id: The execution; default: the run, or the `Tracker.track` block, of this context.
        level: The lowest level that is kept, a name or a number. A logger's own level decides
            first what it makes a record of.
        logger: A logger, or its name: only its lines, and those of the loggers below it.
        tracker: Default: that of the current run, else the only started one of this process.

    Raises:
        InvalidValue: An unknown level.
    """

    def __init__(
        self,
        task_id: str | int | None = None,
        *,
        level: str | int = "INFO",
        logger: str | logging.Logger | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        try:
            self._level = level_of(level)
        except ValueError as error:
            raise InvalidValue(f"level: {error}") from None
        name = logger.name if isinstance(logger, logging.Logger) else logger
        self._logger = None if name in {"root", ""} else name
        self._task_id = None if task_id is None else encode_task_id(task_id)
        self._tracker: Lifecycle | None = tracker
        self._entered: list[tuple[Collecting, Token[Collecting | None]]] = []

    def __enter__(self) -> Self:
        """Collect from here on.

        Raises:
            TrackerNotFound: No tracker is started in this process, or several are.
            InvalidValue: Without a task_id, outside a run.
        """
        scroll = self._scroll()
        collecting = Collecting(scroll, self._level, self._logger, COLLECTING.get())
        self._entered.append((collecting, COLLECTING.set(collecting)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        collecting, token = self._entered.pop()
        collecting.is_over = True
        with contextlib.suppress(ValueError):  # left in another context: it ends by itself
            COLLECTING.reset(token)
        if self._task_id is not None:
            collecting.scroll.writer.decide(collecting.scroll, is_kept=error is not None)

    def _scroll(self) -> Scroll:
        writer = _writer_for(self._tracker)
        if self._task_id is not None:
            run_id = f"collector:{uuid4().hex}"
            return writer.scroll(self._task_id, run_id, None, writer.tracker.clock.now())
        run = CURRENT.get()
        if run is None or run.is_over:
            raise InvalidValue("no execution runs here: TaskLogCollector needs a task_id")
        return scroll_of(run, writer)


def _writer_for(tracker: Lifecycle | None) -> Logs:
    """Find the writer of a tracker, of the current run's, or of the only started one."""
    writer = writer_near(the_tracker(tracker))
    if writer is None:
        raise TrackerNotFound
    return writer
