"""Statuses, durations and foreign text as a terminal shows them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aiotrack import Attempt, Cause, Execution, TaskStatus
from aiotrack.terminal import (
    COLOURS,
    SIGNS,
    block,
    failure,
    moment,
    one_line,
    outcome,
    seconds,
    value,
)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (None, ""),
        (0.000_25, "250 µs"),
        (0.25, "250 ms"),
        (2.5, "2.5 s"),
        (59.97, "1 min 00 s"),
        (0.999_7, "1.0 s"),
        (125, "2 min 05 s"),
        (3600 + 120, "1 h 02 min"),
    ],
)
def test_a_duration_has_the_unit_that_reads_best(duration: float | None, expected: str) -> None:
    """Microseconds to hours, rounded to what matters."""

    assert expected == seconds(duration)


def test_control_characters_are_shown() -> None:
    """A text can neither move the cursor nor fake a line."""

    assert r"a\x1b[2Jb c\x9b" == one_line("a\x1b[2Jb\nc\x9b")
    assert "a\nb\\x07" == block("a\nb\x07")


def test_a_long_text_is_cut() -> None:
    """A cut is marked, and the width is kept."""

    assert "abc…" == one_line("abcdef", 4)
    assert '["a…' == value(["abc"], 4)


def test_an_outcome_is_the_error_or_the_result() -> None:
    """What failed shows its error, what ended its result, what runs nothing."""
    run = Attempt(
        attempt=1, cause=Cause.FIRST, status=TaskStatus.RETRY, error_type="a.B", error="no"
    )
    running = Execution(
        id=1,
        task_id="a",
        task_name="t",
        module="t",
        status=TaskStatus.STARTED,
        created_at=datetime(2026, 1, 31, tzinfo=UTC),
    )

    assert "B: no" == failure(run)
    assert "" == outcome(running)


def test_every_status_has_a_colour_and_a_sign() -> None:
    """No status is forgotten."""

    assert set(TaskStatus) == set(COLOURS) == set(SIGNS)
    assert len(set(SIGNS.values())) == len(TaskStatus)


def test_no_time_is_no_text() -> None:
    """A task that never started shows no start."""

    assert "" == moment(None)
