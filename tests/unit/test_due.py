"""Crontabs, and the last time at which one was due."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aiotrack.clock import to_datetime, to_micros
from aiotrack.sweeps.due import due_times_ago, is_crontab, last_due


@pytest.mark.parametrize(
    "text", ["*/5 * * * *", "0 2 * * *", "1,31 8-18 * * 1-5", "0 0 1 1 *", "0 0 * * sun"]
)
def test_a_crontab_that_can_match_is_one(text: str) -> None:
    """What TaskIQ's scheduler would ever send."""

    assert is_crontab(text)


@pytest.mark.parametrize(
    "text", ["", "@daily", "* * * * * *", "61 * * * *", "abc * * * *", "*/0 * * * *", "* *  * * *"]
)
def test_a_crontab_that_never_matches_is_none(text: str) -> None:
    """TaskIQ's scheduler would say nothing, and never send."""

    assert not is_crontab(text)


@pytest.mark.parametrize(
    ("schedule", "now", "due"),
    [
        ("*/5 * * * *", "12:04:29", "12:00"),
        ("*/5 * * * *", "12:04:31", "12:05"),  # a scheduler whose clock is ahead
        ("*/5 * * * *", "12:09:00", "12:05"),
        ("0 2 * * *", "12:09:00", "02:00"),
        (300, "12:09:00", "12:05"),
        (300, "12:09:59", "12:10"),
        ("0 0 1 1 *", "12:09:00", "00:00"),  # not within a day: one claim for a day
    ],
)
def test_the_last_due_time(schedule: str | int, now: str, due: str) -> None:
    """Whoever comes for the same time finds the same name."""
    day = datetime(2026, 3, 5, tzinfo=UTC)
    moment = day.combine(day, datetime.strptime(now, "%H:%M:%S").time(), UTC)  # noqa: DTZ007
    found = last_due(schedule, to_micros(moment))

    assert due == f"{to_datetime(found):%H:%M}"


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ("*/30 * * * *", "05 11:00"),
        ("*/30 8 * * *", "04 08:30"),  # the pause of a night is none
        ("0 2 * * *", "03 02:00"),
        ("0 2 * * mon", None),
        (1800, "05 11:00"),
    ],
)
def test_a_due_time_of_before(schedule: str | int, due: str | None) -> None:
    """Two more came after it."""
    found = due_times_ago(schedule, to_micros(datetime(2026, 3, 5, 12, 9, tzinfo=UTC)), 2)

    assert due == (None if found is None else f"{to_datetime(found):%d %H:%M}")
