"""Coalesced progress of the current run: a call costs a few dictionary writes, not a row."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from aiotrack.encode import Encoder
from aiotrack.report import Stamp

log = logging.getLogger(__name__)

INTERVAL = 0.2
"""Seconds between two writes of one run's progress (a guess: five a second look live)."""

YIELD_EVERY = 0.01
"""Seconds after which a loop of progress calls lets other tasks run."""

YIELDS = 4
"""Turns of the event loop that it then stands back: after one, a timer that was due runs only when
the loop has worked for another 10 ms; a word from a socket takes three until it cancels a task."""


class Progress:
    """Metadata that a run wrote and that is not handed to the recorder yet. Thread-safe.

    Args:
        loop: The loop of the run.
        hand_over: Called on *loop* when the values are due.
    """

    __slots__ = ("_armed", "_hand_over", "_lock", "_loop", "_values", "yielded_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, hand_over: Callable[[], None]) -> None:
        self._loop = loop
        self._hand_over = hand_over
        self._values: dict[str, Any] = {}
        self._armed = False
        self._lock = threading.Lock()
        self.yielded_at = time.monotonic()

    def put(self, values: dict[str, Any]) -> None:
        """Keep *values*, and have them handed over soon. From any thread, in any loop."""
        with self._lock:
            self._values.update(values)
            if self._armed:
                return
            self._armed = True
        try:
            is_at_home = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_at_home = False
        if is_at_home:
            self._arm()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the run with it
                self._loop.call_soon_threadsafe(self._arm)

    def _arm(self) -> None:
        self._hand_over()
        self._loop.call_later(INTERVAL, self._again)

    def _again(self) -> None:
        with self._lock:
            if not self._values:
                self._armed = False
                return
        self._arm()

    def forget(self) -> None:
        """Drop what came after the run's end."""
        with self._lock:
            self._values = {}

    def take(self, stamp: Stamp, encoder: Encoder) -> dict[str, tuple[Stamp, str]] | None:
        """Give what is kept as a patch, and keep it no longer."""
        with self._lock:
            values, self._values = self._values, {}
        if not values:
            return None
        return patch_of(values, stamp, encoder)


def patch_of(
    values: dict[str, Any], stamp: Stamp, encoder: Encoder
) -> dict[str, tuple[Stamp, str]]:
    """Encode metadata values, each by itself, with secrets redacted by key."""
    patch = {}
    for key, value in values.items():
        stored = json.loads(encoder.encode_kwargs({key: value}).text)
        for name, part in stored.items() if len(stored) == 1 else [(encoder.text(key), stored)]:
            patch[name] = (stamp, json.dumps(part, separators=(",", ":")))
    return patch


def progress_values(
    percent: float | None,
    message: str | None,
    step: str | None,
    current: float | None,
    total: float | None,
    extra: dict[str, Any],
    nonsense: Callable[[], None],
) -> dict[str, Any]:
    """Give the metadata of one progress call.

    Raises:
        TypeError: percent and total are both given.
    """
    if percent is not None and total is not None:
        raise TypeError("progress() takes percent, or current and total, not both")
    values = dict(extra) if extra else {}
    if total is not None:  # without it a share cannot be told: a given percentage stands
        percent = _share(current, total, nonsense)
    if percent is not None:
        whole = _whole(percent)
        if whole is None:
            nonsense()
        else:
            values["progress_percent"] = whole
    if message is not None:
        values["progress_message"] = message
    if step is not None:
        values["progress_step"] = step
    return values


def _share(current: float | None, total: float, nonsense: Callable[[], None]) -> float | None:
    try:
        if 0 < total < math.inf and math.isfinite(current or 0):
            return 100 * (current or 0) / total
    except (TypeError, ValueError, ArithmeticError):  # of decimals, too
        pass
    nonsense()
    return None


def _whole(percent: float) -> int | None:
    """Round down and clamp to 0 to 100; None for what is no number."""
    try:
        if math.isnan(percent):
            return None
        return math.floor(min(100, max(0, percent)))
    except (TypeError, ValueError, ArithmeticError):
        return None
