"""What a cancel makes of a history, without a database."""

from __future__ import annotations

import pytest

from aiotrack import CancelOutcome, TaskStatus
from aiotrack.cancellation.asking import _Look
from aiotrack.report import History, Origin, Report, Witness, rank
from aiotrack.repository.control.cancels import Wish
from aiotrack.verdicts import revoke

ORIGIN = Origin("a", "shop.pay", "shop", 1_000)
ENDED, STARTED = Witness.ENDED, Witness.STARTED


def history(*items: Report) -> History:
    """Give what these tell of a task that was sent."""
    return History.of([Report(ORIGIN, Witness.SENT, TaskStatus.PENDING), *items])


def run(witness: Witness, status: TaskStatus, attempt: int = 1) -> Report:
    """Give a run's report."""
    return Report(ORIGIN, witness, status, f"run{attempt}", attempt, started_at=2_000)


def look(asked_at: int) -> _Look:
    """Give a look at noon, for a wish of then or of before."""
    return _Look({"a": Wish(task_id="a", asked_at=asked_at, reason="why", by="ada")}, 12)


@pytest.mark.parametrize(
    ("items", "asked_at", "expected"),
    [
        ([], 12, CancelOutcome.REVOKED),
        ([run(Witness.HANDED_BACK, TaskStatus.RETRY)], 12, CancelOutcome.REVOKED),
        ([run(Witness.HANDED_BACK, TaskStatus.PENDING)], 12, CancelOutcome.REVOKED),
        ([run(STARTED, TaskStatus.STARTED)], 12, CancelOutcome.CANCELLING),
        ([run(ENDED, TaskStatus.SUCCESS)], 12, CancelOutcome.FINISHED),
        ([run(ENDED, TaskStatus.FAILURE)], 12, CancelOutcome.FINISHED),
        ([run(ENDED, TaskStatus.REVOKED)], 12, CancelOutcome.REVOKED),  # a worker was quicker
        ([run(ENDED, TaskStatus.REVOKED)], 11, CancelOutcome.FINISHED),  # cancelled before
        (
            [run(Witness.HANDED_BACK, TaskStatus.RETRY), run(STARTED, TaskStatus.STARTED, 2)],
            *(12, CancelOutcome.CANCELLING),
        ),
    ],
)
def test_outcomes(items: list[Report], asked_at: int, expected: CancelOutcome) -> None:
    """Each state has one; only what waits gets an item, and shows it then."""
    one, told = look(asked_at), history(*items)
    reports = list(one.change(told))
    for report in reports:
        told.add(report)

    assert {"a": expected} == one.outcomes
    assert (expected is CancelOutcome.CANCELLING) == ("a" in one.running)
    assert bool(reports) == (expected is CancelOutcome.REVOKED and len(told.items) > len(items))
    if reports:
        assert (TaskStatus.REVOKED, "why", "ada") == (
            *(told.shown().status, told.shown().cancel_reason, told.shown().cancelled_by),
        )
        assert [] == list(one.change(told))  # and again: nothing more


def test_a_presumed_end_is_signed() -> None:
    """No run may be left that would say who asked, and why; it stays what it is, and once."""
    one, told = look(12), history(run(Witness.PRESUMED, TaskStatus.FAILURE))
    for report in one.change(told):
        told.add(report)
    shown = told.shown()

    assert {"a": CancelOutcome.CANCELLING} == one.outcomes
    assert "a" in one.running
    assert (TaskStatus.FAILURE, Witness.PRESUMED) == (shown.status, shown.witness)
    assert ("why", "ada") == (shown.cancel_reason, shown.cancelled_by)
    assert [] == list(one.change(told))


def test_a_run_passes_the_item() -> None:
    """Who began before he heard is shown as running, and then as he ended."""
    told = history()
    item = revoke(told, now=12, reason=None, by=None)
    assert item is not None
    told.add(item)
    told.add(run(STARTED, TaskStatus.STARTED))
    running = told.shown().status
    told.add(run(ENDED, TaskStatus.SUCCESS))

    assert (TaskStatus.STARTED, TaskStatus.SUCCESS) == (running, told.shown().status)
    assert rank(item) < rank(run(ENDED, TaskStatus.FAILURE))
