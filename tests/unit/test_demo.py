"""The demo notices a record that is not what had to happen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from aiotrack import Attempt, Cause, Execution, TaskStatus
from aiotrack.demo.board import Board
from aiotrack.demo.kinds import Kind, kinds

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
RIGHT = Execution(
    id=1, task_id="a", task_name="t", module="t", status=TaskStatus.SUCCESS, created_at=NOW
)
RUN = Attempt(attempt=1, cause=Cause.FIRST, status=TaskStatus.SUCCESS)


def test_there_are_ten_kinds_and_more() -> None:
    """The demo sends at least ten kinds of task, and no two show the same."""
    found = kinds()

    assert len(found) >= 10
    assert len({kind.title for kind in found}) == len(found)


def test_a_right_record_has_no_fault() -> None:
    """A kind finds nothing in a record that ended as it must."""

    assert [] == list(Kind(title="works").faults(RIGHT, [RUN]))


@pytest.mark.parametrize(
    ("kind", "status", "attempts", "fault"),
    [
        (Kind(title="k"), TaskStatus.FAILURE, [RUN], "is FAILURE, must be SUCCESS"),
        (Kind(title="k"), TaskStatus.SUCCESS, [RUN, RUN], "its runs are first, first"),
        (Kind(title="k"), TaskStatus.SUCCESS, [], "its runs are none"),
        (Kind(title="k", proof=lambda _: False), TaskStatus.SUCCESS, [RUN], "does not show"),
        (Kind(title="k", status=TaskStatus.FAILURE), TaskStatus.FAILURE, [RUN], "own error"),
    ],
)
def test_a_wrong_record_is_a_fault(
    kind: Kind, status: TaskStatus, attempts: list[Attempt], fault: str
) -> None:
    """A wrong status, a run too many or too few, a lost error, a missing proof: each is told."""
    (told,) = kind.faults(replace(RIGHT, status=status), attempts)

    assert fault in told


def test_a_board_is_over_when_children_are_too() -> None:
    """A task that sends another is waited for with what it sent."""
    board = Board()
    board.sent("a", Kind(title="sends", child=Kind(title="is sent")))
    board.update([RIGHT])
    parent_only = board.is_over
    board.update([replace(RIGHT, task_id="b", parent_task_id="a")])

    assert not parent_only
    assert board.is_over
    assert {TaskStatus.SUCCESS: 2} == board.counts()


def test_an_empty_board_is_not_over() -> None:
    """Before anything is sent nothing is finished."""

    assert not Board().is_over
