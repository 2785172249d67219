"""What a server's answer grants, or tells of who has it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Grant:
    """A lock that was granted.

    Attributes:
        name: As in `aiotrack.locks.names.lock_name`.
        token: Known to its owner alone.
        fence: Higher than that of every grant of this lock before.
        deadline: Monotonic seconds until which it is surely ours.
        is_brief: It was handed over, for `GRACE` seconds at most.
    """

    name: str
    token: str
    fence: int
    deadline: float
    is_brief: bool = False


def margin(ttl: float) -> float:
    """Give the seconds by which our lease ends before the server's: clocks do not run alike."""
    return ttl * 0.01 + 0.002


def granted(name: str, token: str, ttl: float, answer: Any, sent: float) -> Grant | None:
    """Give what was granted; None when we slept for longer than it lasts."""
    deadline = sent + ttl - margin(ttl)
    if time.monotonic() >= deadline:
        return None
    return Grant(name, token, int(answer[1]), deadline)


def holder_in(answer: Any) -> dict[str, Any]:
    """Read what the holder told of itself."""
    try:
        found: dict[str, Any] = json.loads(answer[3])
        found.pop("channel", None)
    except (IndexError, TypeError, ValueError, AttributeError):
        return {}
    return found
