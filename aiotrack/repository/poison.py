"""What is left of a report when the database refuses one of its values, and when it is lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from aiotrack.culprits import Refused
from aiotrack.report import Report, Witness

log = logging.getLogger(__name__)

REFUSED = '{"$refused":true}'

REMEMBERED = 10_000
"""Refused reports that are remembered."""


Word = tuple[str, str, Witness]
"""Whose word a report is, and which."""


class Refusal(NamedTuple):
    """A report that is not stored even without its values, and why."""

    report: Report
    error: Exception


class Refusals:
    """Tells what the data is to blame for from what befalls all: a trigger, a check that is wrong.

    Lost is what is refused, and again after others were taken. Until then nobody knows: somebody
    may have made the trigger between two statements, or dropped it.
    """

    def __init__(self) -> None:
        self.taken = 0
        """Reports that the database took."""
        self._met: dict[Word, int] = {}
        self._lost: dict[Word, None] = {}

    def judge(self, refused: Sequence[Refusal]) -> list[Report]:
        """Give what is lost of a write of which nothing is taken now.

        Raises:
            Refused: It may be no fault of theirs: write it again.
        """
        if len(self._met) > REMEMBERED:
            self._met.clear()
        refused = [one for one in refused if _word_of(one.report) not in self._lost]
        before = [self._met.setdefault(_word_of(one.report), self.taken) for one in refused]
        if self.taken in before:
            task_id, error = refused[0].report.origin.task_id, refused[0].error
            raise Refused(f"the database refuses what is told of task {task_id}: {error}")
        return self.lose(refused)

    def lose(self, refused: Sequence[Refusal]) -> list[Report]:
        """Give what nothing can be done for, and log it; once, the journal may hold it still."""
        refused = [one for one in refused if _word_of(one.report) not in self._lost]
        for report, error in refused:
            self._met.pop(_word_of(report), None)
            self._lost[_word_of(report)] = None
            if len(self._lost) > REMEMBERED:
                del self._lost[next(iter(self._lost))]
            what = "the record of task %s cannot be stored, and %s is lost: %s"
            log.error(what, report.origin.task_id, report.witness.name, error)
        return [report for report, _ in refused]


def _word_of(report: Report) -> Word:
    return report.origin.task_id, report.run_id, report.witness


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
