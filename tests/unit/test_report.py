"""The two rules that join reports, taken alone: total orders, and what each line of them says."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotrack.model import TaskStatus
from aiotrack.report import (
    BIRTH,
    RUN_FIELDS,
    UNTIMED,
    History,
    Origin,
    Rank,
    Report,
    Stamp,
    Witness,
    canonical,
    combine,
    guess_module,
    iter_metadata,
    merge_patches,
    rank,
)
from aiotrack.verdicts import presume

ORIGIN = Origin("id", "billing.invoices:send", "billing", 1_000)


def report(witness: Witness = Witness.STARTED, word: str = "STARTED", **facts: Any) -> Report:
    """Make a report of the run r1."""
    made = {"origin": ORIGIN, "witness": witness, "status": TaskStatus(word), "run_id": "r1"}
    return Report(**(made | facts))


def ended(word: str = "SUCCESS", **facts: Any) -> Report:
    """Make the report of the end of r1."""
    return report(Witness.ENDED, word, **({"started_at": 10, "finished_at": 20} | facts))


def born(**facts: Any) -> Report:
    """Make the report of a send."""
    return Report(replace(ORIGIN, **facts), Witness.SENT, TaskStatus.PENDING)


# ── properties ──────────────────────────────────────────────────────────────────────────────────
moments = st.none() | st.integers(0, 3)
texts = st.sampled_from(["0", "1", '"x"', '{"b":1}', '{"b":2}'])
stamps = st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1))
patches = st.none() | st.dictionaries(st.sampled_from("ab"), st.tuples(stamps, texts))
reports = st.builds(
    Report,
    origin=st.just(ORIGIN),
    witness=st.sampled_from(list(Witness)[1:]),
    status=st.sampled_from(TaskStatus),
    run_id=st.just("r1"),
    attempt=st.integers(1, 2),
    set_aside=st.booleans(),
    started_at=moments,
    finished_at=moments,
    result=st.none() | texts,
    error=st.sampled_from([None, "", "broke"]),
    patch=patches,
)


@given(reports, reports)
def test_combine_does_not_mind_who_comes_first(one: Report, two: Report) -> None:
    """Rule 1 commutes."""
    assert combine(one, two) == combine(two, one)


@given(reports, reports, reports)
def test_combine_does_not_mind_which_pair_meets_first(a: Report, b: Report, c: Report) -> None:
    """Rule 1 associates."""
    assert combine(combine(a, b), c) == combine(a, combine(b, c))


@given(reports, reports)
def test_combine_again_changes_nothing(one: Report, two: Report) -> None:
    """Rule 1 is idempotent, also with what went into the result before."""
    both = combine(one, two)

    assert one == combine(one, one)
    assert both == combine(both, one)
    assert both == combine(both, two)


@given(patches, patches, patches)
def test_patches_merge_in_any_order(a: Any, b: Any, c: Any) -> None:
    """Metadata commutes, associates and repeats without harm."""
    assert merge_patches(a, b) == merge_patches(b, a)
    assert merge_patches(merge_patches(a, b), c) == merge_patches(a, merge_patches(b, c))
    assert (a or {}) == merge_patches(a, a)


@given(st.lists(reports, max_size=5), st.randoms(use_true_random=False))
def test_the_greatest_rank_does_not_depend_on_the_order(items: list[Report], random: Any) -> None:
    """Rule 2 is the maximum of a total order: different runs never share a rank."""
    items = [replace(item, run_id=f"r{number}") for number, item in enumerate(items)]
    other = random.sample(items, len(items))

    assert len(items) == len({rank(item) for item in items})
    assert sorted(items, key=rank) == sorted(other, key=rank)


@given(reports)
def test_no_part_of_a_rank_is_missing(item: Report) -> None:
    """A None would make a comparison unknown, and the run would never be overtaken."""
    assert [int, int, int, int, str] == [type(part) for part in rank(item)]


# ── rule 1 ──────────────────────────────────────────────────────────────────────────────────────
def test_the_better_witness_replaces_a_run_whole() -> None:
    """Nothing of the lesser report stays, but its metadata."""
    stamp: Stamp = (1, 10, 15)
    lesser = report(worker="w1", error="?", patch={"percent": (stamp, "50")})
    better = ended(worker=None)

    assert replace(better, patch={"percent": (stamp, "50")}) == combine(lesser, better)


def test_witnesses_grow_from_the_start_to_the_end() -> None:
    """STARTED < PRESUMED < HANDED_BACK < RELAYED < ENDED."""
    told = [
        report(),
        report(Witness.PRESUMED, "FAILURE"),
        report(Witness.HANDED_BACK, "RETRY"),
        report(Witness.RELAYED, "FAILURE"),
        ended("FAILURE"),
    ]

    for lesser, better in pairwise(told):
        assert better == combine(lesser, better)


def test_a_tie_goes_by_what_a_value_says_and_not_by_how_it_is_written() -> None:
    """A database that spaces and orders JSON anew must not look like another report."""
    ours = ended(result='{"long":1,"b":[1,2]}')
    theirs = ended(result='{"b": [1, 2], "long": 1}')

    assert canonical(ours) == canonical(theirs)
    assert combine(ours, theirs).result == ours.result
    assert combine(theirs, ours).result == theirs.result


def test_every_field_of_a_run_settles_ties() -> None:
    """A field that the text left out would let two reports differ and be equal."""
    apart = {"origin", "patch", "corrects"}  # none of them is told of a run
    names = {name for name in Report.__slots__ if name not in apart}

    assert names == set(RUN_FIELDS)
    assert len(RUN_FIELDS) == len(json.loads(canonical(ended())))


# ── rule 2 ──────────────────────────────────────────────────────────────────────────────────────
STEPS = [
    report(set_aside=True, started_at=99),
    born(),
    report(Witness.HANDED_BACK, "PENDING", started_at=10),
    report(Witness.HANDED_BACK, "PENDING", started_at=11),
    report(Witness.PRESUMED, "FAILURE", run_id="!presumed:1", finished_at=12),
    report(Witness.HANDED_BACK, "PENDING", started_at=10, finished_at=13),
    report(Witness.PRESUMED, "FAILURE", started_at=10),
    ended("FAILURE", run_id="!cancel", started_at=None),
    ended("FAILURE"),
    report(started_at=10),
    report(started_at=10, run_id="r2"),
    report(Witness.HANDED_BACK, "RETRY", started_at=1),
    report(attempt=2, started_at=1),
    ended(finished_at=30, attempt=3),
    ended(finished_at=30, attempt=1),
    ended(finished_at=20, attempt=3),
]


@pytest.mark.parametrize(("lesser", "greater"), list(pairwise(STEPS)))
def test_each_step_of_the_order_passes_the_one_before(lesser: Report, greater: Report) -> None:
    """Success, then attempt, phase, start (of what waits: since when) and run_id."""
    assert rank(lesser) < rank(greater)


def test_what_was_set_aside_is_no_success() -> None:
    """A copy that was refused ran no body, whatever it gave back."""
    expected: Rank = (0, 1, 0, 10, "r1")

    assert expected == rank(ended(set_aside=True))


def test_an_item_without_a_start_counts_as_the_earliest() -> None:
    """A send is passed by every run of its attempt."""
    assert UNTIMED == rank(born())[3]


def test_a_retry_waits_for_the_next_attempt() -> None:
    """RETRY after attempt 2 shows attempt 3."""
    assert 3 == report(Witness.HANDED_BACK, "RETRY", attempt=2).shown_attempt
    assert 2 == report(attempt=2).shown_attempt


@pytest.mark.parametrize(("run_id", "is_run"), [("", False), ("!cancel", False), ("r1", True)])
def test_sends_and_verdicts_on_queued_work_are_no_runs(run_id: str, is_run: bool) -> None:
    """A run_id that starts with ! is an item without a run."""
    assert is_run is report(run_id=run_id).is_run


# ── histories ───────────────────────────────────────────────────────────────────────────────────
def test_every_history_implies_its_send() -> None:
    """Who hears only of a copy that was set aside, knows that the task waits."""
    shown = History.of([report(set_aside=True)]).shown()

    assert (Witness.SENT, TaskStatus.PENDING, 1, "") == (
        shown.witness,
        shown.status,
        shown.attempt,
        shown.run_id,
    )


def test_a_cancel_of_queued_work_yields_to_a_worker_that_has_it() -> None:
    """The cancel shows until somebody says that it runs after all."""
    cancel = ended("REVOKED", run_id="!cancel", started_at=None)

    assert TaskStatus.REVOKED == History.of([born(), cancel]).shown().status
    assert TaskStatus.STARTED == History.of([born(), cancel, report()]).shown().status


def test_a_verdict_on_what_waits_passes_what_its_judge_saw() -> None:
    """Also where the worker that handed it back has a clock that is ahead of the judge's."""
    history = History.of([report(Witness.HANDED_BACK, "PENDING", started_at=10, finished_at=20)])
    verdict = presume(history, now=15, error="presumed: too late", error_class="timeout")
    assert verdict is not None
    history.add(verdict)

    assert (TaskStatus.FAILURE, 21) == (history.shown().status, history.shown().finished_at)


