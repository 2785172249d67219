"""What the verbs make of a schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from aiotrack import TaskDefinition
from aiotrack.schedules.entry import ACTIVE, DONE, PAUSED, Entry, task_id
from aiotrack.schedules.moves import (
    NOTHING,
    PAUSE,
    RESUME,
    RETIME,
    START,
    STOP,
    Standing,
    move,
    restored,
)

NOW = 1_800_000_000_300
SECOND = 1_800_000_000_000
AT = "2027-01-15T08:00:00Z"  # SECOND


def definition(kind: str = "interval", schedule: dict[str, Any] | None = None) -> TaskDefinition:
    """Make one."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return TaskDefinition(
        id=7,
        name="seven",
        task_type="shop.count",
        schedule_kind=kind,
        schedule={"seconds": 60} if schedule is None else schedule,
        created_at=moment,
        updated_at=moment,
    )


STARTED = move(START, definition(), NOTHING, NOW)
RESTING = move(PAUSE, definition(), STARTED, NOW)


def test_an_interval_begins_with_its_start() -> None:
    """It is due first when it is over once, on a whole second."""

    assert ("active", SECOND + 60_000) == (STARTED.state, STARTED.due)


@pytest.mark.parametrize(
    ("action", "known", "state"),
    [
        (START, STARTED, "active"),
        (STOP, NOTHING, "inactive"),
        (PAUSE, NOTHING, "inactive"),
        (PAUSE, RESTING, "paused"),
        (RESUME, NOTHING, "inactive"),
        (RESUME, STARTED, "active"),
        (RETIME, NOTHING, "inactive"),
        (RETIME, STARTED, "active"),
        (RETIME, RESTING, "paused"),
    ],
)
def test_what_is_so_already_stays(action: str, known: Standing, state: str) -> None:
    """Every verb may be repeated, at any time later."""
    made = move(action, definition(), known, NOW + 15_000)

    assert known == made
    assert state == made.state


@pytest.mark.parametrize("action", [START, RESUME])
def test_a_paused_interval_goes_on_on_its_grid(action: str) -> None:
    """What it missed is not due; what comes next is a multiple of its period after its start."""
    made = move(action, definition(), RESTING, NOW + 150_000)

    assert ("paused", None) == (RESTING.state, RESTING.due)
    assert ("active", SECOND + 180_000) == (made.state, made.due)


def test_what_is_stopped_begins_anew() -> None:
    """A stop forgets the grid."""
    stopped = move(STOP, definition(), STARTED, NOW)
    again = move(START, definition(), stopped, NOW + 10_000)

    assert NOTHING == stopped
    assert SECOND + 70_000 == again.due


def test_a_change_of_the_period_times_anew() -> None:
    """Other changes keep the next due time."""
    slower = move(RETIME, definition(schedule={"seconds": 90}), STARTED, NOW + 5000)
    named = move(RETIME, replace(definition(), parameters={"a": 1}), STARTED, NOW + 5000)
    resting = move(RETIME, definition(schedule={"seconds": 90}), RESTING, NOW + 5000)

    assert SECOND + 95_000 == slower.due
    assert (SECOND + 60_000, {"a": 1}) == (named.due, named.entry and named.entry.kwargs)
    assert ("paused", None) == (resting.state, resting.due)


def test_what_becomes_manual_stops() -> None:
    """There is nothing to be due."""

    assert NOTHING == move(RETIME, definition("manual", {}), STARTED, NOW)


def test_a_moment_that_is_over_is_not_started() -> None:
    """A minute late is late enough; a little late is due at once."""
    once = definition("once", {"at": AT})

    assert NOTHING == move(START, once, NOTHING, NOW + 120_000)
    assert SECOND == move(START, once, NOTHING, NOW).due


def test_a_moment_that_was_sent_does_not_come_again() -> None:
    """Another moment does."""
    entry = Entry.of(definition("once", {"at": AT}), DONE, SECOND)
    done = Standing(entry)
    later = definition("once", {"at": "2027-01-15T09:00:00Z"})

    assert ("inactive", done) == (
        done.state,
        move(START, definition("once", {"at": AT}), done, NOW),
    )
    assert SECOND + 3_600_000 == move(START, later, done, NOW).due


def test_a_moment_that_came_in_a_pause_is_due_when_that_ends() -> None:
    """Whether it is sent is the scheduler's to say."""
    once = definition("once", {"at": AT})
    known = move(START, once, NOTHING, NOW - 60_000)
    made = move(RESUME, once, move(PAUSE, once, known, NOW - 50_000), NOW + 3_600_000)

    assert SECOND == made.due


def test_what_was_lost_comes_back_on_its_grid() -> None:
    """With the anchor that was kept; what rested still rests."""
    active = restored(definition(), ACTIVE, SECOND, NOW + 150_000)
    paused = restored(definition(), PAUSED, SECOND, NOW + 150_000)
    unknown = restored(definition(), ACTIVE, None, NOW)

    assert (SECOND + 180_000, None, SECOND + 60_000) == (active.due, paused.due, unknown.due)


def test_an_entry_is_read_as_it_was_written() -> None:
    """All that a tick needs is in it."""
    made = replace(
        definition(), timeout_seconds=2.5, queue="gpu", max_retries=3, parameters={"a": [1, "é"]}
    )
    entry = Entry.of(made, ACTIVE, SECOND)

    assert entry == Entry.read(entry.write().encode())
    assert {
        "aiotrack_config_id": 7,
        "aiotrack_schedule_id": "task_7",
        "priority": 5,
        "timeout": 2.5,
        "queue": "gpu",
        "queue_name": "gpu",
        "max_retries": 4,
        "retry_on_error": True,
    } == entry.labels


def test_who_names_no_retries_leaves_them_to_the_task() -> None:
    """0 is what a definition has that says nothing: the labels of the task's decorator hold."""
    labels = Entry.of(replace(definition(), max_retries=0), ACTIVE, SECOND).labels

    assert not {"max_retries", "retry_on_error"} & labels.keys()


GOOD = Entry.of(definition(), ACTIVE, SECOND).write()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80\x04\x95",
        b"[1]",
        b"[" * 100_000,
        GOOD.replace('"active"', '"running"').encode(),
        GOOD.replace('"active"', "[1]").encode(),
        GOOD.replace("1800000000000", "1.5").encode(),
        GOOD.replace('"seconds":60', '"seconds":0').encode(),
        GOOD.replace('"interval"', '"manual"').encode(),
        GOOD.replace('"kwargs":{}', '"kwargs":[]').encode(),
        GOOD.replace('"priority":5', '"priority":{"a":1}').encode(),
    ],
)
def test_what_is_no_entry_is_refused(raw: bytes) -> None:
    """Whatever anybody wrote into Redis is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        Entry.read(raw)


def test_a_due_time_names_its_execution() -> None:
    """The same name wherever it is sent."""

    assert "task_7:2027-01-15T08:00:00Z" == task_id(7, SECOND)
    assert "task_7:2027-01-15T08:00:00.500Z" == task_id(7, SECOND + 500)
