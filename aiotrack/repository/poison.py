"""What is left of a report when the database refuses one of its values."""

from __future__ import annotations

import json
from dataclasses import replace

from aiotrack.report import Report

REFUSED = '{"$refused":true}'


def without_values(report: Report, reason: str) -> Report:
    """Give the report without anything that a user's code made; *reason* is kept."""
    said = "".join(letter for letter in reason if letter.isprintable() and letter.isascii())[:500]
    origin = replace(
        report.origin,
        args=f"[{REFUSED}]",
        kwargs="{}",
        metadata=json.dumps({"record_error": said}),
        exact=False,
        queue=None,
        created_by=None,
        schedule_id=None,
        parent_task_id=None,
        rerun_of=None,
        trace_id=None,
        priority=None,
        config_id=None,
        time_limit=None,
    )
    return replace(
        report,
        origin=origin,
        result=None if report.result is None else REFUSED,
        error=None if report.error is None else f"(the error text was refused: {said})",
        error_type=report.error_type if (report.error_type or "").isprintable() else None,
        traceback=None,
        cancel_reason=None,
        cancelled_by=None,
        patch=None,
    )
