"""Crontabs as TaskIQ's scheduler reads them, and when one was due last. Pure.

What pycron reads it reads here, too, so that both mean the same minutes. But a field that it cannot
read never matches, and nobody is told: `is_crontab` tells.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from aiotrack.clock import EPOCH

MINUTE: Final = 60_000_000

AHEAD: Final = 30_000_000
"""Microseconds that a scheduler's clock may be ahead of the database's: it sends when its own says
so, and a run that comes early must not take the time before for its own."""

LOOK_BACK: Final = 24 * 60
"""Minutes in which the last due time is looked for: runs begin soon after it."""

_SUNDAY: Final = datetime(2023, 1, 1)  # noqa: DTZ001 - cron knows no zones
_FIELDS: Final = (
    [datetime(2023, 1, 1, 0, minute) for minute in range(60)],  # noqa: DTZ001
    [datetime(2023, 1, 1, hour) for hour in range(24)],  # noqa: DTZ001
    [datetime(2023, 1, day) for day in range(1, 32)],  # noqa: DTZ001
    [datetime(2023, month, 1) for month in range(1, 13)],  # noqa: DTZ001
    [_SUNDAY + timedelta(days=day) for day in range(7)],
)


def is_crontab(text: str) -> bool:
    """Tell whether each of the five fields matches any moment at all."""
    import pycron

    parts = text.split(" ")
    if len(parts) != len(_FIELDS):
        return False
    try:
        return all(
            any(pycron.is_now(_only(position, part), moment) for moment in moments)
            for position, (part, moments) in enumerate(zip(parts, _FIELDS, strict=True))
        )
    except (ValueError, TypeError, ZeroDivisionError):
        return False


def _only(position: int, part: str) -> str:
    fields = ["*"] * len(_FIELDS)
    fields[position] = part
    return " ".join(fields)


def last_due(schedule: str | int, now: int) -> int:
    """Give when a schedule was due last, as microseconds.

    Args:
        schedule: A crontab, or seconds.
        now: The database's time.
    """
    now += AHEAD
    if isinstance(schedule, int):
        return now - now % (schedule * 1_000_000)
    minute = now - now % MINUTE
    found = _due_by(schedule, minute)
    return minute - minute % (LOOK_BACK * MINUTE) if found is None else found


def due_times_ago(schedule: str | int, now: int, times: int) -> int | None:
    """Give when a schedule was due the last time but so many; None where a day lies between two.

    Args:
        schedule: A crontab, or seconds.
        now: The database's time.
        times: How many due times came after it.
    """
    if isinstance(schedule, int):
        return now - now % (schedule * 1_000_000) - times * schedule * 1_000_000
    found = _due_by(schedule, now - now % MINUTE)
    for _ in range(times):
        found = None if found is None else _due_by(schedule, found - MINUTE)
    return found


def _due_by(schedule: str, minute: int) -> int | None:
    import pycron

    for back in range(LOOK_BACK):
        moment = EPOCH + timedelta(microseconds=minute - back * MINUTE)
        if pycron.is_now(schedule, moment):
            return minute - back * MINUTE
    return None
