"""When a schedule is due: against every minute of days that clocks change on; and faults."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from aiotrack.clock import EPOCH
from aiotrack.timing import faults, parse

MINUTE = timedelta(minutes=1)
DAYS = [
    ("Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC)),
    ("America/St_Johns", datetime(2026, 3, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 10, 31, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 3, 7, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 10, 29, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 28, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(2026, 5, 5, tzinfo=UTC)),
]
CRONS = [
    "30 2 * * *",
    "0,30 1-3 * * *",
    "15 2,3 * * *",
    "0 0 * * *",
    "45 1 * * *",
    "20 0-23/3 * * *",
    "30 0 * * SUN",
    "*/15 * * * *",
    "*/10 2 * * *",
    "0 * * * *",
    "5 */2 * * *",
]


@given(
    day=st.sampled_from(DAYS),
    cron=st.sampled_from(CRONS),
    after=st.integers(0, 2 * 86_400_000),
)
def test_a_crontab_is_due_when_the_wall_clock_shows_it(
    day: tuple[str, datetime], cron: str, after: int
) -> None:
    """The next due time is the one that a look at every minute gives, also when clocks change."""
    zone, begin = day
    timing = parse("cron", {"cron": cron, "tz": zone})
    moment = millis(begin) + after
    expected = next((one for one in all_dues(cron, zone, begin) if one > moment), None)

    assert timing is not None
    found = timing.next(0, moment)
    assert expected == (found if found is None or found < millis(begin) + 3 * 86_400_000 else None)


@cache
def all_dues(cron: str, zone: str, begin: datetime) -> list[int]:
    """Look at every minute of three days."""
    tz, end = ZoneInfo(zone), begin + timedelta(days=3)
    minute, hour, *_ = cron.split()
    fields = CronSim(cron, begin)

    def is_due(wall: datetime) -> bool:
        return (
            wall.minute in fields.minutes
            and wall.hour in fields.hours
            and wall.month in fields.months
            and fields.match_day(wall.date())
        )

    found = set()
    if "*" in {minute[0], hour[0]}:  # whatever the clock on the wall shows, each time that it does
        moment = begin
        while moment < end:
            if is_due(moment.astimezone(tz)):
                found.add(moment)
            moment += MINUTE
    else:  # once a day, also where its hour is skipped
        wall = begin.astimezone(tz).replace(tzinfo=None) - timedelta(days=1)
        while wall < end.astimezone(tz).replace(tzinfo=None) + timedelta(days=1):
            if is_due(wall):
                real = wall.replace(tzinfo=tz)
                while real.astimezone(UTC).astimezone(tz) != real:
                    real += MINUTE
                found.add(real.astimezone(UTC))
            wall += MINUTE
    return sorted(millis(one) for one in found if begin <= one < end)


def millis(moment: datetime) -> int:
    """Give milliseconds since 1970."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


@given(
    seconds=st.one_of(st.integers(1, 10_000), st.floats(1, 10_000)),
    anchor=st.integers(0, 10**13),
    after=st.integers(0, 10**13),
)
def test_an_interval_is_due_on_its_grid(seconds: float, anchor: int, after: int) -> None:
    """The first point of the grid later than a moment, and never before the first interval."""
    timing = parse("interval", {"seconds": seconds})
    assert timing is not None
    due = timing.next(anchor, after)
    every = round(seconds * 1000)

    assert due is not None
    assert 0 == (due - anchor) % every
    assert due > after
    assert due >= anchor + every
    assert due - every <= max(after, anchor)


def test_a_moment_is_due_once() -> None:
    """Before it, it is what comes next; then nothing does."""
    timing = parse("once", {"at": "2027-01-01T01:00:00+01:00"})
    moment = millis(datetime(2027, 1, 1, tzinfo=UTC))

    assert timing is not None
    assert [moment, None] == [timing.next(0, moment - 1), timing.next(0, moment)]


@pytest.mark.parametrize(
    ("kind", "schedule", "expected"),
    [
        ("manual", {}, []),
        ("cron", {"cron": "0 4 * * MON-FRI", "tz": "Europe/Berlin"}, []),
        ("cron", {"cron": "  */5  *  * * * "}, []),
        ("interval", {"seconds": 1}, []),
        ("once", {"at": "2027-01-01T00:00:00Z"}, []),
        ("hourly", {}, ["schedule_kind must be one of manual, cron, interval, once"]),
        ("manual", {"cron": "* * * * *"}, ["'cron' is unknown; manual has no schedule"]),
        ("cron", {}, ["cron must be a crontab"]),
        ("cron", {"cron": "@daily"}, ["needs five fields, not 1"]),
        ("cron", {"cron": "* * * * * *"}, ["cron with seconds is not supported; use"]),
        ("cron", {"cron": "61 25 * * X"}, ["bad minute", "bad hour", "bad day of the week"]),
        ("cron", {"cron": "*/0 1- MON#1/2 13 ²"}, ["minute", "hour", "month", "month", "week"]),
        ("cron", {"cron": "0 0 30 2 *"}, ["is never due"]),
        ("cron", {"cron": "* * * * *", "tz": "Mars/Base", "at": 1}, ["'at' is unknown", "Mars"]),
        ("cron", {"cron": "* * * * *", "tz": "America"}, ["no time zone"]),
        ("cron", {"cron": "* * * * *", "tz": "../etc/passwd"}, ["no time zone"]),
        ("cron", {"cron": "* * * * *", "tz": None}, ["no time zone"]),
        ("interval", {"seconds": 0.5}, ["seconds must be a number from 1"]),
        ("interval", {"seconds": float("nan")}, ["seconds must be a number from 1"]),
        ("interval", {"seconds": True}, ["seconds must be a number from 1"]),
        ("interval", {"seconds": 10**30}, ["seconds must be a number from 1"]),
        ("once", {"at": "2027-01-01T00:00:00"}, ["must be an ISO time with its offset"]),
        ("once", {"at": "tomorrow"}, ["must be an ISO time with its offset"]),
        ("once", {"at": "1969-01-01T00:00:00Z"}, ["must be an ISO time with its offset"]),
        ("cron", "* * * * *", ["schedule must be a mapping"]),
    ],
)
def test_everything_that_is_wrong_is_told(kind: str, schedule: object, expected: list[str]) -> None:
    """A fault for each thing, in the order of the crontab's fields."""
    told = faults(kind, schedule)

    assert len(expected) == len(told)
    assert [] == [part for part, fault in zip(expected, told, strict=True) if part not in fault]


def test_a_faulty_schedule_is_not_read() -> None:
    """What is refused when it is made is refused when it is read from Redis, too."""
    with pytest.raises(ValueError, match="bad minute"):
        parse("cron", {"cron": "61 * * * *"})
