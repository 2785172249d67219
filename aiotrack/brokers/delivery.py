"""A message as TaskIQ gets it: when it is done with it without a word, that is noticed.

A callback that died, or a task that does not acknowledge, must not be renewed for ever. TaskIQ
keeps a message and its context until the next one comes, so garbage collection does not tell; but
TaskIQ runs each message in an asyncio task of its own, and asks for ``ack`` in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from taskiq import AckableMessage

from aiotrack.brokers.held import Held, Key

log = logging.getLogger(__name__)


class Delivery(AckableMessage):
    """A message; who asks for its ``ack`` is watched."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name == "ack" and isinstance(found, Acknowledgement):
            found.watch()
        return found


class Acknowledgement:
    """What TaskIQ calls when it is done with a message.

    Args:
        key: Which message.
        held: Where it is held.
        ack: Acknowledges it.
    """

    __slots__ = ("_ack", "_held", "_is_called", "_is_watched", "_key", "_task")

    def __init__(self, key: Key, held: Held, ack: Callable[[Key], Awaitable[None]]) -> None:
        self._key, self._held, self._ack = key, held, ack
        self._is_called = self._is_watched = False
        self._task: asyncio.Task[Any] | None = None

    def __call__(self) -> Awaitable[None]:
        """Acknowledge it; never raises."""
        self._is_called = True
        if self._task is not None:
            self._task.remove_done_callback(self._end)
            self._task = None
        return self._ack(self._key)

    def watch(self) -> None:
        """Let go of the message when the task that runs here ends without acknowledging it."""
        if self._is_watched:
            return
        self._is_watched = True
        with contextlib.suppress(RuntimeError):  # in a thread without a loop
            self._task = asyncio.current_task()
        if self._task is not None:
            self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._task = None
        self._held.drop(self._key)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error(
                "message %s of %s was not acknowledged, and is delivered again after its lease",
                self._key.id.decode(),
                self._key.stream,
                exc_info=error,
            )

    def __del__(self) -> None:
        if not (self._is_called or self._is_watched):  # nobody began it
            self._held.drop(self._key)
