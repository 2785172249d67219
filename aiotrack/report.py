"""Reports and the two rules that join them. Arrival order never matters. Standard library only.

Rule 1, a run (one delivery, its own run_id): of two reports with the same run_id the greater
witness wins, whole. Rule 2, the execution shows its greatest item, by `rank`. Both are ``max`` over
a total order: they commute, associate and repeat without harm. `History` applies them everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Protocol

from aiotrack.clock import UNSETTLED
from aiotrack.hearsay import is_hearsay, is_outdone
from aiotrack.model import TaskStatus

Micros = int
"""A time as microseconds since 1970 UTC on the database's clock: exact, and cheap to compare."""

Stamp = tuple[int, int, int]
"""When a metadata key was written: attempt, start of the run, moment. Greater wins."""

BIRTH: Stamp = (0, 0, 0)
"""The stamp of metadata that came with the message."""

UNTIMED: Micros = 0
"""The start of an item without a run: lower than any real one, so that a run always passes it."""


class Witness(IntEnum):
    """How much the reporter saw of a run; the greater replaces the lesser."""

    SENT = 0
    STARTED = 1
    PRESUMED = 2
    HANDED_BACK = 3
    RELAYED = 4
    ENDED = 5


class Source(IntEnum):
    """Who told a birth fact; the greater replaces the lesser."""

    GUESS = 0
    SENT = 1
    RUN = 2
    REGISTER = 3


def guess_module(task_name: str) -> str:
    """Give the business scope that a task's name suggests: its first part."""
    for position, letter in enumerate(task_name):
        if letter in ".:":
            return task_name[:position] or task_name
    return task_name


@dataclass(slots=True)
class Origin:
    """What a task was born with: the same in every report about one message."""

    task_id: str
    task_name: str
    module: str
    created_at: Micros
    created_by: str | None = None
    queue: str | None = None
    priority: int | None = None
    parent_task_id: str | None = None
    schedule_id: str | None = None
    config_id: int | None = None
    rerun_of: str | None = None
    trace_id: str | None = None
    time_limit: float | None = None
    args: str = "[]"
    kwargs: str = "{}"
    exact: bool = True
    metadata: str = "{}"
    registered: bool = False
    echoes: bool = False
    """Read from the record itself: it tells no facts, or it would tell them as its own."""


SINGLE_FACTS = (
    "task_name",
    "module",
    "created_by",
    "queue",
    "priority",
    "parent_task_id",
    "schedule_id",
    "config_id",
    "rerun_of",
    "trace_id",
    "time_limit",
)
"""Birth facts that are merged one by one; arguments go together, as the fact ``args``."""


@dataclass(slots=True)
class Report:
    """One observation about a task, complete in itself.

    ``run_id`` is empty for an item without a run: a send; it starts with ``!`` for other such items
    (a cancel of queued work). ``result`` and the values of ``patch`` are JSON text.
    """

    origin: Origin
    witness: Witness
    status: TaskStatus
    run_id: str = ""
    attempt: int = 1
    requeues: int = 0
    set_aside: bool = False
    worker: str | None = None
    started_at: Micros | None = None
    finished_at: Micros | None = None
    duration: float | None = None
    result: str | None = None
    error: str | None = None
    error_type: str | None = None
    error_class: str | None = None
    traceback: str | None = None
    cancel_reason: str | None = None
    cancelled_by: str | None = None
    patch: dict[str, tuple[Stamp, str]] | None = None
    corrects: bool = False
    """It takes the place of what is known of its run: only for changes under the row's lock."""

    @property
    def is_run(self) -> bool:
        """Whether a worker (or the user's own code) ran something."""
        return self.run_id != "" and not self.run_id.startswith("!")

    @property
    def shown_attempt(self) -> int:
        """The attempt that the execution shows: after a retry the one it waits for."""
        return self.attempt + 1 if self.status is TaskStatus.RETRY else self.attempt


class Beginning(Protocol):
    """A run whose start may have to be reported."""

    run_id: str
    is_told: bool
    """Whether any report of it was made."""

    def started(self) -> Report:
        """Report its start."""


RUN_FIELDS = (
    *("run_id", "witness", "status", "attempt", "requeues", "set_aside", "worker"),
    *("started_at", "finished_at", "duration", "result"),
    *("error", "error_type", "error_class", "traceback", "cancel_reason", "cancelled_by"),
)
"""The fields of a report that belong to its run; the rest is origin and patch."""

