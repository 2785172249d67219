"""Statuses, durations and foreign text as a terminal shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from aiotrack import Attempt, Cause, Execution, TaskStatus
from aiotrack.terminal import (
    COLOURS,
    SIGNS,
    block,
    failure,
    instant,
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("a\u200fb\u2066c", r"a\u200fb\u2066c"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("a\U000e0041", r"a\U000e0041"),
        ("a\ud800", r"a\ud800"),
        ("👩\u200d🚀 می\u200cروم é 漢", "👩\u200d🚀 می\u200cروم é 漢"),
    ],
)
def test_marks_that_turn_text_around_or_hide_it_are_shown(text: str, expected: str) -> None:
    """What nobody sees cannot lie; the joiners of words and emoji stay."""

    assert expected == one_line(text) == block(text)


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


@pytest.fixture(params=["Asia/Kathmandu", "UTC"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The reader's time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def test_a_time_tells_its_zone(zone: str) -> None:
    """It is the reader's own, and what is shown can be read back as the same moment."""
    at = datetime(2026, 1, 31, 8, 0, 1, 234_567, tzinfo=UTC)
    expected = {
        "Asia/Kathmandu": ("2026-01-31 13:45:01+05:45", "2026-01-31 13:45:01.234+05:45"),
        "UTC": ("2026-01-31 08:00:01Z", "2026-01-31 08:00:01.234Z"),
    }

    assert expected[zone] == (moment(at), instant(at))
    assert at.replace(microsecond=0) == datetime.fromisoformat(moment(at))


def test_no_time_is_no_text() -> None:
    """A task that never started shows no start."""

    assert "" == moment(None)
