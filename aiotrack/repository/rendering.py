"""Reports and rows as the statements for Postgres take them: one as values, many as JSON text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from json.encoder import encode_basestring_ascii as quote
from operator import attrgetter
from typing import Any

from aiotrack.model import TaskStatus
from aiotrack.report import Report, Witness
from aiotrack.repository import statements as sql
from aiotrack.repository.fold import Row

_RARE_TEXTS = ("created_by", "parent_task_id", "schedule_id", "rerun_of", "trace_id")
_RARE_NUMBERS = ("priority", "time_limit", "config_id")
_OF_ERRORS = (
    "error",
    "error_type",
    "error_class",
    "traceback",
    "cancel_reason",
    "cancelled_by",
)
_of_birth = attrgetter(*sql.BIRTH_COLUMNS)
_of_run = attrgetter(*(name for name in sql.RUN_COLUMNS if name in sql.TOLD_COLUMNS))

# Most reports have none of these: one look at all takes less than one at each.
_RARE = (*_RARE_TEXTS, *_RARE_NUMBERS)
_rare, _NOTHING_RARE = attrgetter(*_RARE), (None,) * len(_RARE)
_of_errors, _NO_ERROR = attrgetter(*_OF_ERRORS), (None,) * len(_OF_ERRORS)

# Enums take long to format.
_WITNESS = {one: f'"witness":{one:d}' for one in Witness}
_STATUS = {one: f',"status":"{one.value}"' for one in TaskStatus}


def told(report: Report) -> tuple[Any, ...]:
    """Give what a plain report tells, in the order of `statements.TOLD_COLUMNS`."""
    if report.result == "null":
        report = replace(report, result=None)  # by way of JSON there is one kind of nothing, too
    runs = 1 if report.run_id else 0
    return (*_of_birth(report.origin), *_of_run(report), runs)


def render(report: Report) -> str:
    """Give the JSON object of a plain report; what is None is left out."""
    origin = report.origin
    text = (
        f'{{"task_id":{quote(origin.task_id)},"task_name":{quote(origin.task_name)},'
        f'"module":{quote(origin.module)},"created_at":{origin.created_at},'
        f'"args":{origin.args},"kwargs":{origin.kwargs},"metadata":{origin.metadata},'
        f'"exact":{"true" if origin.exact else "false"},"run_id":{quote(report.run_id)},'
        f'{_WITNESS[report.witness]}{_STATUS[report.status]},"attempt":1,'
        f'"presumed":false,"runs":{1 if report.run_id else 0},"duplicates":0,"plain":true'
    )
    if report.run_id:
        text += _render_run(report)
    if origin.queue is not None:
        text += f',"queue":{quote(origin.queue)}'
    if _rare(origin) != _NOTHING_RARE:
        text += _render_texts(origin, _RARE_TEXTS)
        for name in _RARE_NUMBERS:
            value = getattr(origin, name)
            if value is not None:
                text += f',"{name}":{value}'
    return text + "}"


def _render_run(report: Report) -> str:
    text = "" if report.worker is None else f',"worker":{quote(report.worker)}'
    if report.started_at is not None:
        text += f',"started_at":{report.started_at}'
    if report.finished_at is not None:
        text += f',"finished_at":{report.finished_at}'
    if report.duration is not None:
        text += f',"duration":{report.duration!r}'
    if report.result is not None:
        text += f',"result":{report.result}'
    if _of_errors(report) != _NO_ERROR:  # also of a success: a cancel may have come too late
        text += _render_texts(report, _OF_ERRORS)
    return text


def _render_texts(owner: object, names: Iterable[str]) -> str:
    found = [(name, getattr(owner, name)) for name in names]
    return "".join(f',"{name}":{quote(value)}' for name, value in found if value is not None)


def render_rows(rows: Iterable[Row], columns: Mapping[str, str]) -> str:
    """Give the JSON array of rows whose JSON columns are text already."""
    return "[" + ",".join(_render_row(row, columns) for row in rows) + "]"


def _render_row(row: Row, columns: Mapping[str, str]) -> str:
    parts = []
    for name, kind in columns.items():
        value = row[name]
        if value is None:
            continue
        if kind == sql.TEXT:
            parts.append(f'"{name}":{quote(value)}')
        elif kind == sql.BOOL:
            parts.append(f'"{name}":{"true" if value else "false"}')
        else:
            parts.append(f'"{name}":{value}')
    return "{" + ",".join(parts) + "}"
