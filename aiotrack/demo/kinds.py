"""Every kind of task that the demo sends: how, how it must end, and what its record must show."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from taskiq import AsyncTaskiqTask

from aiotrack import Attempt, Cause, Execution, TaskStatus, tracking
from aiotrack.demo import tasks
from aiotrack.terminal import outcome

Send = Callable[[], Awaitable[AsyncTaskiqTask[Any]]]
Proof = Callable[[Execution], bool]
Evidence = Callable[[Execution], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of task.

    Attributes:
        title: What it shows.
        send: Sends it; None for what another task sends.
        status: How it must end.
        causes: Why each of its runs began, in order.
        proof: Whether the record shows what the title says.
        evidence: The part of the record that shows it, for the reader.
        child: What the task sends.
        then: What is done with it, by its task_id, as soon as it runs.
        is_last: It is sent when all others have ended: it takes its worker with it.
        is_heard: Whether what it logs is shown as it comes.
    """

    title: str
    send: Send | None = None
    status: TaskStatus = TaskStatus.SUCCESS
    causes: tuple[Cause, ...] = (Cause.FIRST,)
    proof: Proof = lambda _: True
    evidence: Evidence = outcome
    child: Kind | None = None
    then: Callable[[str], Coroutine[Any, Any, object]] | None = None
    is_last: bool = False
    is_heard: bool = False

    def faults(self, execution: Execution, attempts: list[Attempt]) -> Iterator[str]:
        """Yield what is wrong with a record."""
        if execution.status is not self.status:
            yield f"is {execution.status}, must be {self.status}"
            return
        causes = tuple(attempt.cause for attempt in attempts)
        if causes != self.causes:
            yield f"its runs are {', '.join(causes) or 'none'}; must be {', '.join(self.causes)}"
        if execution.status is TaskStatus.FAILURE:
            errors = {attempt.error for attempt in attempts}
            if None in errors or len(errors) < len(attempts):
                yield "a run lacks its own error"
        if not self.proof(execution):
            yield "the record does not show it"


async def _send_tracked() -> AsyncTaskiqTask[Any]:
    with tracking(created_by="ada", module="accounting", metadata={"order_id": 7}):
        return await tasks.send_invoice.kiq(7)


def _is_tracked(execution: Execution) -> bool:
    return (
        execution.created_by == "ada"
        and execution.module == "accounting"
        and execution.metadata.get("order_id") == 7
    )


def _who_and_what(execution: Execution) -> str:
    return (
        f"created_by={execution.created_by} module={execution.module} "
        f"metadata={json.dumps(execution.metadata)}"
    )


def _is_told_in_full(execution: Execution) -> bool:
    return execution.metadata.get("progress_percent") == 100


def _last_progress(execution: Execution) -> str:
    told = execution.metadata
    words = told.get("progress_message") or told.get("progress_step") or ""
    return f"{told.get('progress_percent')} % {words}".rstrip()


def _is_cut(execution: Execution) -> bool:
    kept = execution.result
    return isinstance(kept, dict) and kept.get("$truncated") is True and kept["bytes"] > 1_000_000


def _what_is_kept(execution: Execution) -> str:
    kept = execution.result
    return f"{len(kept['$text']):,} of {kept['bytes']:,} bytes are kept, marked as cut"


def _hides_secrets(execution: Execution) -> bool:
    stored = f"{execution.args} {execution.kwargs} {execution.result}"
    return "ada" in stored and "hunter2" not in stored and "s3cr3t" not in stored


def kinds() -> list[Kind]:
    """Give every kind, in the order in which they are sent."""
    every = (_simple(), _repeated(), _long(), _values(), _linked(), _locked(), _ended(), _ranked())
    return [kind for some in every for kind in some]


def _simple() -> list[Kind]:
    return [
        Kind(
            title="succeeds",
            send=lambda: tasks.greet.kiq("Ada"),
            proof=lambda it: it.result == {"greeting": "Hello, Ada!"},
        ),
        Kind(
            title="fails",
            send=lambda: tasks.charge.kiq(7, amount=99.5),
            status=TaskStatus.FAILURE,
            proof=lambda it: "CardDeclined" in (it.error_type or "") and bool(it.traceback),
        ),
    ]


def _repeated() -> list[Kind]:
    return [
        Kind(
            title="succeeds at the third attempt",
            send=lambda: tasks.fetch_rates.kiq("EUR"),
            causes=(Cause.FIRST, Cause.RETRY, Cause.RETRY),
        ),
        Kind(
            title="gives up after three attempts",
            send=lambda: tasks.notify_partner.kiq("ACME"),
            status=TaskStatus.FAILURE,
            causes=(Cause.FIRST, Cause.RETRY, Cause.RETRY),
        ),
        Kind(
            title="goes back to the queue once",
            send=lambda: tasks.wait_for_file.kiq("orders.csv"),
            causes=(Cause.FIRST, Cause.REQUEUE),
        ),
    ]


def _long() -> list[Kind]:
    return [
        Kind(
            title="tells its progress, and logs",
            send=lambda: tasks.load_rows.kiq("customers.csv", rows=120),
            proof=_is_told_in_full,
            evidence=_last_progress,
            is_heard=True,
        ),
        Kind(
            title="is slow",
            send=lambda: tasks.monthly_report.kiq("2026-06"),
            proof=lambda it: it.duration is not None and it.duration > 3,
        ),
        Kind(
            title="runs in a thread",
            send=lambda: tasks.resize.kiq("cat.jpg", width=640),
            proof=_is_told_in_full,
        ),
        Kind(
            title="exceeds its time limit",
            send=lambda: tasks.reprice.kiq(articles=30),
            status=TaskStatus.FAILURE,
            proof=lambda it: it.error_class == "timeout",
            evidence=lambda it: f"error_class={it.error_class}, {outcome(it)}",
        ),
    ]


