"""Reports and histories turned into rows and back. No database here: pure functions.

A *plain* row tells all of its task: one message, at most one run, first attempt, no patch. For any
other task the attempts table holds every run and item, and the row is what `History.shown` gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from aiotrack.model import TaskStatus
from aiotrack.report import (
    BIRTH,
    SINGLE_FACTS,
    History,
    Origin,
    Report,
    Witness,
)

Row = dict[str, Any]


def is_fast(report: Report) -> bool:
    """Whether one statement can take this report: see ``statements``."""
    return (
        report.attempt == 1
        and report.requeues == 0
        and not report.set_aside
        and report.patch is None
        and not report.origin.registered
        and (
            report.witness is Witness.SENT
            or report.witness is Witness.STARTED
            or (report.witness is Witness.ENDED and report.is_run)
        )
    )


def plain_row(report: Report) -> Row:
    """Give the row that one report alone makes."""
    origin = report.origin
    return {
        "task_id": origin.task_id,
        "task_name": origin.task_name,
        "module": origin.module,
        "queue": origin.queue,
        "priority": origin.priority,
        "created_at": origin.created_at,
        "created_by": origin.created_by,
        "parent_task_id": origin.parent_task_id,
        "schedule_id": origin.schedule_id,
        "config_id": origin.config_id,
        "rerun_of": origin.rerun_of,
        "trace_id": origin.trace_id,
        "time_limit": origin.time_limit,
        "args": origin.args,
        "kwargs": origin.kwargs,
        "exact": origin.exact,
        "metadata": origin.metadata,
        "run_id": report.run_id,
        "witness": int(report.witness),
        "status": report.status.value,
        "attempt": report.attempt,
        "worker": report.worker,
        "started_at": report.started_at,
        "finished_at": report.finished_at,
        "duration": report.duration,
        "result": report.result,
        "error": report.error,
        "error_type": report.error_type,
        "error_class": report.error_class,
        "traceback": report.traceback,
        "cancel_reason": report.cancel_reason,
        "cancelled_by": report.cancelled_by,
        "presumed": False,
        "runs": 1 if report.run_id else 0,
        "duplicates": 0,
        "plain": True,
        "stamps": None,
    }


def placeholder(report: Report) -> Row:
    """Give a row that says nothing yet, to be locked and then written over."""
    row = plain_row(Report(report.origin, Witness.SENT, TaskStatus.PENDING))
    row.update(plain=False, stamps="{}", metadata="{}")
    return row


def history_of(row: Mapping[str, Any], attempts: Iterable[Mapping[str, Any]]) -> History:
    """Read back what a row and its attempts tell."""
    if row["plain"]:
        return History.of([_plain_report(row)])
    stamps = json.loads(row["stamps"] or "{}")
    told: dict[str, list[int]] = stamps.get("facts", {})
    values: dict[str, Any] = {name: row[name] for name in SINGLE_FACTS}
    values["args"] = [row["args"], row["kwargs"], bool(row["exact"])]
    written: dict[str, list[int]] = stamps.get("patch", {})
    history = History(row["task_id"], row["created_at"])
    history.facts = {name: ((s[0], s[1]), values[name]) for name, s in told.items()}
    for key, value in json.loads(row["metadata"]).items():
        at = written.get(key)
        stamp = BIRTH if at is None else (at[0], at[1], at[2])
        history.patch[key] = (stamp, json.dumps(value, separators=(",", ":")))
    origin = history.origin()
    history.items = {item["run_id"]: _run_report(origin, item) for item in attempts}
    return history


def _plain_report(row: Mapping[str, Any]) -> Report:
    names = ("task_id", "created_at", "args", "kwargs", "metadata")
    origin = Origin(
        **{name: row[name] for name in names},
        **{name: row[name] for name in SINGLE_FACTS},
        exact=bool(row["exact"]),
    )
    return _run_report(origin, {**row, "requeues": 0, "set_aside": False})


def _run_report(origin: Origin, row: Mapping[str, Any]) -> Report:
    return Report(
        origin=origin,
        witness=Witness(row["witness"]),
        status=TaskStatus(row["status"]),
        run_id=row["run_id"],
        attempt=row["attempt"],
        requeues=row["requeues"],
        set_aside=bool(row["set_aside"]),
        worker=row["worker"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        duration=row["duration"],
        result=row["result"],
        error=row["error"],
        error_type=row["error_type"],
        error_class=row["error_class"],
        traceback=row["traceback"],
        cancel_reason=row["cancel_reason"],
        cancelled_by=row["cancelled_by"],
    )


def execution_row(history: History) -> Row:
    """Give the row that shows a whole history."""
    shown = history.shown()
    row = plain_row(shown)
    final = shown.status.is_final
    waits = shown.status is TaskStatus.PENDING
    metadata = {key: json.loads(text) for key, (_, text) in sorted(history.patch.items())}
    stamps = {
        "facts": {name: list(stamp) for name, (stamp, _) in sorted(history.facts.items())},
        "patch": {
            k: list(stamp) for k, (stamp, _) in sorted(history.patch.items()) if stamp != BIRTH
        },
    }
    row.update(
        attempt=shown.shown_attempt,
        worker=None if waits else shown.worker,
        started_at=None if waits else shown.started_at,
        finished_at=shown.finished_at if final else None,
        duration=shown.duration if final else None,
        metadata=json.dumps(metadata, separators=(",", ":")),
        presumed=shown.witness is Witness.PRESUMED,
        runs=len(history.runs()),
        duplicates=history.duplicates,
        plain=False,
        stamps=json.dumps(stamps, separators=(",", ":")),
    )
    return row


def attempt_row(task_id: str, item: Report) -> Row:
    """Give the row of one run or item among the attempts."""
    return {
        "task_id": task_id,
        "run_id": item.run_id,
        "witness": int(item.witness),
        "status": item.status.value,
        "attempt": item.attempt,
        "worker": item.worker,
        "started_at": item.started_at,
        "finished_at": item.finished_at,
        "duration": item.duration,
        "result": item.result,
        "error": item.error,
        "error_type": item.error_type,
        "error_class": item.error_class,
        "traceback": item.traceback,
        "cancel_reason": item.cancel_reason,
        "cancelled_by": item.cancelled_by,
        "requeues": item.requeues,
        "set_aside": item.set_aside,
    }


def fold(
    row: Mapping[str, Any], attempts: Iterable[Mapping[str, Any]], reports: Iterable[Report]
) -> tuple[Row, list[Row]] | None:
    """Take reports into what is stored.

    Returns:
        The execution's row and the attempts' rows to write, or None when nothing is new.
    """
    stored = list(attempts)
    history = history_of(row, stored)
    before = _fingerprint(history)
    for report in reports:
        history.add(report)
    if _fingerprint(history) == before:
        return None
    known = {item["run_id"] for item in stored}
    old = history_of(row, stored).items
    changed = [
        attempt_row(history.task_id, item)
        for run_id, item in history.items.items()
        if run_id not in known
        or run_id not in old  # left over from an execution that somebody deleted
        or _core(old[run_id]) != _core(item)
    ]
    return execution_row(history), changed


def _core(item: Report) -> Row:
    return attempt_row("", item)


def _fingerprint(history: History) -> tuple[Any, ...]:
    return (
        history.created_at,
        dict(history.facts),
        dict(history.patch),
        {run_id: _core(item) for run_id, item in history.items.items()},
    )


__all__ = [
    "Row",
    "attempt_row",
    "execution_row",
    "fold",
    "history_of",
    "is_fast",
    "placeholder",
    "plain_row",
]
