"""When a schedule is due, and what is wrong with one. Pure; moments are milliseconds since 1970.

A crontab means the wall clock of its zone, as Debian's cron has it: what names an hour runs once a
day, also on the day that has its hour twice, and right after an hour that is skipped; what names
every hour, or every minute, runs by the clock on the wall, each time that it shows the moment.
(Where clocks are put back by half an hour, on Lord Howe Island, these leave that half hour out.)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, cast

from aiotrack.clock import EPOCH

MANUAL: Final = "manual"
CRON: Final = "cron"
INTERVAL: Final = "interval"
ONCE: Final = "once"
KINDS: Final = (MANUAL, CRON, INTERVAL, ONCE)

_KEYS: Final = {MANUAL: (), CRON: ("cron", "tz"), INTERVAL: ("seconds",), ONCE: ("at",)}
_FIELDS: Final = ("minute", "hour", "day of the month", "month", "day of the week")

LONGEST: Final = 10 * 366 * 86_400
"""Seconds of the longest interval: ten years, which nobody waits for."""

_MILLISECOND: Final = timedelta(milliseconds=1)
_START: Final = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A schedule as it is computed with: a crontab in a zone, an interval, or one moment."""

    cron: str = ""
    zone: tzinfo = UTC
    every: int = 0
    at: int | None = None

    def next(self, anchor: int, after: int) -> int | None:
        """Give the first due time that is later than *after*; None when there is none.

        Args:
            anchor: Where the grid of an interval begins; its first run is one interval later.
            after: A moment.
        """
        if self.at is not None:
            return self.at if self.at > after else None
        if self.every:
            return anchor + max(1, (after - anchor) // self.every + 1) * self.every
        return _next_cron(self.cron, self.zone, after)

    def period(self, anchor: int, due: int) -> int | None:
        """Give the milliseconds from one due time to its next; None when there is none."""
        following = self.next(anchor, due)
        return None if following is None else following - due


def _next_cron(cron: str, zone: tzinfo, after: int) -> int | None:
    from cronsim import CronSim

    try:
        begin = (EPOCH + timedelta(milliseconds=after)).astimezone(zone)
        for moment in CronSim(cron, begin):
            due = (moment - EPOCH) // _MILLISECOND
            if due > after:  # in an hour that comes twice it begins with the first one
                return due
    except OverflowError:  # the calendar ends
        return None
    return None


def parse(kind: str, schedule: Mapping[str, Any]) -> Timing | None:
    """Read a schedule; None of a manual one.

    Raises:
        ValueError: It has faults; see `faults`.
    """
    found = faults(kind, schedule)
    if found:
        raise ValueError("; ".join(found))
    match kind:
        case "cron":
            cron = " ".join(schedule["cron"].split())
            return Timing(cron=cron, zone=_zone(schedule.get("tz", "UTC")))
        case "interval":
            return Timing(every=round(schedule["seconds"] * 1000))
        case "once":
            return Timing(at=(datetime.fromisoformat(schedule["at"]) - EPOCH) // _MILLISECOND)
    return None


def faults(kind: object, schedule: object) -> list[str]:
    """Tell everything that is wrong with a schedule."""
    if kind not in KINDS or not isinstance(kind, str):
        return [f"schedule_kind must be one of {', '.join(KINDS)}, not {_shown(kind)}"]
    if not isinstance(schedule, Mapping):
        return [f"schedule must be a mapping, not {_shown(schedule)}"]
    keys = _KEYS[kind]
    known = f"takes {' and '.join(map(repr, keys))}" if keys else "has no schedule"
    told = [
        f"schedule: {_shown(key)} is unknown; {kind} {known}" for key in schedule if key not in keys
    ]
    match kind:
        case "cron":
            told += _cron_faults(schedule.get("cron")) + _zone_faults(schedule.get("tz", "UTC"))
        case "interval":
            told += _interval_faults(schedule.get("seconds"))
        case "once":
            told += _once_faults(schedule.get("at"))
    return told


def _cron_faults(cron: object) -> list[str]:
    if not isinstance(cron, str):
        return [f"schedule: cron must be a crontab such as '*/5 * * * *', not {_shown(cron)}"]
    fields = cron.split()
    if len(fields) == len(_FIELDS) + 1:
        instead = "cron with seconds is not supported; use schedule_kind='interval'"
        return [f"schedule: cron {_shown(cron)}: {instead}"]
    if len(fields) != len(_FIELDS):
        return [f"schedule: cron {_shown(cron)} needs five fields, not {len(fields)}"]
    if _is_readable(cron):
        return []
    told = []
    for position, field in enumerate(fields):
        alone = ["*"] * len(_FIELDS)
        alone[position] = field
        if not _is_readable(" ".join(alone)):
            told.append(f"schedule: cron {_shown(cron)}: bad {_FIELDS[position]} {_shown(field)}")
    return told or [f"schedule: cron {_shown(cron)} is never due"]


@functools.lru_cache(maxsize=4096)  # a scheduler reads the same ones again and again
def _is_readable(cron: str) -> bool:
    """Whether a crontab can be read, and is due at some time within fifty years."""
    from cronsim import CronSim, CronSimError

    try:
        return next(CronSim(cron, _START), None) is not None
    except (CronSimError, AssertionError, ValueError, TypeError, IndexError):
        return False


def _zone_faults(name: object) -> list[str]:
    try:
        _zone(name)
    except (ValueError, TypeError, KeyError, OSError):
        return [f"schedule: tz {_shown(name)} is no time zone that this machine knows"]
    return []


def _zone(name: Any) -> tzinfo:
    if name == "UTC":  # also where there is no data about zones
        return UTC
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def _interval_faults(seconds: object) -> list[str]:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if is_number and 1 <= cast("float", seconds) <= LONGEST:  # nan is in no range
        return []
    return [f"schedule: seconds must be a number from 1 to {LONGEST}, not {_shown(seconds)}"]


def _once_faults(at: object) -> list[str]:
    hint = "schedule: at must be an ISO time with its offset, such as '2027-01-01T00:00:00Z'"
    try:
        moment = datetime.fromisoformat(at) if isinstance(at, str) else None
        if moment is None or moment.utcoffset() is None or moment < EPOCH:
            return [f"{hint}, not {_shown(at)}"]
    except (ValueError, OverflowError):
        return [f"{hint}, not {_shown(at)}"]
    return []


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
