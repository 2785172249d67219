"""What a record must say, worked out the slow way from the rules alone.

`expected` takes all reports of one task that were seen, in any order, some of them twice, and looks
for the one that beats every other, pair by pair. Nothing here is taken from `aiotrack.report` but
the words of a report: where the two disagree, one of them is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness

T = TypeVar("T")

ALONE = (
    *("task_name", "module", "created_by", "queue", "priority", "parent_task_id"),
    *("schedule_id", "config_id", "rerun_of", "trace_id", "time_limit"),
)
"""Birth facts that are told one by one."""

OF_A_RUN = (
    *("run_id", "witness", "status", "attempt", "requeues", "set_aside", "worker"),
    *("started_at", "finished_at", "duration", "result", "error", "error_type", "error_class"),
    *("traceback", "cancel_reason", "cancelled_by"),
)
"""What a report says of its run, in the order in which a tie reads it."""

Row = dict[str, Any]


@dataclass
class Record:
    """A row of the executions with JSON decoded, and its runs and items by run_id."""

    execution: Row
    items: dict[str, Row]


def expected(reports: Sequence[Report]) -> Record:
    """Work out the record of one task from all of its *reports* that were seen."""
    items = [
        the_one([report for report in reports if report.run_id == run_id], tells_more)
        for run_id in sorted({report.run_id for report in reports if report.run_id})
    ]
    sent = Report(reports[0].origin, Witness.SENT, TaskStatus.PENDING)
    shown = the_one([sent, *items], is_shown_before)
    return Record(
        execution={
            **birth(reports),
            "metadata": metadata(reports),
            **as_shown(shown),
            "runs": len([item for item in items if has_run(item)]),
            "duplicates": duplicates(items),
        },
        items={item.run_id: as_row(item) for item in items},
    )


def the_one(candidates: Sequence[T], beats: Callable[[T, T], bool]) -> T:
    """Find the candidate that no other beats."""
    for candidate in candidates:
        if not any(beats(other, candidate) for other in candidates if other is not candidate):
            return candidate
    raise AssertionError("they beat each other in a circle")


# ── rule 1: a run is what its best witness says ─────────────────────────────────────────────────
def tells_more(one: Report, two: Report) -> bool:
    """Whether *one* replaces *two*, a report of the same run."""
    if one.witness != two.witness:
        return one.witness > two.witness
    return text_of(one) > text_of(two)


def text_of(report: Report) -> str:
    """The text that settles a tie: all that is said of the run."""
    row = as_row(report)
    return json.dumps([row[name] for name in OF_A_RUN], sort_keys=True)


# ── rule 2: the execution shows its greatest item ───────────────────────────────────────────────
def is_shown_before(one: Report, two: Report) -> bool:
    """Whether the execution shows *one* when it also has *two*."""
    if has_succeeded(one) != has_succeeded(two):
        return has_succeeded(one)
    if has_succeeded(one):
        return ended_earlier(one, two)
    if attempt_shown(one) != attempt_shown(two):
        return attempt_shown(one) > attempt_shown(two)
    if phase(one) != phase(two):
        return phase(one) > phase(two)
    if phase(one) == WAITING and waits_since(one) != waits_since(two):
        return waits_since(one) > waits_since(two)
    return one.run_id > two.run_id if phase(one) == WAITING else began_later(one, two)


def has_succeeded(item: Report) -> bool:
    """Whether its body ran and came to a good end; what was set aside ran no body."""
    return item.status == "SUCCESS" and not item.set_aside


def ended_earlier(one: Report, two: Report) -> bool:
    """Of two successes the earlier stays; at the same moment the earlier attempt, then start."""
    for a, b in (
        (one.finished_at or 0, two.finished_at or 0),
        (one.attempt, two.attempt),
        (one.started_at or 0, two.started_at or 0),
    ):
        if a != b:
            return a < b
    return one.run_id > two.run_id


def began_later(one: Report, two: Report) -> bool:
    """Whether *one* started later; what never started comes before all that did."""
    if one.started_at != two.started_at:
        return (one.started_at or 0) > (two.started_at or 0)
    return one.run_id > two.run_id


def attempt_shown(item: Report) -> int:
    """After a retry the execution waits for the next attempt."""
    return item.attempt + (1 if item.status == "RETRY" else 0)


WAITING = 1


def waits_since(item: Report) -> int:
    """When the work was given back to the queue, or was given up there; a send is before all."""
    if item.finished_at is not None:
        return item.finished_at
    return item.started_at or 0


def phase(item: Report) -> int:
    """How far it came: set aside, waiting, presumed, ended, running.

    Who gives up what waits in the queue tells of no run: the work has come no further than there.
    """
    if item.set_aside:
        return 0
    match item.witness:
        case Witness.SENT | Witness.HANDED_BACK:
            return WAITING
        case Witness.PRESUMED:
            return 2 if has_run(item) else WAITING
        case Witness.RELAYED | Witness.ENDED:
            return 3
        case Witness.STARTED:
            return 4


def as_shown(item: Report) -> Row:
    """The execution's side of the item that it shows."""
    row = {name: value for name, value in as_row(item).items() if name not in ATTEMPTS_ONLY}
    row["attempt"] = attempt_shown(item)
    row["presumed"] = item.witness == Witness.PRESUMED
    if item.status == "PENDING":  # it waits again: nobody runs it
        row["worker"] = row["started_at"] = None
    if item.status not in ("SUCCESS", "FAILURE", "REVOKED"):
        row["finished_at"] = row["duration"] = None
    return row


