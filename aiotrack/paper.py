"""A report on paper: Markdown, HTML, CSV or JSON, for people and for spreadsheets."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from aiotrack.counts import Counts, Stats
from aiotrack.summaries import Summary, TaskSummary
from aiotrack.terminal import failure, one_line, seconds

Row = Sequence[str]
Table = tuple[str, Row, list[Row]]
"""A title, the heads of the columns, the rows. The first column is text, the others are numbers."""

WIDTH: Final = 80

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: #1d2330; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #dde1e8; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
th { font-weight: 600; color: #5a6372; }
@media (prefers-color-scheme: dark) { body { color: #e4e8ef; background: #14181f; }
  th, td { border-color: #2b323d; } th { color: #98a2b3; } }
"""


def write(summary: Summary, form: str) -> str:
    """Write a report.

    Args:
        summary: What `Tracker.report` gave.
        form: ``md``, ``html``, ``csv`` or ``json``.

    Raises:
        KeyError: There is no such form.
    """
    return FORMS[form](summary)


def _markdown(summary: Summary) -> str:
    lines = [f"# {_title(summary)}", ""]
    for title, heads, rows in _tables(summary):
        lines += [f"## {title}", "", _cells(heads), "| --- |" + " ---: |" * (len(heads) - 1)]
        lines += [*map(_cells, rows), ""]
    return "\n".join(lines)


def _cells(row: Row) -> str:
    return "| " + " | ".join(_plain(cell) for cell in row) + " |"


def _plain(cell: str) -> str:
    """Keep names of tasks from being read as Markdown or HTML."""
    shown = one_line(cell).replace("\\", "\\\\")
    for letter in "|`*_[]<>#":
        shown = shown.replace(letter, f"\\{letter}")
    return shown


def _html(summary: Summary) -> str:
    title = html.escape(_title(summary))
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>",
    ]
    for name, heads, rows in _tables(summary):
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in heads)
        parts.append(f"<h2>{html.escape(name)}</h2><table><thead><tr>{head}</tr></thead><tbody>")
        parts += [
            "<tr>" + "".join(f"<td>{html.escape(one_line(cell))}</td>" for cell in row) + "</tr>"
            for row in rows
        ]
        parts.append("</tbody></table>")
    return "\n".join([*parts, "</body></html>", ""])


def _csv(summary: Summary) -> str:
    """Write a line for each task, with plain numbers; times are seconds."""
    out = io.StringIO()
    names = ("mean_duration", "p50_duration", "p95_duration", "mean_wait", "p50_wait", "p95_wait")
    kinds = ("skipped", "timed_out", "lost", "failure_rate")
    counts = ("total", "success", "failure", "revoked", *kinds, *names)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["since", "until", "task_name", *counts, *(f"before_{one}" for one in counts)])
    every = [
        TaskSummary(task_name="", now=summary.now, before=summary.before),
        *summary.tasks,
    ]
    for one in every:
        stretch = [
            summary.since.isoformat(),
            summary.until.isoformat(),
            _cell(one_line(one.task_name)),
        ]
        found = [getattr(of, name) for of in (one.now, one.before) for name in counts]
        writer.writerow([*stretch, *("" if value is None else value for value in found)])
    return out.getvalue()


def _cell(text: str) -> str:
    """Keep a spreadsheet from reading a name as a formula."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _json(summary: Summary) -> str:
    return json.dumps(data(summary), indent=2, ensure_ascii=False, default=str) + "\n"


def data(summary: Summary) -> dict[str, Any]:
    """Give a report as JSON knows it."""
    return {
        "since": _time(summary.since),
        "until": _time(summary.until),
        "now": _stats(summary.now),
        "before": _stats(summary.before),
        "tasks": [
            {"task_name": one.task_name, "now": _stats(one.now), "before": _stats(one.before)}
            for one in summary.tasks
        ],
        "slowest": [
            {
                "task_id": one.task_id,
                "task_name": one.task_name,
                "status": one.status,
                "duration": one.duration,
                "created_at": _time(one.created_at),
            }
            for one in summary.slowest
        ],
        "workers": {"alive": summary.living, "seen": len(summary.workers)},
    }


def _stats(stats: Stats) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in asdict(stats).items()
        if name not in {"by_module", "by_task_name", "durations", "timeline"}
    }
    return kept | {"failure_rate": stats.failure_rate}


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _title(summary: Summary) -> str:
    return f"Tasks from {_day(summary.since)} to {_day(summary.until)} (UTC)"


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _tables(summary: Summary) -> Iterable[Table]:
    now, before = summary.now, summary.before
    heads = ("", "executions", "failed", "failure rate", "p50", "p95", "wait p50", "wait p95")
    whole = TaskSummary(task_name="all tasks", now=summary.now, before=summary.before)
    yield (
        "By task, and the change against the time before",
        heads,
        list(map(_task, (whole, *summary.tasks))),
    )
    if summary.failing:
        rows: list[Row] = [
            (one.task_name, f"{one.now.failure:,}", _rate(one.now), f"{one.before.failure:,}")
            for one in summary.failing[:10]
        ]
        yield "Most failing", ("task", "failed", "failure rate", "failed before"), rows
    if summary.slowest:
        slow: list[Row] = [
            (f"{one.task_name} {one.task_id}", seconds(one.duration), failure(one, WIDTH))
            for one in summary.slowest
        ]
        yield "Slowest, of those that are still stored", ("execution", "took", "error"), slow
    rest: list[Row] = [
        ("ran longer than they may", f"{now.timed_out:,}", f"{before.timed_out:,}"),
        ("lost with their worker", f"{now.lost:,}", f"{before.lost:,}"),
    ]
    yield "Time-outs and lost ones", ("", "executions", "before"), rest
    living: list[Row] = [("alive", str(summary.living)), ("seen", str(len(summary.workers)))]
    yield "Workers of the last day", ("", "processes"), living


def _task(one: TaskSummary) -> Row:
    now, before = one.now, one.before
    return (
        one.task_name,
        f"{now.total:,}{_change(now.total, before.total)}",
        f"{now.failure:,}",
        _rate(now),
        f"{seconds(now.p50_duration)}{_change(now.p50_duration, before.p50_duration)}",
        f"{seconds(now.p95_duration)}{_change(now.p95_duration, before.p95_duration)}",
        seconds(now.p50_wait),
        seconds(now.p95_wait),
    )


def _rate(counts: Counts) -> str:
    return f"{counts.failure_rate:.1%}" if counts.success + counts.failure else ""


def _change(now: float | None, before: float | None) -> str:
    if not now or not before or f"{now / before - 1:+.0%}" in {"+0%", "-0%"}:
        return ""
    return f" ({now / before - 1:+.0%})"


FORMS: Final[dict[str, Callable[[Summary], str]]] = {
    "md": _markdown,
    "html": _html,
    "csv": _csv,
    "json": _json,
}