def test_runs_are_in_the_order_in_which_they_began() -> None:
    """The list of attempts reads like the story."""
    told = [report(run_id="b", started_at=2), report(run_id="a", started_at=3), born()]
    cancel = ended("REVOKED", run_id="!cancel")

    assert ["b", "a"] == [run.run_id for run in History.of([*told, cancel]).runs()]


def test_duplicates_are_bodies_that_ran_again_for_nothing() -> None:
    """Neither a retry, nor a requeue, nor a copy that was set aside is a duplicate."""
    told = [
        report(run_id="a"),
        report(run_id="b", attempt=2),
        report(run_id="c", requeues=1),
        report(run_id="d", set_aside=True),
    ]

    assert 0 == History.of(told).duplicates
    assert 1 == History.of([*told, report(run_id="e")]).duplicates


def test_the_better_source_tells_a_birth_fact() -> None:
    """A registration over a run over a send; what nobody told stays open."""
    run = report(origin=replace(ORIGIN, queue="run", created_by="run"))
    registered = born(created_by="42", registered=True)
    history = History.of([born(queue="send", priority=1), registered, run])

    assert ("42", "run", 1, None) == (
        history.fact("created_by"),
        history.fact("queue"),
        history.fact("priority"),
        history.fact("trace_id"),
    )


