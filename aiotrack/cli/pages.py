"""How executions and counts look to people: tables, in the reader's own time zone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aiotrack import (
    Attempt,
    Count,
    Counts,
    Execution,
    LockInfo,
    Page,
    Queue,
    Stats,
    TaskInfo,
    TaskStatus,
    Worker,
    WorkerStatus,
)
from aiotrack.cli.output import room
from aiotrack.terminal import COLOURS, block, failure, moment, one_line, outcome, seconds, value

WIDE = 120
"""Columns from which on a list has room for times and outcomes."""

LONGEST = 120
"""Characters of an outcome in a list."""

LONGEST_ID = 36
"""Columns of a task_id in a list in a terminal; a longer one goes on below, and is never cut."""

NARROW = 26
"""Columns beside id and task in a narrow list."""

NAMES = {"lock", "key", "held by", "worker"}
"""What goes on below when there is no room: people copy it."""

SHORTEST = 16
"""Columns that a task's name has at least."""

_COUNTED = {
    "pending": TaskStatus.PENDING,
    "started": TaskStatus.STARTED,
    "retry": TaskStatus.RETRY,
    "success": TaskStatus.SUCCESS,
    "failure": TaskStatus.FAILURE,
    "revoked": TaskStatus.REVOKED,
}


def print_list(console: Console, page: Page[Execution], counted: Count | None = None) -> None:
    """Print a line for each execution, of how many, and how to get to the next page."""
    if not page.items:
        console.print("nothing found")
        return
    is_wide = console.width >= WIDE
    table = _table(is_expanded=console.is_terminal and is_wide)
    ids = [one_line(item.task_id) for item in page.items]
    wide = min(max(map(len, ids)), LONGEST_ID) if console.is_terminal else None
    table.add_column("task_id", width=wide, overflow="fold")
    table.add_column("task", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("try", justify="right")
    table.add_column("time", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("created", no_wrap=True)
        table.add_column("outcome", no_wrap=True, overflow="ellipsis", ratio=1, style="dim")
    room = max(console.width - (wide or 0) - (WIDE if is_wide else NARROW), SHORTEST)
    for shown, item in zip(ids, page.items, strict=True):
        cells: list[Text | str] = [
            Text(shown),
            Text(one_line(item.task_name, room)),
            Text(item.status, style=COLOURS[item.status]),
            str(item.attempt) if item.runs else "",
            seconds(item.duration),
        ]
        if is_wide:
            cells += [moment(item.created_at), Text(outcome(item, LONGEST))]
        table.add_row(*cells)
    console.print(table)
    if counted is not None:
        console.print(f"{len(page.items)} of {counted}", style="dim")
    if page.next is not None:
        console.print(f"more: --after {page.next}", style="dim", soft_wrap=True)


def print_execution(
    console: Console, execution: Execution, attempts: list[Attempt], held: Iterable[LockInfo]
) -> None:
    """Print everything that is known of one execution."""
    head = Text.assemble(
        (one_line(execution.task_name), "bold"),
        "  ",
        (execution.status, COLOURS[execution.status]),
        (" (presumed)" if execution.presumed else "", "dim"),
    )
    console.print(head, soft_wrap=True)
    for name, text in _facts(execution):
        if text:
            console.print(Text.assemble((f"  {name:<12}", "dim"), text))
    for lock in held:
        text = f"{one_line(lock.name)}  for {seconds(lock.left)} more, fence {lock.fence}"
        text += ", its worker is lost" if lock.is_lost else ""
        console.print(Text.assemble((f"  {'holds lock':<12}", "dim"), text))
    console.print()
    console.print(_attempts(attempts))
    if execution.traceback:
        console.print()
        console.print(Text(block(execution.traceback.rstrip()), style="dim"), soft_wrap=True)


def print_locks(console: Console, held: list[LockInfo]) -> None:
    """Print a line for each lock that is held."""
    if not held:
        console.print("no lock is held")
        return
    table = _table()
    for column in ("lock", "key", "held by", "worker", "since", "left", "waiting", "fence"):
        table.add_column(column, no_wrap=column not in NAMES, overflow="fold")
    for lock in held:
        table.add_row(
            Text(one_line(lock.name)),
            Text(one_line(lock.key or "")),
            Text(one_line(lock.task_id or "")),
            Text(one_line(lock.worker or "") + (" (lost)" if lock.is_lost else "")),
            moment(lock.since),
            seconds(lock.left),
            str(lock.waiting or ""),
            str(lock.fence),
        )
    console.print(table)


_STATUS_COLOURS = {
    WorkerStatus.ALIVE: "green",
    WorkerStatus.LOST: "bold red",
    WorkerStatus.STOPPED: "dim",
}


def print_tasks(console: Console, tasks: list[TaskInfo]) -> None:
    """Print a line for each task; a parameter that is not required has a question mark."""
    if not tasks:
        console.print("no task is known: name the modules that define them (--import)")
        return
    table = _table()
    table.add_column("task", overflow="fold")
    for column in ("queue", "parameters", "what it does"):
        table.add_column(column, overflow="fold")
    for one in tasks:
        required = set(one.parameters.get("required", ()))
        names = [
            name if name in required else f"{name}?"
            for name in one.parameters.get("properties", {})
        ]
        more = ["..."] if one.parameters.get("additionalProperties") else []
        table.add_row(
            Text(one_line(one.name)),
            Text(one_line(one.queue or "", room(console, 40))),
            Text(one_line(", ".join(names + more), room(console, 80))),
            Text(one_line((one.doc or "").partition("\n")[0], room(console, 80))),
        )
    console.print(table)


def print_queues(console: Console, queues: list[Queue]) -> None:
    """Print a line for each queue."""
    if not queues:
        console.print("this broker does not tell what waits in it")
        return
    table = _table()
    table.add_column("queue", overflow="fold")
    for column in ("waiting", "oldest", "consumers", "dead letters"):
        table.add_column(column, no_wrap=True, justify="right")
    for one in queues:
        table.add_row(
            Text(one_line(one.name)),
            f"{one.depth:,}",
            seconds(one.oldest_age),
            "?" if one.consumers is None else str(one.consumers),
            f"{one.dead_letters:,}",
        )
    console.print(table)


def print_workers(console: Console, workers: list[Worker]) -> None:
    """Print a line for each worker process."""
    if not workers:
        console.print("no worker is known")
        return
    table = _table()
    table.add_column("worker", overflow="fold")
    for column in ("status", "since", "last beat", "queues"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for column in ("tasks", "running", "memory", "cpu"):
        table.add_column(column, no_wrap=True, justify="right")
    for one in workers:
        most = "" if one.concurrency is None else f"/{one.concurrency}"
        table.add_row(
            Text(one_line(one.id)),
            Text(one.status, style=_STATUS_COLOURS[one.status]),
            moment(one.started_at),
            moment(one.beat_at),
            Text(one_line(", ".join(one.queues), room(console, 40))),
            str(len(one.tasks)),
            f"{one.running}{most}",
            "" if one.memory is None else f"{one.memory / 2**20:.0f} MiB",
            "" if one.cpu is None else f"{100 * one.cpu:.0f} %",
        )
    console.print(table)


def _facts(it: Execution) -> Iterable[tuple[str, str]]:
    yield "task_id", one_line(it.task_id)
    yield "id", str(it.id)
    yield "module", one_line(it.module)
    yield "created by", one_line(it.created_by or "")
    yield "parent", one_line(it.parent_task_id or "")
    yield "schedule", one_line(it.schedule_id or "")
    yield "trace", it.trace_id or ""
    yield "queue", one_line(it.queue or "")
    yield "worker", one_line(it.worker or "")
    yield "created", moment(it.created_at)
    yield "started", f"{moment(it.started_at)}  after {seconds(it.wait)}" if it.started_at else ""
    took = "" if it.duration is None else f"  in {seconds(it.duration)}"
    yield "finished", f"{moment(it.finished_at)}{took}"
    yield "args", value(it.args) if it.args else ""
    yield "kwargs", value(it.kwargs) if it.kwargs else ""
    yield "metadata", value(it.metadata) if it.metadata else ""
    yield "result", value(it.result) if it.is_success else ""
    yield "error", failure(it)
    yield "error class", one_line(it.error_class or "")


def _attempts(attempts: list[Attempt]) -> Table:
    table = _table()
    table.add_column("try", justify="right")
    table.add_column("cause", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("started", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("worker", overflow="fold")
    table.add_column("error")
    for attempt in attempts:
        table.add_row(
            str(attempt.attempt),
            Text(attempt.cause),
            Text(attempt.status, style=COLOURS[attempt.status]),
            moment(attempt.started_at),
            seconds(attempt.duration),
            Text(one_line(attempt.worker or ""), style="dim"),
            Text(failure(attempt)),
        )
    return table


def print_stats(console: Console, stats: Stats) -> None:
    """Print the counts, whole, by module and by task."""
    if not stats.total:
        console.print("nothing found")
        return
    console.print(_counts("module", stats.by_module))
    console.print()
    console.print(_counts("task", stats.by_task_name))
    console.print()
    console.print(_counts("", {"all": stats}))
    console.print()
    console.print(_figures(stats))


def _figures(stats: Stats) -> Table:
    """Lay out durations and waits; ``~`` marks what was read from buckets."""
    mark = "~" if stats.is_approximate else ""
    table = _table()
    for title in ("", "mean", "p50", "p95"):
        table.add_column(title, justify="right" if title else "left", min_width=7)
    for name in ("duration", "wait"):
        mean, p50, p95 = (getattr(stats, f"{figure}_{name}") for figure in ("mean", "p50", "p95"))
        told = [f"{mark}{seconds(value)}" if value is not None else "" for value in (p50, p95)]
        table.add_row(name, seconds(mean), *told)
    for name in ("skipped", "timed_out", "lost"):
        if count := getattr(stats, name):
            table.add_row(name.replace("_", " "), str(count), "", "")
    return table


def _counts(title: str, parts: Mapping[str, Counts]) -> Table:
    table = _table()
    table.add_column(title, min_width=24, overflow="fold")
    for name in ("total", *_COUNTED, "fail rate"):
        table.add_column(name, justify="right", min_width=7)
    for key, counts in sorted(parts.items(), key=lambda part: (-part[1].total, part[0])):
        numbers = [
            Text(str(number), style=COLOURS[status] if number else "dim")
            for name, status in _COUNTED.items()
            for number in [getattr(counts, name)]
        ]
        rate = f"{100 * counts.failure_rate:.1f} %"
        table.add_row(Text(one_line(key)), str(counts.total), *numbers, rate)
    return table


def _table(*, is_expanded: bool = False) -> Table:
    return Table(
        box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=is_expanded
    )
