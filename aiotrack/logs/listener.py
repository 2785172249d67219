"""Where log records are heard: above the root logger.

A handler among the root logger's own would change what users configured: `logging.basicConfig`
does nothing when there is one, `logging.config.dictConfig` takes it away, and warnings of a program
without any configuration would go nowhere. So ours hangs on a logger above the root, to which the
root propagates: whatever happens to the root's handlers, it stays, and is in nobody's way.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiotrack.logs.writer import Logs

Hear = Callable[[logging.LogRecord], None]


class Listener(logging.Handler):
    """Gives every record to those who hear. It never raises, and never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.hear: Hear | None = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, without the lock that other handlers need for their streams."""
        if not logging.root.handlers:
            _last_resort(record)
        if self.hear is not None:
            self.hear(record)
        return True


def _last_resort(record: logging.LogRecord) -> None:
    """Do what `logging` does when there is no handler: it takes ours for one."""
    last = logging.lastResort
    if last is None or record.levelno < last.level:
        return
    logger = logging.Logger.manager.loggerDict.get(str(record.name))
    while isinstance(logger, logging.Logger):
        if logger.handlers and logger is not _above:
            return
        logger = logger.parent
    last.handle(record)


_listener = Listener()
_above = logging.Logger("aiotrack.above_root")  # noqa: LOG001 - in nobody's tree but above it
_above.propagate = False
_above.addHandler(_listener)
_writers: list[Logs] = []


def listen(writer: Logs, hear: Hear) -> None:
    """Let *hear* have every record until `leave`; it must not raise, and is the same for all."""
    _writers[:] = [one for one in _writers if not one.loop.is_closed()]
    _writers.append(writer)
    if writer.is_on:
        _listener.hear = hear
        logging.root.parent = _above


def leave(writer: Logs) -> None:
    """Listen no longer for a writer; with the last one everything is as it was."""
    _writers[:] = [one for one in _writers if one is not writer]
    if not any(other.is_on for other in _writers):
        _end()


def writers() -> list[Logs]:
    """Give the writers of all loops and trackers of this process, also those that keep nothing."""
    return _writers


def _end() -> None:
    _listener.hear = None
    if logging.root.parent is _above:
        logging.root.parent = None


def _after_fork() -> None:
    """Keep nothing of what a child logs: its writers are copies of its parent's."""
    _writers.clear()
    _end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
