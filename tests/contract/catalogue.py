"""Small histories, each of which broke some tracker or some draft of this one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness

NOON = 1_763_000_000_000_000
SECOND = 1_000_000


def born(at: int = 0, **facts: Any) -> Origin:
    """Give the birth facts of a message sent *at* seconds after noon."""
    return Origin("task", "billing:send", "billing", NOON + at * SECOND, **facts)


def sent(origin: Origin) -> Report:
    """A message was sent."""
    return Report(origin, Witness.SENT, TaskStatus.PENDING)


def started(origin: Origin, run_id: str, at: int, **facts: Any) -> Report:
    """A worker began *at* seconds after noon."""
    return Report(
        origin,
        Witness.STARTED,
        TaskStatus.STARTED,
        run_id=run_id,
        worker="host:1",
        started_at=NOON + at * SECOND,
        **facts,
    )


def ended(run: Report, word: str, at: int, **facts: Any) -> Report:
    """A run came to its end *at* seconds after noon."""
    status = TaskStatus(word)
    handed_back = status in (TaskStatus.RETRY, TaskStatus.PENDING)
    told: dict[str, Any] = {
        "witness": Witness.HANDED_BACK if handed_back else Witness.ENDED,
        "status": status,
        "finished_at": NOON + at * SECOND,
        "duration": 0.1 + 0.2,
    }
    if status is TaskStatus.SUCCESS:
        told["result"] = '{"rows":1,"b":[1,2.5,null]}'
    elif status is not TaskStatus.PENDING:
        told |= {"error": f"{run.run_id} broke", "error_type": "ValueError", "traceback": "…\n"}
    return replace(run, **told | facts)


def presumed(run: Report, at: int) -> Report:
    """A sweep gave a run up."""
    return ended(run, "FAILURE", at, witness=Witness.PRESUMED, error="lost", traceback=None)


def item(origin: Origin, run_id: str, at: int, **facts: Any) -> Report:
    """Somebody decided about queued work."""
    return Report(
        origin,
        Witness.PRESUMED if run_id == "!lost" else Witness.ENDED,
        TaskStatus.FAILURE if run_id == "!lost" else TaskStatus.REVOKED,
        run_id=run_id,
        finished_at=NOON + at * SECOND,
        **facts,
    )


M = born(queue="slow", args='[{"bb":1,"a":2}]', metadata='{"order":{"bb":1,"a":2}}')
M2 = born(5, queue="fast", created_by="7", args="[2]", metadata='{"order":{"b":1,"aa":2}}')
A, B, C = started(M, "a", 1), started(M, "b", 2), started(M, "c", 3)
RETRIED = started(M, "r2", 4, attempt=2)
AGAIN = started(M, "q", 4, requeues=1)
BY_HAND = replace(started(M, "manual:1", 2), worker=None)
REGISTERED = replace(
    sent(replace(born(0, created_by="42", metadata='{"order":0}'), registered=True)),
)


def progress(run: Report, at: int, percent: int) -> Report:
    """A run told how far it is."""
    stamp = (run.attempt, run.started_at or 0, NOON + at * SECOND)
    return replace(run, patch={"percent": (stamp, f"{percent}"), "order": (stamp, '"late"')})


CATALOGUE = {
    "success": [sent(M), A, ended(A, "SUCCESS", 9)],
    "retry": [sent(M), A, ended(A, "RETRY", 3), RETRIED, ended(RETRIED, "SUCCESS", 9)],
    "held, then sent with more facts": [
        sent(M),
        sent(replace(M, queue="fast", created_by="7", priority=3, trace_id="5f")),
        ended(A, "SUCCESS", 9),
    ],
    "only held, then sent": [sent(born()), sent(replace(born(), queue="fast", priority=3))],
    "dead twin": [sent(M), A, B, ended(B, "FAILURE", 9)],
    "live twin": [sent(M), A, ended(A, "FAILURE", 5), B, ended(B, "SUCCESS", 9)],
    "two successes": [A, ended(A, "SUCCESS", 9), B, ended(B, "SUCCESS", 8)],
    "set aside": [sent(M), A, ended(A, "SUCCESS", 9), ended(B, "SUCCESS", 3, set_aside=True)],
    "set aside at once": [sent(M), replace(A, set_aside=True), B],
    "requeue": [sent(M), A, ended(A, "PENDING", 3), AGAIN, ended(AGAIN, "SUCCESS", 9)],
    "requeue of a killed worker's": [sent(M), ended(A, "PENDING", 3), AGAIN],
    "sweep": [sent(M), A, presumed(A, 5), replace(presumed(A, 6), error="gone")],
    "sweep was wrong": [sent(M), A, presumed(A, 5), ended(A, "SUCCESS", 9)],
    "sweep was wrong: it is tried again": [sent(M), A, presumed(A, 5), ended(A, "RETRY", 9)],
    "cancel of queued work": [
        sent(M),
        item(M, "!cancel", 3, cancel_reason="no"),
        item(M, "!cancel", 4, cancel_reason="not now", cancelled_by="7"),
        A,
        ended(A, "REVOKED", 9, cancel_reason="no"),
    ],
    "lost in the queue": [sent(M), item(M, "!lost", 3), A, ended(A, "SUCCESS", 9)],
    "lost in the queue, then requeued": [sent(M), item(M, "!lost", 1), B, ended(B, "PENDING", 3)],
    "begun, lost in the queue, requeued": [sent(M), A, item(M, "!lost", 2), ended(A, "PENDING", 3)],
    "requeued, then lost in the queue": [sent(M), A, ended(A, "PENDING", 3), item(M, "!lost", 5)],
    "lost between two requeues": [
        ended(A, "PENDING", 2),
        item(M, "!lost", 3),
        AGAIN,
        ended(AGAIN, "PENDING", 9),
    ],
    "lost before and after a requeue": [
        sent(M),
        item(M, "!lost", 1),
        ended(B, "PENDING", 3),
        item(M, "!lost", 5),
    ],
    "lost before its retry, then requeued": [
        ended(A, "RETRY", 2),
        item(M, "!lost", 3, attempt=2),
        RETRIED,
        ended(RETRIED, "PENDING", 9),
    ],
    "requeued by twins that end crosswise": [
        A,
        B,
        ended(A, "PENDING", 9, error="a"),
        ended(B, "PENDING", 3, error="b"),
    ],
    "register after": [sent(M), A, ended(A, "SUCCESS", 9), REGISTERED],
    "by hand": [REGISTERED, BY_HAND, ended(BY_HAND, "SUCCESS", 9, duration=None)],
    "progress": [
        sent(M),
        A,
        progress(A, 2, 10),
        progress(ended(A, "SUCCESS", 9), 3, 100),
    ],
    "two messages": [sent(M), sent(M2), A, started(M2, "z", 6)],
    "two messages, one run": [sent(M), sent(M2), ended(started(M2, "z", 6), "FAILURE", 9)],
    "received otherwise": [
        sent(M),
        started(replace(M, args='["?"]', exact=False), "a", 1),
        ended(started(replace(M, args='["?"]', exact=False), "a", 1), "SUCCESS", 9),
    ],
    "a send tells what its run does not": [
        sent(M),
        ended(started(replace(M, queue=None), "a", 1), "SUCCESS", 3),
        ended(started(M2, "z", 6), "SUCCESS", 9),
    ],
    "no word of the cancel": [sent(M), ended(A, "SUCCESS", 9, result="7", cancel_reason="late")],
    "said in two ways": [
        sent(M),
        A,
        ended(A, "FAILURE", 9),
        ended(A, "FAILURE", 9, error="(refused)", traceback=None),
        ended(A, "FAILURE", 9, error="a", traceback=None),
    ],
    "bare result": [
        A,
        ended(A, "SUCCESS", 9, result="null"),
        B,
        ended(B, "SUCCESS", 7, result="1.0"),
    ],
}
"""Up to five facts each."""

LONG = {
    "retries to the end": [
        sent(M),
        A,
        ended(A, "RETRY", 3),
        RETRIED,
        ended(RETRIED, "RETRY", 5),
        ended(started(M, "r3", 6, attempt=3), "FAILURE", 9),
    ],
    "everything at once": [
        sent(M),
        REGISTERED,
        progress(A, 2, 10),
        presumed(A, 5),
        ended(B, "RETRY", 6),
        progress(ended(RETRIED, "SUCCESS", 9), 8, 100),
    ],
    "progress and a copy that is set aside": [
        sent(M),
        A,
        progress(A, 2, 10),
        ended(B, "SUCCESS", 3, set_aside=True),
        ended(A, "RETRY", 4),
        progress(ended(RETRIED, "SUCCESS", 9), 8, 100),
    ],
    "twins, a sweep and a second message": [
        sent(M),
        sent(M2),
        A,
        presumed(A, 4),
        ended(started(M2, "z", 6), "FAILURE", 7),
        item(M2, "!cancel", 8, cancel_reason="no"),
        ended(C, "SUCCESS", 9),
    ],
}
"""Six and seven facts each."""

OUTCOMES = {
    "success": ("SUCCESS", 1, 1, 0),
    "retry": ("SUCCESS", 2, 2, 0),
    "dead twin": ("STARTED", 1, 2, 1),
    "live twin": ("SUCCESS", 1, 2, 1),
    "two successes": ("SUCCESS", 1, 2, 1),
    "set aside": ("SUCCESS", 1, 2, 0),
    "set aside at once": ("STARTED", 1, 2, 0),
    "requeue": ("SUCCESS", 1, 2, 0),
    "requeue of a killed worker's": ("STARTED", 1, 2, 0),
    "sweep": ("FAILURE", 1, 1, 0),
    "sweep was wrong": ("SUCCESS", 1, 1, 0),
    "cancel of queued work": ("REVOKED", 1, 1, 0),
    "lost in the queue": ("SUCCESS", 1, 1, 0),
    "lost in the queue, then requeued": ("PENDING", 1, 1, 0),
    "begun, lost in the queue, requeued": ("PENDING", 1, 1, 0),
    "requeued, then lost in the queue": ("FAILURE", 1, 1, 0),
    "lost between two requeues": ("PENDING", 1, 2, 0),
    "lost before and after a requeue": ("FAILURE", 1, 1, 0),
    "lost before its retry, then requeued": ("PENDING", 2, 2, 0),
    "requeued by twins that end crosswise": ("PENDING", 1, 2, 1),
    "register after": ("SUCCESS", 1, 1, 0),
    "by hand": ("SUCCESS", 1, 1, 0),
    "progress": ("SUCCESS", 1, 1, 0),
    "two messages": ("STARTED", 1, 2, 1),
    "two messages, one run": ("FAILURE", 1, 1, 0),
    "received otherwise": ("SUCCESS", 1, 1, 0),
    "a send tells what its run does not": ("SUCCESS", 1, 2, 1),
    "no word of the cancel": ("SUCCESS", 1, 1, 0),
    "said in two ways": ("FAILURE", 1, 1, 0),
    "bare result": ("SUCCESS", 1, 2, 1),
    "retries to the end": ("FAILURE", 3, 3, 0),
    "everything at once": ("SUCCESS", 2, 3, 1),
    "progress and a copy that is set aside": ("SUCCESS", 2, 3, 0),
    "twins, a sweep and a second message": ("SUCCESS", 1, 3, 2),
}
"""Status, attempt, runs and duplicates in the end, by hand: they hold the oracle itself."""