def _values() -> list[Kind]:
    return [
        Kind(
            title="returns what cannot be stored",
            send=tasks.stream_prices.kiq,
            proof=lambda it: "generator" in str(it.result),
        ),
        Kind(
            title="returns a megabyte",
            send=tasks.export_catalogue.kiq,
            proof=_is_cut,
            evidence=_what_is_kept,
        ),
        Kind(
            title="gets secrets",
            send=lambda: tasks.sign_in.kiq("ada", "hunter2", api_token="s3cr3t"),  # noqa: S106
            proof=_hides_secrets,
            evidence=lambda it: f"args={json.dumps(it.args)} kwargs={json.dumps(it.kwargs)}",
        ),
    ]


def _linked() -> list[Kind]:
    return [
        Kind(
            title="is sent inside tracking()",
            send=_send_tracked,
            proof=_is_tracked,
            evidence=_who_and_what,
        ),
        Kind(
            title="sends another task",
            send=lambda: tasks.place_order.kiq(8),
            child=Kind(
                title="is sent by a task",
                evidence=lambda it: f"parent_task_id={it.parent_task_id}",
            ),
        ),
    ]


def _each_once(part: Callable[[Execution], str]) -> Proof:
    """Prove that two executions played different parts, whichever came first."""
    seen: dict[str, str] = {}

    def proof(execution: Execution) -> bool:
        played = part(execution)
        return bool(played) and seen.setdefault(played, execution.task_id) == execution.task_id

    return proof


def _counted_or_skipped(execution: Execution) -> str:
    told = execution.result
    if isinstance(told, dict):
        is_skipped = told.get("status") == "skipped" and "skipped_by" in execution.metadata
        return "skipped" if is_skipped else ""
    return "counted" if told == len("Berlin") else ""


def _who_counts(execution: Execution) -> str:
    holder = execution.metadata.get("skipped_by")
    return outcome(execution) if holder is None else f"skipped_by={holder}"


def _first_or_woken(execution: Execution) -> str:
    waited = execution.metadata.get("waited_ms")
    if not isinstance(waited, int):
        return ""
    return "woken" if waited > 100 else "first"


def _how_long_it_waited(execution: Execution) -> str:
    return f"waited {execution.metadata.get('waited_ms')} ms"


def _locked() -> list[Kind]:
    """Either of two may come first: several worker processes take them."""
    counted, moved = _each_once(_counted_or_skipped), _each_once(_first_or_woken)
    counts = [
        Kind(
            title=title,
            send=lambda: tasks.count_stock.kiq("Berlin"),
            proof=counted,
            evidence=_who_counts,
        )
        for title in ("is the same work twice:", "one does it, one is skipped")
    ]
    moves = [
        Kind(
            title=title,
            send=lambda: tasks.move_stock.kiq(1),
            proof=moved,
            evidence=_how_long_it_waited,
        )
        for title in ("wants a lock that another has:", "one waits, and is woken")
    ]
    return [*counts, *moves]


def _ranked() -> list[Kind]:
    """The first is sent before the second, and both before a worker is there."""
    waited: list[Execution] = []

    def waits(execution: Execution) -> bool:
        waited.append(execution)
        return execution.priority == 1

    def overtakes(execution: Execution) -> bool:
        other = waited[-1]
        if execution.started_at is None or other.started_at is None:
            return False
        is_later = execution.created_at > other.created_at
        return execution.priority == 10 and is_later and execution.started_at < other.started_at

    def rank(execution: Execution) -> str:
        wait = execution.wait
        return f"priority {execution.priority}, began {wait or 0:.2f} s after it was sent"

    return [
        Kind(
            title="waits its turn",
            send=lambda: tasks.tracker.submit(tasks.send_mail, ("all customers",)),
            proof=waits,
            evidence=rank,
        ),
        Kind(
            title="is urgent, overtakes it",
            send=lambda: tasks.tracker.submit(tasks.send_mail, ("ada",), priority="urgent"),
            proof=overtakes,
            evidence=rank,
        ),
    ]


async def _cancel(task_id: str) -> None:
    await tasks.tracker.cancel(task_id, reason="the customer changed her mind", by="ada")


def _is_lost(execution: Execution) -> bool:
    return execution.presumed and execution.error_class == "lost"


def _ended() -> list[Kind]:
    return [
        Kind(
            title="is cancelled while it runs",
            send=lambda: tasks.crawl.kiq("example.org"),
            then=_cancel,
            status=TaskStatus.REVOKED,
            proof=lambda it: it.cancelled_by == "ada" and bool(it.started_at),
            evidence=lambda it: f"cancelled_by={it.cancelled_by}: {it.cancel_reason}",
        ),
        Kind(
            title="loses its worker (SIGKILL), is found",
            send=lambda: tasks.index.kiq("example.org"),
            status=TaskStatus.FAILURE,
            proof=_is_lost,
            evidence=lambda it: f"error_class={it.error_class}: {it.error}",
            is_last=True,
        ),
    ]
