"""``aiotrack explain``: one execution told in words, with what it waits for now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import typer
from rich.text import Text

from aiotrack import Attempt, Cause, Execution, LockInfo, TaskStatus, Tracker, Worker, WorkerStatus
from aiotrack.cli.connect import Database, read
from aiotrack.cli.output import Json, console, print_json
from aiotrack.cli.records import Key, found, locks_of
from aiotrack.clock import to_datetime
from aiotrack.errors import ExecutionNotFound
from aiotrack.model import DEPENDS_ON
from aiotrack.terminal import COLOURS, SIGNS, failure, moment, one_line, seconds, value

WIDTH: Final = 160
"""Characters of an error or a result."""

WHY: Final = {
    Cause.RETRY: "It was tried again",
    Cause.REDELIVERY: "The broker delivered the message once more",
    Cause.REQUEUE: "It was put back into the queue",
    Cause.RERUN: "It was run again",
}
CLASSES: Final = {
    "transient": "an error that may go away: retries are meant for it",
    "permanent": "an error that another try would not mend: it is not retried",
    "timeout": "it took longer than it may",
    "lost": "nobody knows what became of it: its worker stopped beating",
    "invalid_result": "what the task returned is not what its annotation promises",
    "invalid_input": "its arguments do not fit",
}


def explain(key: Key, database: Database = None, as_json: Json = False) -> None:
    """Tell one execution in words, and what it waits for.

    Who asked for it, what happened in each attempt, and what it waits for now.
    """

    async def ask(tracker: Tracker) -> tuple[Execution, list[str]]:
        execution = await found(tracker, key)
        attempts = await tracker.attempts(execution.task_id)
        held = await locks_of(tracker, execution) or []
        now = to_datetime(tracker.clock.now()) or datetime.now(UTC)
        told = [*story(execution, attempts, held, now), *await _present(tracker, execution, now)]
        return execution, told

    execution, told = read(database, ask)
    if as_json:
        print_json({"task_id": execution.task_id, "status": execution.status, "story": told})
        return
    out = console()
    sign = (f"{SIGNS[execution.status]} ", COLOURS[execution.status])
    head = f"{one_line(execution.task_name)} is {execution.status}"
    out.print(Text.assemble(sign, (head, "bold")))
    for line in told:
        out.print(Text(f"  {line}"))


def story(
    it: Execution, attempts: Sequence[Attempt], held: Sequence[LockInfo], now: datetime
) -> Iterator[str]:
    """Tell what happened, a sentence a line."""
    yield f"{_asked(it)} at {moment(it.created_at)}{_origin(it)}."
    first = next((one.started_at for one in attempts if one.started_at is not None), it.started_at)
    if first is not None:  # of all runs: the record shows a later one
        queue = f" in the queue {one_line(it.queue)}" if it.queue else ""
        waited = max(0.0, (first - it.created_at).total_seconds())
        yield f"It waited {seconds(waited)}{queue} before it began."
    for number, one in enumerate(attempts):
        is_last = number == len(attempts) - 1 and not it.is_completed
        until = now if is_last else None
        yield from _attempt(one, is_first=number == 0, is_only=len(attempts) == 1, until=until)
    if it.duplicates:
        yield f"{it.duplicates} of its {it.runs} runs were of a message that was delivered again."
    yield from _end(it, is_told=bool(attempts))
    for lock in held:
        yield f"It holds the lock {one_line(lock.name)} since {moment(lock.since)}."


def _asked(it: Execution) -> str:
    if it.created_by is not None:
        return f"{one_line(it.created_by)} asked for it"
    return "A schedule asked for it" if it.schedule_id is not None else "It was asked for"


def _origin(it: Execution) -> str:
    parts = []
    if it.schedule_id is not None:
        parts.append(f"by the schedule {one_line(it.schedule_id)}")
    if it.rerun_of is not None:
        parts.append(f"as a rerun of {one_line(it.rerun_of)}")
    if it.parent_task_id is not None:
        parts.append(f"from within {one_line(it.parent_task_id)}")
    if it.priority is not None:
        parts.append(f"with priority {it.priority}")
    return "".join(f", {one}" for one in parts)


def _attempt(
    one: Attempt, *, is_first: bool, is_only: bool, until: datetime | None
) -> Iterator[str]:
    name = "The run" if is_only else f"Attempt {one.attempt}"
    where = f" on {one_line(one.worker)}" if one.worker else ""
    if not is_first and one.cause in WHY:
        yield f"{WHY[one.cause]}."
    begun = f" began at {moment(one.started_at)}{where}" if one.started_at is not None else where
    if one.status is TaskStatus.STARTED:
        if until is None:  # its worker was lost, or a copy of it still runs
            yield f"{name}{begun}; no end of it is known."
            return
        ran = (until - one.started_at).total_seconds() if one.started_at is not None else None
        yield f"{name}{begun} and has run for {seconds(ran)}."
        return
    took = f" after {seconds(one.duration)}" if one.duration is not None else ""
    word = {
        TaskStatus.SUCCESS: "succeeded",
        TaskStatus.FAILURE: "failed",
        TaskStatus.RETRY: "failed",
        TaskStatus.REVOKED: "was cancelled",
        TaskStatus.PENDING: "was handed back",
    }.get(one.status, str(one.status))
    is_told = one.status is TaskStatus.REVOKED  # by the sentence on who cancelled it
    said = f": {failure(one, WIDTH)}" if one.error and not is_told else ""
    joined = " and" if begun else ""
    yield f"{name}{begun}{joined} {word}{took}{said}"


def _end(it: Execution, *, is_told: bool) -> Iterator[str]:
    if (other := it.metadata.get("skipped_by")) is not None:
        yield f"It did nothing: {one_line(str(other))} did the same work."
    if it.status is TaskStatus.SUCCESS and it.result is not None:
        yield f"It gave {value(it.result, WIDTH)}."
    if it.status is TaskStatus.FAILURE:
        if it.error and not is_told:
            yield f"It failed: {failure(it, WIDTH)}"
        if it.error_class in CLASSES:
            yield f"{it.error_class}: {CLASSES[it.error_class]}."
    if it.cancelled_by is not None or it.cancel_reason is not None:
        who = one_line(it.cancelled_by) if it.cancelled_by is not None else "Somebody"
        why = f": {one_line(it.cancel_reason, WIDTH)}" if it.cancel_reason else ""
        is_obeyed = it.status is TaskStatus.REVOKED
        yield f"{who} {'cancelled it' if is_obeyed else 'asked to cancel it'}{why}"
    if it.presumed:
        yield "A sweep said so, not its worker: the worker's own word would come before it."


async def _present(tracker: Tracker, it: Execution, now: datetime) -> list[str]:
    """Tell what an execution that is not over waits for."""
    if it.is_completed:
        return []
    workers = await tracker.workers()
    if it.is_running:
        return [*_progress(it.metadata), *_keeper(it, workers)]
    alive = [one for one in workers if one.status is WorkerStatus.ALIVE]
    told = []
    if it.status is TaskStatus.RETRY:
        told.append(f"It waits for attempt {it.attempt}.")
    else:
        told.append(f"It has waited for {seconds((now - it.created_at).total_seconds())}.")
    needs = it.metadata.get(DEPENDS_ON)
    if isinstance(needs, list):
        told += [one async for one in _needs(tracker, needs)]
    knows = [one for one in alive if it.task_name in one.tasks]
    if not alive:
        told.append("No worker lives.")
    elif not knows:
        told.append(f"{len(alive)} workers live, and none of them knows this task.")
    else:
        busy = sum(one.running for one in knows)
        told.append(f"{len(knows)} living workers know the task; they run {busy} others now.")
    return told


def _progress(metadata: dict[str, Any]) -> Iterator[str]:
    percent, message = metadata.get("progress_percent"), metadata.get("progress_message")
    if percent is not None or message is not None:
        share = "" if percent is None else f" {value(percent)} %"
        words = "" if message is None else f" {one_line(str(message), WIDTH)}"
        yield f"It says:{share}{words}"


def _keeper(it: Execution, workers: Sequence[Worker]) -> Iterator[str]:
    if it.time_limit is not None:
        yield f"It may take {seconds(it.time_limit)}."
    state = next((one.status for one in workers if one.id == it.worker), None)
    if state is WorkerStatus.ALIVE:
        yield "Its worker lives."
    elif state is not None:
        yield f"Its worker is {state}: a sweep will end it, or send it again."


async def _needs(tracker: Tracker, needs: Sequence[Any]) -> Any:
    for one in needs:
        try:
            status = (await tracker.get(str(one))).status
        except ExecutionNotFound:
            yield f"It waits for {one_line(str(one))}, which is gone."
            continue
        if status is not TaskStatus.SUCCESS:
            yield f"It waits for {one_line(str(one))}, which is {status}."


def add_to(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(explain)
