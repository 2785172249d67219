"""The clock: before it is known, when it becomes known, and when it turns out to be off."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aiotrack.clock import UNSETTLED, Clock, boot_id, host_offset
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness, is_unsettled, settled
from aiotrack.wording import from_json, to_json

HOUR = 3_600_000_000
NOON = 1_763_000_000_000_000
NEAR = 50_000
"""Microseconds that a busy machine may need between two lines of a test."""


def run_report(created_at: int, started_at: int) -> Report:
    """Give the report of a run of two seconds, with a patch from its middle."""
    origin = Origin(task_id="a", task_name="shop.rows", module="shop", created_at=created_at)
    return Report(
        origin,
        Witness.ENDED,
        TaskStatus.SUCCESS,
        run_id="r",
        started_at=started_at,
        finished_at=started_at + 2_000_000,
        duration=2.0,
        patch={"rows": ((1, started_at, started_at + 1_000_000), "7")},
    )


def times(report: Report) -> list[int | None]:
    """Give every time that a report tells."""
    assert report.patch is not None
    return [
        report.origin.created_at,
        report.started_at,
        *report.patch["rows"][0][1:],
        report.finished_at,
    ]


def test_a_moment_before_the_first_answer_is_put_right_by_it() -> None:
    """What was stamped blindly lies as long before the answer as it was, whoever asks."""
    clock = Clock()
    blind = clock.now()
    time.sleep(0.05)
    clock.learn(NOON, 0.0)
    first = clock.settle(blind)

    assert UNSETTLED < blind
    assert NOON - 50_000 - NEAR < first <= NOON - 50_000
    assert NOON <= clock.now() < NOON + NEAR
    assert NOON == clock.settle(NOON), "a true moment stays"


def test_half_of_the_round_trip_is_added() -> None:
    """An answer is as old as its way back took."""
    clock = Clock()
    clock.learn(NOON, 0.2)

    assert 100_000 <= clock.now() - NOON < 100_000 + NEAR


def test_a_later_answer_corrects_what_is_beyond_doubt() -> None:
    """A drift within the round trip is left; a greater one is taken, for new moments only."""
    clock = Clock()
    blind = clock.now()
    clock.learn(NOON, 0.0)
    before = clock.settle(blind)
    clock.learn(NOON - 300_000, 0.8)
    left = clock.now()
    clock.learn(NOON - HOUR, 0.001)
    moved = clock.now()

    assert NOON <= left < NOON + NEAR
    assert NOON - HOUR <= moved < NOON - HOUR + NEAR
    assert before == clock.settle(blind), "reports of one run agree"


@given(st.integers(-HOUR, HOUR), st.booleans())
def test_settled_times_are_in_order_and_keep_the_duration(
    apart: int, is_sent_blindly: bool
) -> None:
    """Whatever the sender's label says, a run starts after it, and ends a duration later."""
    clock = Clock()
    started = clock.now()
    clock.learn(NOON, 0.0)
    created = started - abs(apart) if is_sent_blindly else NOON + apart
    report = settled(run_report(created, started), clock.settle)

    assert report.started_at is not None
    assert report.finished_at is not None
    assert not is_unsettled(report)
    assert report.origin.created_at <= report.started_at
    assert 2_000_000 == report.finished_at - report.started_at


# ── journals ────────────────────────────────────────────────────────────────────────────────────
def test_a_journal_of_this_boot_is_settled_by_whoever_adopts_it() -> None:
    """The monotonic clock is the same for all processes: another's answer serves as well."""
    blind = Clock().now()
    kept = json.loads(json.dumps(to_json(run_report(blind - 5, blind))))
    adopter = Clock()
    adopter.learn(NOON, 0.0)
    boot, offset = kept["clock"]
    found = settled(from_json(kept), adopter.settle)

    assert boot_id() == boot
    assert NEAR > abs(host_offset() - offset)
    assert NOON - NEAR < (found.started_at or 0) <= NOON
    assert (found.started_at or 0) - 5 == found.origin.created_at


def test_a_journal_of_another_boot_tells_its_host_s_time() -> None:
    """After a reboot the monotonic clock says nothing: the host's own one is all there is."""
    report = run_report(UNSETTLED + 1_000_000, UNSETTLED + 2_000_000)
    kept = to_json(report) | {"clock": ["another boot", NOON]}

    assert [NOON + n * 1_000_000 for n in (1, 2, 2, 3, 4)] == times(from_json(kept))


def test_a_journal_with_true_times_tells_no_clock() -> None:
    """What is settled needs no clock, whatever boot reads it."""
    report = run_report(NOON, NOON + 5)
    label_only = replace(report, started_at=None, finished_at=None, patch=None)

    assert "clock" not in to_json(report)
    assert "clock" not in to_json(label_only)
    assert report == from_json(to_json(report))