_WAITING = 1
_PHASE = {
    Witness.SENT: _WAITING,
    Witness.HANDED_BACK: _WAITING,
    Witness.PRESUMED: 2,
    Witness.RELAYED: 3,
    Witness.ENDED: 3,
    Witness.STARTED: 4,
}

Rank = tuple[int, int, int, int, str]


def rank(report: Report) -> Rank:
    """Give rule 2's key: the execution shows the item with the greatest one.

    A success passes everything, and of two successes the one that ended earlier stays. Otherwise
    the later attempt, then the phase (set aside 0 < waiting 1 < presumed 2 < ended 3 < running 4),
    then the later start. Of what waits it is the later moment since when it does: a verdict on it
    is an item of that phase, so whoever hands it back later passes the verdict. No part is ever
    None: a None would make a comparison in SQL unknown.
    """
    started = report.started_at or UNTIMED
    if report.status is TaskStatus.SUCCESS and not report.set_aside:
        return (1, -(report.finished_at or 0), -report.attempt, -started, report.run_id)
    phase = 0 if report.set_aside else _PHASE[report.witness]
    if report.witness is Witness.PRESUMED and not report.is_run:
        phase = _WAITING
    since = report.finished_at or started if phase == _WAITING else started
    return (0, report.shown_attempt, phase, since, report.run_id)


def canonical(report: Report) -> str:
    """Give the text that settles a tie between two reports of equal witness."""
    said = {name: getattr(report, name) for name in RUN_FIELDS}
    if report.result is not None:
        said["result"] = json.loads(report.result)
    if report.duration is not None:
        said["duration"] = float(report.duration)  # as it comes back from a database
    return json.dumps(list(said.values()), sort_keys=True)


def normal(text: str) -> str:
    """Give JSON text in the one form that can be compared: databases space and order it anew."""
    return json.dumps(json.loads(text), sort_keys=True)


def combine(one: Report, two: Report) -> Report:
    """Join two reports of the same run (rule 1): the greater witness, with both patches."""
    if one.witness != two.witness:
        winner = one if one.witness > two.witness else two
    else:
        winner = one if canonical(one) >= canonical(two) else two
    if one.patch is None and two.patch is None:
        return winner
    patch = merge_patches(one.patch, two.patch)
    return winner if winner.patch == patch else replace(winner, patch=patch)


def merge_patches(
    one: dict[str, tuple[Stamp, str]] | None, two: dict[str, tuple[Stamp, str]] | None
) -> dict[str, tuple[Stamp, str]]:
    """Merge metadata key by key; the greater stamp wins, equal stamps go by the text."""
    merged = dict(one or {})
    for key, entry in (two or {}).items():
        known = merged.get(key)
        if (
            known is None
            or entry[0] > known[0]
            or (
                entry[0] == known[0]
                and entry[1] != known[1]
                and normal(entry[1]) > normal(known[1])
            )
        ):
            merged[key] = entry
    return merged


FactStamp = tuple[int, int]
"""Who told a birth fact and when its message was made (negated: the earlier message wins)."""


