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

_OPTIONAL_ORIGIN = (
    "queue",
    "created_by",
    "parent_task_id",
    "schedule_id",
    "rerun_of",
    "trace_id",
)
_OPTIONAL_RUN = (
    "error",
    "error_type",
    "error_class",
    "traceback",
    "cancel_reason",
    "cancelled_by",
)
_of_birth = attrgetter(*sql.BIRTH_COLUMNS)
_of_run = attrgetter(*(name for name in sql.RUN_COLUMNS if name in sql.TOLD_COLUMNS))
_optional_run, _NO_RUN = attrgetter(*_OPTIONAL_RUN), (None,) * len(_OPTIONAL_RUN)

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
    for name in _OPTIONAL_ORIGIN:
        value = getattr(origin, name)
        if value is not None:
            text += f',"{name}":{quote(value)}'
    if origin.priority is not None:
        text += f',"priority":{origin.priority}'
    if origin.time_limit is not None:
        text += f',"time_limit":{origin.time_limit!r}'
    if origin.config_id is not None:
        text += f',"config_id":{origin.config_id}'
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
    if _optional_run(report) != _NO_RUN:  # also of a success: a cancel may have come too late
        for name in _OPTIONAL_RUN:
            value = getattr(report, name)
            if value is not None:
                text += f',"{name}":{quote(value)}'
    return text


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