def test_a_guessed_module_yields_to_any_other() -> None:
    """A worker that only guesses does not take away the module that the client chose."""
    history = History.of([born(module="sales"), report()])

    assert "sales" == history.origin().module


def test_of_two_messages_the_earlier_tells() -> None:
    """Equal sources go by the age of the message; created_at is the least seen."""
    history = History.of([born(created_at=2_000, queue="b"), born(created_at=1_500, queue="a")])

    assert ("a", 1_500) == (history.fact("queue"), history.origin().created_at)


def test_arguments_travel_together() -> None:
    """Args of one message never stand beside kwargs of another."""
    sent = born(args="[1]", kwargs='{"a":1}', exact=False)
    run = report(origin=replace(ORIGIN, args="[2]"))
    told = History.of([sent, run]).origin()

    assert ("[2]", "{}", True) == (told.args, told.kwargs, told.exact)


def test_registering_without_arguments_keeps_those_of_the_task() -> None:
    """``register(task_id, name, created_by=…)`` after ``kiq()`` says nothing about arguments."""
    said = born(registered=True, created_by="42")
    for told in ([born(args="[1]"), said], [said, born(args="[1]")]):
        assert "[1]" == History.of(told).origin().args

    assert "[2]" == History.of([born(args="[1]"), born(args="[2]", registered=True)]).origin().args


def test_metadata_is_merged_key_by_key() -> None:
    """A later attempt over an earlier one, over the registration, over the message."""
    stamp: Stamp = (1, 10, 5)
    told = [
        report(patch={"a": (stamp, "4")}),
        born(metadata='{"a":3,"b":3}', registered=True),
        born(metadata='{"a":2,"b":2,"c":2}'),
    ]
    history = History.of(told)

    assert {"a": 4, "b": 3, "c": 2} == dict(iter_metadata(history.patch))
    assert BIRTH == history.patch["c"][0]


def test_a_later_attempt_restarts_progress() -> None:
    """Progress of attempt 2 stands over that of attempt 1, however late that one is heard of."""
    one: tuple[Stamp, str] = ((1, 10, 900), "99")
    two: tuple[Stamp, str] = ((2, 20, 21), "1")

    assert {"percent": two} == merge_patches({"percent": two}, {"percent": one})


@pytest.mark.parametrize(
    ("name", "module"),
    [("billing.invoices:send", "billing"), ("a:b.c", "a"), ("plain", "plain"), (":x", ":x")],
)
def test_a_name_suggests_a_module(name: str, module: str) -> None:
    """The first part of a task's name is the module that it suggests."""
    assert module == guess_module(name)
