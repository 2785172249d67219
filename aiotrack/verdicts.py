"""What is told of work that no run ends: a presumption yields to the worker's own word."""

from __future__ import annotations

from dataclasses import replace

from aiotrack.errors import TaskCancelled
from aiotrack.model import TaskStatus
from aiotrack.report import History, Report, Witness


def presume(history: History, *, now: int, error: str, error_class: str) -> Report | None:
    """Give the report that ends what a history shows, None where it is over.

    To be made under the row's lock: of a run that was handed back meanwhile it would be a lie.

    Args:
        history: As it stands.
        now: The database's time, in microseconds.
        error: Says what is presumed, and why.
        error_class: `lost` or `timeout`.
    """
    shown = history.shown()
    if shown.status.is_final:
        return None
    if shown.is_run and shown.status is TaskStatus.STARTED:
        report = replace(shown, patch=None)
        if shown.started_at is not None:
            report.duration = max(0, now - shown.started_at) / 1e6
    else:  # it waits: no worker has this attempt
        name = f"!presumed:{shown.shown_attempt}"
        report = Report(
            shown.origin, Witness.PRESUMED, shown.status, name, attempt=shown.shown_attempt
        )
        now = max(now, (shown.finished_at or 0) + 1)  # by its worker's clock: so it passes that
    report.origin.echoes = True
    report.witness, report.status = Witness.PRESUMED, TaskStatus.FAILURE
    report.finished_at = now
    report.error, report.error_class = error, error_class
    return report


def revoke(history: History, *, now: int, reason: str | None, by: str | None) -> Report | None:
    """Give the report that drops work which waits; None where it runs, or is over.

    To be made under the row's lock, as `presume`.
    """
    shown = history.shown()
    is_presumed = shown.witness is Witness.PRESUMED
    if (shown.status.is_final and not is_presumed) or shown.status is TaskStatus.STARTED:
        return None
    if is_presumed and shown.is_run:
        return None
    report = Report(shown.origin, Witness.ENDED, TaskStatus.REVOKED, attempt=shown.shown_attempt)
    report.origin.echoes = True
    report.finished_at, report.cancel_reason, report.cancelled_by = now, reason, by
    return never_ran(report)


def never_ran(report: Report) -> Report:
    """Give a cancel as an item without a run: whoever tells it first, it is the same item."""
    return Report(
        report.origin,
        Witness.ENDED,
        TaskStatus.REVOKED,
        f"!cancel:{report.attempt}",
        attempt=report.attempt,
        finished_at=report.finished_at,
        error=str(TaskCancelled(report.origin.task_id)),
        cancel_reason=report.cancel_reason,
        cancelled_by=report.cancelled_by,
        patch=report.patch,
    )
