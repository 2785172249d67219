"""What a sweep presumes of work that nobody finished: it yields to the worker's own word."""

from __future__ import annotations

from dataclasses import replace

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
    report.origin.echoes = True
    report.witness, report.status = Witness.PRESUMED, TaskStatus.FAILURE
    report.finished_at = now
    report.error, report.error_class = error, error_class
    return report
