"""What TaskIQ's admin middleware posts makes one record, in whatever order it comes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotrack.report import History, Origin, Report
from aiotrack.repository.fold import Row, attempt_row, execution_row
from aiotrack.retelling import take_in
from tests.contract.posts import BEGIN, SECOND, STORIES, Story, Told

NAMES = list(STORIES)


def heard(posts: Iterable[Report]) -> History:
    """Take posts in, each under the lock of its row."""
    history = History("told", BEGIN + 1000 * SECOND)
    for post in posts:
        for report in list(take_in(post)(history)):
            history.add(report)
    return history


def as_told(history: History) -> Told:
    """Give what a story expects."""
    shown = history.shown()
    runs = [
        (
            run.attempt,
            str(run.status),
            None if run.finished_at is None else (run.finished_at - BEGIN) / SECOND,
        )
        for run in history.runs()
    ]
    return str(shown.status), shown.shown_attempt, runs


def rows(history: History) -> tuple[Row, list[Row]]:
    """Give all that would be stored."""
    items = [attempt_row("", item) for item in history.items.values()]
    return execution_row(history), sorted(items, key=lambda row: str(row["run_id"]))


@pytest.mark.no_cover
@pytest.mark.parametrize("name", NAMES)
def test_every_order_makes_the_same_record(name: str) -> None:
    """All permutations of a story, each post twice, end as a person expects, to the byte."""
    story, expected = STORIES[name]
    whole = rows(heard(story.posts))
    for order in permutations(story.posts):
        history = heard(order)

        assert expected == as_told(history)
        assert whole == rows(history)
        assert whole == rows(heard([*order, *reversed(order)]))


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Report], int, bool]:
    """Give the posts of a task with any number of attempts, how many, and whether it succeeds."""
    attempts, succeeds = draw(st.integers(1, 5)), draw(st.booleans())
    keeps_errors = draw(st.booleans())
    story, now = Story(), 0.0
    gap = st.integers(2, 3_000_000).map(lambda micros: micros / SECOND)
    for attempt in range(1, attempts + 1):
        is_last = attempt == attempts
        story.queued(now, attempt)
        start = now = now + draw(gap)
        story.started(start, attempt)
        now += draw(gap)
        error = None if succeeds else f"ValueError({attempt})"
        if not is_last:
            error = f"ValueError({attempt})" if keeps_errors else "NoResultError()"
        story.executed(now, now - start, result=attempt, error=error)
    return story.posts, attempts, succeeds


@given(stories(), st.integers(0, 2**32))
def test_any_history_with_retries(story: tuple[list[Report], int, bool], seed: int) -> None:
    """Shuffled, with posts that come again: every run has its own end, and the record is right."""
    posts, attempts, succeeds = story
    random = Random(seed)
    order = random.sample(posts, len(posts)) + random.choices(posts, k=5)
    history = heard(order)
    ends = {run.attempt: run.result for run in history.runs()}

    assert rows(heard(posts)) == rows(history)
    assert ("SUCCESS" if succeeds else "FAILURE", attempts) == as_told(history)[:2]
    assert {number: str(number) for number in range(1, attempts + 1)} == ends
    assert 0 == history.duplicates


@pytest.mark.parametrize("name", NAMES)
def test_our_own_word_is_not_spoiled(name: str) -> None:
    """Where a middleware of ours tells of the task, too, posts change nothing of what is shown."""
    story, _ = STORIES[name]
    for order in permutations([*story.posts[:4], None]):
        history = History("told", BEGIN + 1000 * SECOND)
        for post in order:
            for report in [OURS] if post is None else list(take_in(post)(history)):
                history.add(report)
        own = history.shown()

        assert ("SUCCESS", "f00d") == (str(own.status), own.run_id)
        assert ["f00d"] == [run.run_id for run in history.runs()]
        assert 0 == history.duplicates
        assert "ours.pay" == history.origin().task_name


def _ours() -> Report:
    from aiotrack.model import TaskStatus
    from aiotrack.report import Witness

    return Report(
        Origin("told", "ours.pay", "shop", BEGIN),
        Witness.ENDED,
        TaskStatus.SUCCESS,
        "f00d",
        started_at=BEGIN + SECOND,
        finished_at=BEGIN + 2 * SECOND,
        duration=1.0,
    )


OURS = _ours()