ATTEMPTS_ONLY = ("requeues", "set_aside")


def as_row(item: Report) -> Row:
    """What is known of a run, with its result decoded."""
    row = {name: getattr(item, name) for name in OF_A_RUN}
    row["witness"] = int(item.witness)
    row["status"] = str(item.status)
    row["result"] = None if item.result is None else decoded(item.result)
    row["duration"] = None if item.duration is None else float(item.duration)
    return row


def has_run(item: Report) -> bool:
    """Whether something ran, other than a verdict on queued work."""
    return item.run_id[:1] not in ("", "!")


def duplicates(items: Iterable[Report]) -> int:
    """Count the bodies that did again what another body of the same attempt and requeue did."""
    seen: list[tuple[int, int]] = []
    again = 0
    for item in items:
        if has_run(item) and not item.set_aside:
            again += (item.attempt, item.requeues) in seen
            seen.append((item.attempt, item.requeues))
    return again


# ── birth facts: the best source, the earliest message ──────────────────────────────────────────
GUESS, SENT, RUN, REGISTER = range(4)


@dataclass
class Told:
    """Somebody told a birth fact, or a metadata key."""

    by: tuple[int, ...]
    """Source and age of the message, or the stamp of a metadata key: greater wins."""
    value: Any

    def beats(self, other: Told) -> bool:
        """Whether this one stays; a tie goes by the text."""
        if self.by != other.by:
            return self.by > other.by
        return json.dumps(self.value, sort_keys=True) > json.dumps(other.value, sort_keys=True)


def birth(reports: Sequence[Report]) -> Row:
    """Work out what the task was born with."""
    row: Row = {
        "task_id": reports[0].origin.task_id,
        "created_at": min(report.origin.created_at for report in reports),
    }
    for name in ALONE:
        told = [
            Told((source_of(name, report), -report.origin.created_at), value)
            for report in reports
            if (value := getattr(report.origin, name)) is not None
        ]
        row[name] = the_one(told, Told.beats).value if told else None
    told = [
        Told((source_of("args", report), -report.origin.created_at), arguments(report.origin))
        for report in reports
    ]
    row["args"], row["kwargs"], row["exact"] = the_one(told, Told.beats).value
    return row


def source_of(name: str, report: Report) -> int:
    """Who told a fact; what is only a default counts as a guess."""
    origin = report.origin
    if name == "module" and origin.module == first_part(origin.task_name):
        return GUESS
    if origin.registered:
        # Whoever registers to say who made a task, says nothing about its arguments.
        return (
            GUESS if name == "args" and (origin.args, origin.kwargs) == ("[]", "{}") else REGISTER
        )
    return RUN if has_run(report) else SENT


def first_part(task_name: str) -> str:
    """The module that a task's name suggests; of ``.x`` and ``:x`` the whole."""
    return task_name.replace(":", ".").split(".")[0] or task_name


def arguments(origin: Origin) -> list[Any]:
    """Arguments are one fact: half of one message's would go with half of another's."""
    return [decoded(origin.args), decoded(origin.kwargs), origin.exact]


# ── metadata: the greatest stamp of each key ────────────────────────────────────────────────────
def metadata(reports: Sequence[Report]) -> Row:
    """Work out the metadata: (attempt, start of the run, moment) of each key, the greatest wins."""
    told: dict[str, list[Told]] = {}
    for report in reports:
        stamp = (0, 0, 1) if report.origin.registered else (0, 0, 0)
        for key, value in decoded(report.origin.metadata).items():
            told.setdefault(key, []).append(Told(stamp, value))
        for key, (written, text) in (report.patch or {}).items():
            told.setdefault(key, []).append(Told(written, decoded(text)))
    return {key: the_one(entries, Told.beats).value for key, entries in told.items()}


@lru_cache(maxsize=10_000)
def decoded(text: str) -> Any:
    """Read JSON."""
    return json.loads(text)
