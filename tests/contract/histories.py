"""Histories as brokers and workers make them, and the disorder in which a tracker hears of them.

`Truth` plays what may happen to one task: messages are delivered once or more often, runs end in
every way or not at all, sweeps and people pass verdicts. It draws from a `random.Random`, which
Hypothesis gives: shrinkable for one history, fast for many.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import strategies as st

from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Stamp, Witness
from tests.contract.oracle import expected

NOON = 1_763_000_000_000_000
"""Microseconds: some moment of these years, so that databases meet real times."""

VALUES = (
    *(None, True, 0, 7, -1, 1.5, 0.1 + 0.2, "", "7", "true", "Grüße, 世界 \U0001f600", 'a "b"\n\\'),
    *([], {}, [1, [2, None]], {"long": 1, "b": 2, "a": {"zz": [1.25], "y": "n"}}),
    *({"b": 1, "aa": 2}, {"aa": 3, "b": 0}, 9_007_199_254_740_991),
)
NAMES = ("billing.invoices:send", "billing.invoices", "reindex", ":odd")
KEYS = ("order_id", "progress_percent", "progress_message", "tags")


@dataclass
class Message:
    """A message as it was sent, and as its workers receive it."""

    sent: Origin
    received: Origin


class Truth:
    """What happens to one task; ``reports`` is what honest observers say of it."""

    def __init__(self, random: Random, task_id: str) -> None:
        self.random = random
        self.task_id = task_id
        self.now = NOON + random.randrange(10_000)
        self.reports: list[Report] = []
        self.count = 0

    def happen(self) -> list[Report]:
        """Play one history."""
        if self.chance(0.15):
            self.register()
        for _ in range(2 if self.chance(0.15) else 1):
            self.send_and_run()
        for event, often in (
            (self.register, 0.15),
            (self.cancel_queued, 0.1),
            (self.presume_lost, 0.1),
            (self.work_by_hand, 0.1),
            (self.presume_failed, 0.25),
            (self.presume_failed, 0.1),
            (self.cancel_queued, 0.05),
        ):
            if self.reports and self.chance(often):
                event()
        if not self.reports:
            self.register()
        return self.reports

    # ── what people and clients do ──────────────────────────────────────────────────────────────
    def send_and_run(self) -> None:
        """Send a message and deliver it; the report of the send may be lost."""
        self.now += 1  # no two messages are made in the same microsecond
        sent = self.origin(self.passing())
        received = replace(sent, args=self.json([self.value()]), exact=self.chance(0.8))
        if self.chance(0.3):  # a middleware changed labels, or only the worker names a module
            other = self.origin(sent.created_at)
            names = ("module", "created_by", "queue", "metadata")
            received = replace(received, **{name: getattr(other, name) for name in names})
        message = Message(sent, received if self.chance(0.3) else sent)
        if self.chance(0.8):
            self.tell(Report(sent, Witness.SENT, TaskStatus.PENDING))
        if self.chance(0.9):
            self.deliver(message.received, attempt=1, requeues=0)

    def register(self) -> None:
        """Register the task: to say who made it, or instead of a broker."""
        when = self.reports[0].origin.created_at if self.reports else self.passing()
        origin = replace(self.origin(when), registered=True)
        if self.chance(0.5):
            origin = replace(origin, args="[]", kwargs="{}", exact=True)
        self.tell(Report(origin, Witness.SENT, TaskStatus.PENDING))

    def work_by_hand(self) -> None:
        """Let ``update()`` make a run where there was none, and maybe end it."""
        origin, attempt = self.someones(), self.attempt_shown()
        run = Report(
            origin,
            Witness.STARTED,
            TaskStatus.STARTED,
            run_id=f"manual:{attempt}",
            attempt=attempt,
            started_at=self.passing(),
        )
        self.tell(run)
        if self.chance(0.6):
            status = self.random.choice([TaskStatus.SUCCESS, TaskStatus.FAILURE])
            ending = self.end(status) | {"duration": None}
            self.tell(replace(run, **ending, patch=self.patch(run) if self.chance(0.5) else None))

    def cancel_queued(self) -> None:
        """Cancel before a worker has it."""
        self.tell(
            Report(
                self.someones(),
                Witness.ENDED,
                TaskStatus.REVOKED,
                run_id="!cancel",
                attempt=self.attempt_shown(),
                finished_at=self.passing(),
                cancel_reason=self.text(),
                cancelled_by=self.text(),
            )
        )

    # ── what sweeps say ─────────────────────────────────────────────────────────────────────────
    def presume_lost(self) -> None:
        """Give queued work up."""
        self.tell(
            Report(
                self.someones(),
                Witness.PRESUMED,
                TaskStatus.FAILURE,
                run_id="!lost",
                attempt=self.attempt_shown(),
                finished_at=self.passing(),
                error="nobody took it",
                error_type="Lost",
            )
        )

    def presume_failed(self) -> None:
        """Copy the run that the row shows, and call it failed."""
        known = self.reports[: self.random.randrange(len(self.reports)) + 1]
        shown = expected(known).execution["run_id"]
        for run in known:
            if run.run_id == shown and run.is_run:
                ending = self.end(TaskStatus.FAILURE) | {"witness": Witness.PRESUMED}
                self.tell(replace(run, **ending, patch=None))
                return

    # ── what brokers and workers do ─────────────────────────────────────────────────────────────
    def deliver(self, origin: Origin, *, attempt: int, requeues: int) -> None:
        """Deliver a message until a run has dealt with it; it may be given up before."""
        if self.reports and self.chance(0.05):
            self.presume_lost()
        while self.chance(0.15):
            self.twin(origin, attempt=attempt, requeues=requeues)
        run = self.start(origin, attempt=attempt, requeues=requeues)
        how = self.random.choices(
            ["success", "failure", "retry", "requeue", "revoked", "killed", "aside"],
            [6, 2, 4 if attempt < 4 else 0, 1 if requeues < 2 else 0, 1, 1, 1],
        )[0]
        match how:
            case "success":
                self.finish(run, **self.end(TaskStatus.SUCCESS))
            case "failure":
                self.finish(run, **self.end(TaskStatus.FAILURE))
            case "revoked":
                self.finish(run, **self.end(TaskStatus.REVOKED))
            case "aside":
                self.set_aside(run)
            case "retry":
                ending = self.end(TaskStatus.RETRY) | {"witness": Witness.HANDED_BACK}
                self.finish(run, **ending)
                if self.chance(0.9):
                    self.deliver(origin, attempt=attempt + 1, requeues=requeues)
            case "requeue":
                self.finish(
                    run,
                    witness=Witness.HANDED_BACK,
                    status=TaskStatus.PENDING,
                    finished_at=self.passing(),
                    duration=0.25,
                )
                if self.chance(0.9):
                    self.deliver(origin, attempt=attempt, requeues=requeues + 1)

    def twin(self, origin: Origin, *, attempt: int, requeues: int) -> None:
        """Deliver once too often: to a worker that dies, is refused, or works as well."""
        run = self.start(origin, attempt=attempt, requeues=requeues)
        if self.chance(0.3):
            self.set_aside(run)
        elif self.chance(0.5):
            status = self.random.choice([TaskStatus.SUCCESS, TaskStatus.FAILURE])
            self.finish(run, **self.end(status))

    def start(self, origin: Origin, *, attempt: int, requeues: int) -> Report:
        """Begin a run; a quick end may pass the report of the start."""
        self.count += 1
        run = Report(
            origin,
            Witness.STARTED,
            TaskStatus.STARTED,
            run_id=f"{self.random.choice('abz')}{self.count}",
            attempt=attempt,
            requeues=requeues,
            worker=f"host:{self.random.randrange(3)}",
            started_at=self.passing(),
        )
        if self.chance(0.75):
            self.tell(run)
            while self.chance(0.2):
                self.tell(replace(run, patch=self.patch(run)))
        return run

    def finish(self, run: Report, **ending: Any) -> None:
        """Report the end of a run, maybe with its last progress."""
        end = replace(run, **ending, patch=self.patch(run) if self.chance(0.2) else None)
        self.tell(end)
        if end.witness is Witness.ENDED and self.chance(0.1):  # what the result backend says
            told = {"witness": Witness.RELAYED, "duration": 0.25, "traceback": None, "patch": None}
            self.tell(replace(end, **told))
        if self.chance(0.1):  # a stub of it: the database refused a value once
            self.tell(replace(end, result=end.result and '{"$refused":true}', traceback=None))

    def set_aside(self, run: Report) -> None:
        """Refuse a run: its body never begins."""
        if self.chance(0.2):
            self.tell(replace(run, set_aside=True))
        status = self.random.choice([TaskStatus.SUCCESS, TaskStatus.REVOKED])
        self.finish(run, **self.end(status), set_aside=True)

    def end(self, status: TaskStatus) -> dict[str, Any]:
        """Give what the end of a run tells."""
        told: dict[str, Any] = {
            "witness": Witness.ENDED,
            "status": status,
            "finished_at": self.passing(),
            "duration": self.random.choice([0.0, 0.1 + 0.2, 1e-07, 3600.5, 12]),
        }
        if status is TaskStatus.SUCCESS:
            told["result"] = None if self.chance(0.1) else self.json(self.value())
            if self.chance(0.1):
                told["cancel_reason"] = "too late"
            return told
        told |= {"error": self.text(), "error_type": "ValueError", "traceback": self.text()}
        told["error_class"] = self.random.choice([None, "permanent"])
        if status is TaskStatus.REVOKED:
            told |= {"cancel_reason": self.text(), "cancelled_by": self.text()}
        return told

    # ── draws ───────────────────────────────────────────────────────────────────────────────────
    def chance(self, often: float) -> bool:
        """Decide something that is true in that share of the cases."""
        return self.random.randrange(100) >= 100 - often * 100  # shrinks to False

    def passing(self) -> int:
        """Give a moment that is not before the last one."""
        self.now += self.random.choice([0, 1, 2_000, 10_000_000])
        return self.now

    def value(self) -> Any:
        """Give a value that JSON knows."""
        return self.random.choice(VALUES)

    def text(self) -> str | None:
        """Give a text, or none."""
        return self.random.choice([None, "", "it broke", 'Grüße: "\n\u2028\\'])

    def json(self, value: Any) -> str:
        """Give JSON text, as one of several encoders would."""
        if self.chance(0.5):
            return json.dumps(value)
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    def origin(self, created_at: int) -> Origin:
        """Make the birth facts of a message."""
        random, name = self.random, self.random.choice(NAMES)
        facts = {
            fact: random.choice(["one", "two"])
            for fact in ("created_by", "queue", "parent_task_id", "schedule_id", "rerun_of")
            if self.chance(0.3)
        }
        metadata = {key: self.value() for key in KEYS if self.chance(0.15)}
        return Origin(
            task_id=self.task_id,
            task_name=name,
            module=random.choice([name.split(".")[0].split(":")[0] or name, "sales", "ops"]),
            created_at=created_at,
            priority=random.choice([None, 0, 5]),
            config_id=random.choice([None, 2**40]),
            trace_id=random.choice([None, "abc"]),
            time_limit=random.choice([None, 0.5, 30.0]),
            args=self.json([self.value()]) if self.chance(0.5) else "[]",
            kwargs=self.json({"b": self.value(), "aa": 1}) if self.chance(0.3) else "{}",
            exact=self.chance(0.8),
            metadata=self.json(metadata) if metadata else "{}",
            **facts,
        )

    def patch(self, run: Report) -> dict[str, tuple[Stamp, str]]:
        """Make metadata as progress does; two writes may fall into one microsecond."""
        stamp = (run.attempt, run.started_at or 0, self.passing())
        keys = self.random.sample(KEYS, self.random.randrange(1, 3))
        return {key: (stamp, self.json(self.value())) for key in keys}

    def someones(self) -> Origin:
        """Give a message's birth facts; where there was none, those of the registration."""
        origins = [report.origin for report in self.reports]
        messages = [origin for origin in origins if not origin.registered]
        return replace(self.random.choice(messages or origins[:1]), registered=False)

    def attempt_shown(self) -> int:
        """Give the attempt that the row shows now."""
        attempt: int = expected(self.reports).execution["attempt"]
        return attempt

    def tell(self, report: Report) -> None:
        """Add a report."""
        self.reports.append(report)


def disorder(random: Random, reports: Sequence[Report], *, again: float = 0.3) -> list[Report]:
    """Put *reports* into any order, and say some of them again."""
    told = [*reports, *(report for report in reports if random.random() < again)]
    random.shuffle(told)
    return told


def play(random: Random, task_id: str = "task") -> list[Report]:
    """Play one history and tell it out of order."""
    return disorder(random, Truth(random, task_id).happen())


def told() -> st.SearchStrategy[list[Report]]:
    """The reports of one task, out of order and with repetitions; shrinks well."""
    return st.randoms(use_true_random=False).map(play)


def crowd(random: Random, tasks: int = 30) -> list[list[Report]]:
    """Play *tasks* histories at once and cut what is heard of them into groups."""
    run = secrets.token_hex(6)  # not drawn: an example that is played again meets no old rows
    every = [report for n in range(tasks) for report in Truth(random, f"{run}-{n}").happen()]
    heard = disorder(random, every)
    groups = []
    while heard:
        size = random.choice([1, 3, 10, 60, 200])
        groups.append(heard[:size])
        heard = heard[size:]
    return groups
