"""The buffer and the group that is written: whatever fails, and in which order, nothing is lost."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from aiotrack.backlog import Key, Room
from aiotrack.culprits import Refused, Unanswered
from aiotrack.errors import StoreUnavailable
from aiotrack.groups import Groups
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness

FAULTS = [Unanswered("late"), Refused("no"), StoreUnavailable("away"), RuntimeError("ours")]


def told(task: int, run: int, witness: Witness) -> Report:
    """Give what one witness tells of a run."""
    origin = Origin(task_id=str(task), task_name="shop.rows", module="shop", created_at=1)
    return Report(origin, witness, TaskStatus.PENDING, run_id=str(run))


def greatest(known: dict[Key, Witness], reports: dict[Key, Report]) -> None:
    """Keep the greatest witness of each run."""
    for key, report in reports.items():
        known[key] = max(known.get(key, report.witness), report.witness)


holds = st.tuples(
    st.just("hold"), st.integers(0, 5), st.integers(0, 1), st.sampled_from(list(Witness))
)
takes = st.tuples(
    st.just("take"), st.one_of(st.none(), st.integers(1, 4)), st.sets(st.integers(0, 5))
)
writes = st.tuples(st.just("write"), st.one_of(st.none(), st.sampled_from(FAULTS)), st.booleans())
steps = st.lists(st.one_of(holds, takes, writes), max_size=60)


@given(steps)
def test_what_is_held_is_written_or_left(steps: list[tuple[object, ...]]) -> None:
    """Each run's last word is stored, being written or gathering, whatever fails in between."""
    groups, room = Groups(), Room(1000, Counter(), lambda _: ())
    heard: dict[Key, Witness] = {}
    stored: dict[Key, Witness] = {}
    for step in steps:
        match step:
            case ("hold", int(task), int(run), Witness() as witness):
                report = told(task, run, witness)
                key = groups.hold(report, room, is_calm=True)
                greatest(heard, {key: report})
            case ("take", count, set(apart)):
                names = {str(task) for task in apart}
                before = set(groups.writing)
                left_out = groups.take(count, names)  # type: ignore[arg-type]
                assert {key[0] for key in left_out} <= names
                assert not {key[0] for key in groups.writing.keys() - before} & names
            case ("write", None, _):
                group = groups.first()
                greatest(stored, group)
                groups.written(group)
            case ("write", Exception() as error, bool(is_given_back)):
                group = dict(groups.first())
                culprit = groups.divide(groups.first(), error)
                is_lone = isinstance(error, (Unanswered, Refused)) and len(group) == 1
                assert (culprit is not None) == is_lone
                if is_given_back:
                    groups.give_back()
    greatest(stored, groups.buffer)
    greatest(stored, groups.writing)
    assert heard == stored


def culprit_found(count: int, culprit: int) -> tuple[int, int]:
    """Write *count* reports of which one gets no answer; give the failures, and what is left."""
    groups, room = Groups(), Room(1000, Counter(), lambda _: ())
    for number in range(count):
        groups.hold(told(number, 0, Witness.ENDED), room, is_calm=True)
    apart: dict[str, float] = {}
    failures = 0
    groups.take(None, apart)
    while groups.writing:
        group = groups.first()
        if any(key[0] == str(culprit) for key in group):
            failures += 1
            found = groups.divide(group, FAULTS[0])
            if found is not None:
                apart[found.origin.task_id] = 0.0
            groups.give_back()
            groups.take(500, apart)
        else:
            groups.written(group)
    assert apart.keys() == {str(culprit)}
    return failures, len(groups)


@given(st.integers(1, 500), st.data())
def test_a_culprit_is_found_in_four_tries(count: int, data: st.DataObject) -> None:
    """Each of them takes seconds; all others are written meanwhile."""
    culprit = data.draw(st.integers(0, count - 1))
    failures, left = culprit_found(count, culprit)
    assert failures <= 4
    assert left == 1
