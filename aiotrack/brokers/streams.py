"""Which streams make a queue, and which of them a message goes to. Every key of the broker is here.

====================  ======  =================================================================
name                  type    what
====================  ======  =================================================================
``<queue>``           stream  messages of priority 1; what a stock RedisStreamBroker sends, too
``<queue>:<n>``       stream  messages of priority n, 2 to 10
``<queue>:dead``      stream  messages that were set aside
====================  ======  =================================================================

A message is deleted when it is acknowledged; what is set aside stays until somebody sends it again
or deletes it. The keys carry no namespace: stock brokers share them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiotrack.errors import InvalidValue
from aiotrack.labels import priority, word

log = logging.getLogger(__name__)

LOWEST: Final = 1
HIGHEST: Final = 10
LEVELS: Final = range(HIGHEST, LOWEST - 1, -1)
"""The most urgent first."""

_TAKEN: Final = re.compile(r":(?:dead|[2-9]|10)\Z")
"""How the streams of another queue end."""

_complained: set[str] = set()


def stream(queue: str, level: int) -> str:
    """Name the stream of a queue's level."""
    return queue if level == LOWEST else f"{queue}:{level}"


def dead(queue: str) -> str:
    """Name the stream of a queue's dead letters."""
    return f"{queue}:dead"


def streams(queues: Sequence[str]) -> tuple[str, ...]:
    """Name all streams of some queues: a level of all of them before the next level of any."""
    return tuple(stream(queue, level) for level in LEVELS for queue in queues)


def checked(queue: object) -> str:
    """Give the name of a queue.

    Raises:
        InvalidValue: It is no text, or is that of a stream of another queue.
    """
    if not isinstance(queue, str) or not queue.strip():
        raise InvalidValue(f"a queue's name is a text, not {queue!r}")
    if _TAKEN.search(queue):
        raise InvalidValue(
            f"the queue {queue!r} has the name of a stream of {queue.rpartition(':')[0]!r}: "
            "a name must not end with ':dead' or ':2' to ':10'"
        )
    return queue


def place(labels: Mapping[str, Any], queue_name: str) -> tuple[str, int]:
    """Tell which queue and level a message with these labels goes to.

    Raises:
        InvalidValue: Its queue cannot be one.
    """
    queue = word(labels.get("queue")) or word(labels.get("queue_name")) or queue_name
    return (queue if queue == queue_name else checked(queue)), _level(labels.get("priority"))


def _level(label: Any) -> int:
    if word(label) is None:
        return LOWEST
    found = priority(label)
    if found is None:
        _complain(f"{label!r} is no priority: it counts as {LOWEST}")
        return LOWEST
    level = min(HIGHEST, max(LOWEST, found))
    if level != found:
        _complain(f"priority {found} counts as {level}: they go from {LOWEST} to {HIGHEST}")
    return level


def _complain(text: str) -> None:
    """Say it once; a sender in a loop must not fill the logs, nor the memory."""
    if text not in _complained and len(_complained) < 100:
        _complained.add(text)
        log.warning("%s", text)