@dataclass(slots=True)
class History:
    """All that is known of one task: birth facts, metadata, and its items by run_id.

    ``facts`` maps a birth fact to (stamp, value); ``patch`` a metadata key to (stamp, JSON text).
    """

    task_id: str
    created_at: Micros
    facts: dict[str, tuple[FactStamp, Any]] = field(default_factory=dict)
    patch: dict[str, tuple[Stamp, str]] = field(default_factory=dict)
    items: dict[str, Report] = field(default_factory=dict)

    @classmethod
    def of(cls, reports: Iterable[Report]) -> History:
        """Build the history that some reports of one task tell, in any order."""
        every = list(reports)
        history = cls(every[0].origin.task_id, every[0].origin.created_at)
        for report in every:
            history.add(report)
        return history

    def add(self, report: Report) -> None:
        """Take one report in."""
        if not report.origin.echoes:
            self._add_origin(report)
        if report.patch:
            self.patch = merge_patches(self.patch, report.patch)
        if report.run_id:
            known = self.items.get(report.run_id)
            bare = replace(report, patch=None) if report.patch else report
            if known is not None and not report.corrects:
                bare = combine(known, bare)
            self.items[report.run_id] = bare

    def _add_origin(self, report: Report) -> None:
        origin = report.origin
        self.created_at = min(self.created_at, origin.created_at)
        is_run = report.is_run
        source = Source.REGISTER if origin.registered else Source.RUN if is_run else Source.SENT
        if is_hearsay(report.run_id):
            source = Source.GUESS
        for name in SINGLE_FACTS:
            value = getattr(origin, name)
            if value or (value is not None and name not in SINGLE_FACTS[:2]):  # no name: not told
                told = source
                if name == "module" and value == guess_module(origin.task_name):
                    told = Source.GUESS
                self._add_fact(name, (told, -origin.created_at), value)
        if origin.registered and (origin.args, origin.kwargs) == ("[]", "{}"):
            source = Source.GUESS  # who registers only to say who made it, tells no arguments
        if report.run_id not in self.items and origin.task_name:  # comparing JSON takes long
            self._add_fact(
                "args", (source, -origin.created_at), [origin.args, origin.kwargs, origin.exact]
            )
        if origin.metadata != "{}":
            stamp = (0, 0, 1) if origin.registered else BIRTH
            told_now = {
                key: (stamp, json.dumps(value, separators=(",", ":")))
                for key, value in json.loads(origin.metadata).items()
            }
            self.patch = merge_patches(self.patch, told_now)

    def _add_fact(self, name: str, stamp: FactStamp, value: Any) -> None:
        known = self.facts.get(name)
        if (
            known is None
            or stamp > known[0]
            or (stamp == known[0] and value != known[1] and _text(value) > _text(known[1]))
        ):
            self.facts[name] = (stamp, value)

    def fact(self, name: str) -> Any:
        """Give a birth fact's value, None when nobody told it."""
        known = self.facts.get(name)
        return None if known is None else known[1]

    def origin(self) -> Origin:
        """Give the merged birth facts; metadata is apart, in ``patch``."""
        args, kwargs, exact = self.fact("args") or ("[]", "{}", True)
        single = {name: self.fact(name) for name in SINGLE_FACTS}
        single["task_name"] = single["task_name"] or ""
        single["module"] = single["module"] or ""
        return Origin(
            task_id=self.task_id,
            created_at=self.created_at,
            args=args,
            kwargs=kwargs,
            exact=exact,
            **single,
        )

    def shown(self) -> Report:
        """Give the item that the execution shows (rule 2). Every history implies its send."""
        origin = self.origin()
        sent = Report(origin, Witness.SENT, TaskStatus.PENDING)
        best = max((sent, *self._counted()), key=rank)
        return replace(best, origin=origin)

    def _counted(self) -> list[Report]:
        is_less = is_outdone(self.items.keys())
        return [one for one in self.items.values() if not (is_less and is_hearsay(one.run_id))]

    def runs(self) -> list[Report]:
        """Give the runs in the order in which they began."""
        found = [item for item in self._counted() if item.is_run]
        return sorted(found, key=lambda run: (run.started_at or UNTIMED, run.attempt, run.run_id))

    @property
    def duplicates(self) -> int:
        """How many runs did what another run of the same message did, too."""
        bodies = [run for run in self.runs() if not run.set_aside]
        return len(bodies) - len({(run.attempt, run.requeues) for run in bodies})


def _text(fact: Any) -> str:
    """Give the text that settles a tie between two values of a birth fact."""
    if isinstance(fact, list):
        fact = [json.loads(fact[0]), json.loads(fact[1]), fact[2]]
    return json.dumps(fact, sort_keys=True)


def is_unsettled(report: Report) -> bool:
    """Whether times of a report were taken before the database's clock was known."""
    return report.origin.created_at >= UNSETTLED or (report.started_at or 0) >= UNSETTLED


def settled(report: Report, settle: Callable[[Micros], Micros]) -> Report:
    """Give a report with its times put right by *settle*, in the order in which they happened."""
    created = settle(report.origin.created_at)
    started = finished = None
    if report.started_at is not None:
        started = max(created, settle(report.started_at))
    if report.finished_at is not None:
        ran = int((report.duration or 0.0) * 1_000_000)
        finished = max((started or created) + ran, settle(report.finished_at))
    patch = report.patch and {
        key: ((attempt, settle(start), settle(moment)), text)
        for key, ((attempt, start, moment), text) in report.patch.items()
    }
    origin = replace(report.origin, created_at=created)
    return replace(report, origin=origin, started_at=started, finished_at=finished, patch=patch)


def iter_metadata(patch: dict[str, tuple[Stamp, str]]) -> Iterator[tuple[str, Any]]:
    """Give metadata's keys and decoded values."""
    for key, (_, text) in patch.items():
        yield key, json.loads(text)
