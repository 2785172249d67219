"""Writes docs/reference from the code: settings, tables, errors, the command line.

``python docs/generate.py`` writes the pages, ``--check`` only says which are out of date and ends
with 1 if there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import cleandoc
from pathlib import Path

from sqlalchemy import Column, Index, Table
from sqlalchemy.dialects import postgresql, sqlite
from typer.testing import CliRunner

from aiotrack import errors
from aiotrack.cli.app import app, loaded
from aiotrack.cli.codes import MEANINGS
from aiotrack.cli.verbs import GROUPS
from aiotrack.errors import AioTrackError, InvalidSetting
from aiotrack.repository.columns import VERSION_TABLE, Base
from aiotrack.settings import PREFIX, ROW_KEYS, Settings, settable

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Made by docs/generate.py: change the code and run it again. -->"

COLUMNS = {
    "id": "Number of the row; an execution's is taken by `tracker.get_by_id`.",
    "task_id": "TaskIQ's id; NUL, `%` and lone surrogates escaped, over 255 characters shortened.",
    "task_name": "The task's name.",
    "module": "Business scope.",
    "status": "A word of `TaskStatus`.",
    "attempt": "From 1; in RETRY the attempt that is waited for.",
    "queue": "Queue, when the broker or a label names one.",
    "priority": "The label `priority`.",
    "worker": "Worker process that ran it: host, process id, random part.",
    "created_at": "When it was queued or registered.",
    "started_at": "When the shown run started.",
    "finished_at": "When it ended.",
    "duration": "Seconds, by a monotonic clock.",
    "args": "Positional arguments.",
    "kwargs": "Keyword arguments.",
    "result": "What it gave.",
    "error": "The exception's message.",
    "error_type": "The exception's class.",
    "error_class": "What the error means, where that is known: `transient`, `permanent`, "
    "`timeout`, `cancelled`, `lost`, `invalid_result` or `invalid_input`.",
    "traceback": "The exception's traceback, bounded and without locals.",
    "created_by": "Who asked for it.",
    "metadata": "Key-value pairs, progress among them.",
    "schedule_id": "The schedule that sent it.",
    "config_id": "The label `aiotrack_config_id`.",
    "parent_task_id": "Task_id of the work that it belongs to.",
    "rerun_of": "The execution that it repeats.",
    "presumed": "The verdict is a sweep's, and yields to the worker's own word.",
    "time_limit": "Seconds that a run may take, by the label `timeout`.",
    "runs": "How many runs there were.",
    "duplicates": "How many runs did what another run of the same message did, too.",
    "cancel_reason": "Why somebody cancelled it.",
    "cancelled_by": "Who did.",
    "trace_id": "Nothing fills it yet.",
    "run_id": "The run that is shown or meant; empty before the first.",
    "witness": "How much the reporter saw: 0 sent, 1 started, 2 presumed, 3 handed back, "
    "4 relayed by a result backend, 5 ended.",
    "exact": "Whether the stored arguments equal the real ones.",
    "plain": "This row alone tells it all: no rows among the attempts.",
    "stamps": "Who told each birth fact, and when each metadata key was written.",
    "requeues": "How often the message was requeued before this run.",
    "state": "What `tracker.checkpoint` was given, as JSON.",
    "run_started_at": "When the run that wrote it started.",
    "began_at": "When the run began that logged it.",
    "seq": "Order within the run; of lines numbers are left out with those left out.",
    "at": "When it was written, or logged.",
    "level_number": "The level as a number.",
    "logger": "The logger's name; `aiotrack` for the line that stands for lines left out.",
    "message": "What was logged, with its traceback, masked and bounded; of held work: what is "
    "sent, as JSON.",
    "span": "`hour` or `day`.",
    "level": "A line's level by name. Of a rollup: 0 all modules but `aiotrack`, 1 one module, "
    "2 one task name of a module.",
    "start": "When the period begins (UTC).",
    "success": "How many ended so.",
    "failure": "How many ended so.",
    "revoked": "How many ended so.",
    "skipped": "How many of them did nothing: the same work was already running.",
    "timed_out": "How many of the failures are of the error class `timeout`.",
    "lost": "How many of the failures are of the error class `lost`.",
    "duration_count": "How many have a duration.",
    "duration_sum": "Their seconds.",
    "wait_count": "How many have a start.",
    "wait_sum": "Seconds between creation and start.",
    "durations": "JSON object of logarithmic bucket and count.",
    "waits": "The same for waits.",
    "marked_at": "When a change of the period was last announced.",
    "cleaned": "Rows of it were deleted: counted live, never computed again.",
    "set_aside": "The run did not do the task's work: another delivery did.",
    "scope": "`global`, or `user`.",
    "owner": "The user; empty for `global`.",
    "key": "The setting.",
    "value": "What it is set to.",
    "set_at": "When it was set.",
    "host": "The host's name.",
    "pid": "The process on that host.",
    "beat_at": "When it was last heard of.",
    "beat_seconds": "Seconds between two beats; after three without one it is lost.",
    "beating_since": "Since when no beat was late.",
    "swept_at": "When it looked after lost workers last.",
    "stopped_at": "When it said farewell.",
    "closed_at": "When what it left unfinished was closed.",
    "queues": "What it listens to.",
    "tasks": "Names of the tasks it knows, and whether their bodies can be interrupted.",
    "concurrency": "How many tasks it runs at once, where that is known.",
    "versions": "Of Python and of the packages that matter.",
    "running": "The run_ids that it works on.",
    "memory": "Bytes of memory that it uses.",
    "cpu": "Share of a processor that it used lately.",
    "asked_at": "When somebody asked to cancel it.",
    "asked_by": "Who did.",
    "reason": "Why.",
    "name": "What people call it.",
    "description": "What it is for.",
    "task_type": "The name of the task that is sent.",
    "schedule_kind": "`manual`, `cron`, `interval` or `once`.",
    "schedule": "When, as JSON; its keys depend on the kind.",
    "parameters": "Keyword arguments, as JSON.",
    "max_retries": "Retries after the first attempt; 0: as the task's own labels say.",
    "timeout_seconds": "Seconds that a run may take.",
    "updated_at": "When it was changed last.",
    "actor": "Who did it, where that is known.",
    "action": "What was done, such as `schedule.pause`.",
    "target": "To what, such as `definition:7`.",
    "before": "What was, as JSON.",
    "after": "What is since then, as JSON.",
    "held_at": "When it was submitted.",
    "claimed_at": "When somebody began to send it.",
    "needs": "The task_id of the execution that it waits for.",
}
TABLES = {
    "aiotrack_executions": """One row for each execution. The columns from `run_id` to `stamps`
are the recorder's bookkeeping: read them, but do not rely on them.""",
    "aiotrack_attempts": """One row for each run of an execution that its own row cannot tell alone:
see [plain rows](../decisions/003-plain-rows.md). `tracker.attempts` reads both.""",
    "aiotrack_checkpoints": """One row for each execution that called `tracker.checkpoint`: see
[checkpoints](../how-to/checkpoints.md).""",
    "aiotrack_logs": """One row for each line that an attempt logged:
[keep task logs](../how-to/keep-task-logs.md). Delete them by `task_id` with their execution.""",
    "aiotrack_rollups": """What ended, by the hour and the day of creation: see
[how counts come about](../explanation/statistics.md). It can be deleted: the next sweep makes it
again from the executions that are still there.""",
    "aiotrack_settings": """Settings that were made while the product runs, by
`tracker.settings.set`: [keep the database small](../how-to/keep-the-database-small.md).""",
    "aiotrack_workers": """One row for each start of a process that runs tasks.""",
    "aiotrack_cancels": """Wishes to end executions, for workers to find.""",
    "aiotrack_task_definitions": """Tasks with parameters and a schedule, by name.""",
    "aiotrack_audit": """Who did what to what, and why; only ever appended to.""",
    "aiotrack_held": """Messages that are not sent before other executions have succeeded.""",
    "aiotrack_needs": """What each of them waits for.""",
    "aiotrack_rollups_dirty": """Periods whose rollups are not to be believed for now.""",
}
SETTINGS_TEXT = f"""# Settings

{NOTE}

Keyword > environment > default: `Tracker(url, settings={{"commit_budget": 0.5}})`,
`Tracker(settings=Settings(...))`, or a variable of the environment. Anything else is an
`InvalidSetting` that names the setting. A database or Redis given to `Tracker` itself comes before
`database_url` and `redis_url`. A `Settings(...)` made by hand reads no environment.

Where "rows" are among the layers, a row in the database comes before all of these, and a user's row
before the one for all: [keep the database small](../how-to/keep-the-database-small.md).
`await tracker.settings.explain(key)` and `aiotrack config` tell which layer won."""
TABLES_TEXT = f"""# Tables

{NOTE}

The models are `aiotrack.ExecutionRow`, `aiotrack.AttemptRow` and `aiotrack.LogRow`:
[join them to your own](../how-to/join-your-own-tables.md). On SQLite, times are whole microseconds
since 1970 UTC and JSON is text; the models turn both into Python values. The table
`{VERSION_TABLE}` holds the schema's version."""
ERRORS_TEXT = f"""# Errors

{NOTE}

All are exported from `aiotrack` itself. None ever leaves a hook of TaskIQ: a task goes on whatever
happens to its record. You meet them where you call the tracker."""

PROGRAM_TEXT = f"""# Command line

{NOTE}

`pip install 'aiotrack[cli]'`, then `aiotrack VERB` or `taskiq track VERB`. The database is
`--database`, else the variable `AIOTRACK_DATABASE_URL`, else `./aiotrack.db`; other
[settings](settings.md) come from the environment, too. What needs a project's broker takes it as
`taskiq worker` does: `shop.broker:broker --import shop.tasks`.

* People get tables and words, with times in their own zone, which is told:
  `2026-01-31 09:00:00+01:00`. Into a pipe goes plain text, one row a line; ids and names are
  whole, results and errors may end with `…`. Whatever a task may have put into a name or an error
  is shown, and never obeyed by the terminal. `NO_COLOR=1` takes the colours away.
* Programs get `--json`: one document on stdout and nothing else (`watch` and `logs --follow`: a
  line for each change), times in UTC, durations in seconds. Lists are
  `{{"items": […], "next": cursor or null}}`; `--after CURSOR` goes on.
* What is wrong is one line on stderr, `aiotrack: …`, and an exit code.

## Exit codes
"""
PROGRAM_END = """
A list that is empty is 0. Of several ids that are rerun, one that could not be sent makes it 1, and
4 if all of those are unknown.

```sh
aiotrack watch "$TASK_ID" > /dev/null       # until it ends
case $? in
    0) echo "it succeeded" ;;
    1) aiotrack explain "$TASK_ID" ;;
    3) echo "ask again later" ;;
    4) echo "no such task" ;;
esac
aiotrack db check || aiotrack db upgrade    # before a release starts
```"""


def settings() -> Iterator[str]:
    """Yield the page of settings."""
    yield from (SETTINGS_TEXT, "")
    meanings = attributes(Settings)
    lines = []
    for name, field in settable().items():
        default = "" if field.default is None else f"`{field.default}`"
        layers = "keyword, environment" + (", rows" if name in ROW_KEYS else "")
        meaning = " ".join(meanings[name].replace("``", "`").split())
        variable = f"`{PREFIX}{name.upper()}`"
        lines.append(
            (f"`{name}`", f"`{field.type}`", variable, default, span(name), layers, meaning)
        )
    head = ("setting", "type", "environment", "default", "range", "layers", "meaning")
    yield from table(head, lines)


def attributes(documented: type) -> dict[str, str]:
    """Read the ``Attributes`` of a Google docstring."""
    found: dict[str, str] = {}
    name = ""
    for line in cleandoc(documented.__doc__ or "").partition("Attributes:\n")[2].splitlines():
        if not line.strip():
            break
        if line.startswith("     "):
            found[name] += " " + line.strip()
        else:
            name, _, found[name] = line.strip().partition(":")
    return found


def span(name: str) -> str:
    """Ask the settings themselves for the range of a number."""
    if settable()[name].type not in {"int", "float", "float | None"}:
        return ""
    try:
        Settings(**{name: -2})
    except InvalidSetting as error:
        return error.fault.partition("outside ")[2]
    return ""


def tables() -> Iterator[str]:
    """Yield the page of tables."""
    yield TABLES_TEXT
    for found in Base.metadata.sorted_tables[::-1]:
        yield from ("", f"## {found.name}", "", TABLES[found.name], "")
        lines = [
            (
                f"`{column.name}`",
                kind(column),
                "yes" if column.nullable else "",
                COLUMNS[column.name],
            )
            for column in found.columns
        ]
        yield from table(("column", "type on Postgres / SQLite", "null", "meaning"), lines)
        yield from ("", "Indexes: " + "; ".join(indexes(found)) + ".")


def kind(column: Column[object]) -> str:
    """Name a column's type in both databases' words."""
    spoken = [
        column.type.compile(dialect=dialect())  # type: ignore[no-untyped-call]
        for dialect in (postgresql.dialect, sqlite.dialect)
    ]
    return " / ".join(dict.fromkeys(spoken)).lower()


def indexes(found: Table) -> Iterator[str]:
    """Describe the keys and indexes of a table."""
    yield f"primary key ({', '.join(f'`{column.name}`' for column in found.primary_key)})"
    yield from (f"unique (`{column.name}`)" for column in found.columns if column.unique)
    for index in sorted(found.indexes, key=lambda index: str(index.name)):
        yield describe(index)


def describe(index: Index) -> str:
    """Describe one index."""
    listed = ", ".join(f"`{column.name}`" for column in index.columns)
    where = index.dialect_options["postgresql"]["where"]
    return f"({listed})" if where is None else f"({listed}) where `{where}`"


def faults() -> Iterator[str]:
    """Yield the page of errors."""
    drawing = [line[4:] for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    yield from (ERRORS_TEXT, "", "```text", *drawing, "```", "")
    lines = []
    for error in walk(AioTrackError):
        also = ", ".join(f"`{base.__name__}`" for base in error.__bases__ if base not in ours())
        meaning = (error.__doc__ or "").splitlines()[0].replace("``", "`")
        lines.append((f"`{error.__name__}`", f"`{error.code}`", also, meaning))
    yield from table(("error", "`code`", "is also a", "meaning"), lines)


def program() -> Iterator[str]:
    """Yield the page of the command line."""
    yield from (PROGRAM_TEXT,)
    yield from table(("code", "meaning"), [(f"`{code}`", it) for code, it in MEANINGS.items()])
    yield PROGRAM_END
    for title, verbs in GROUPS.items():
        yield from ("", f"## {title}")
        for name, verb in verbs.items():
            below = getattr(loaded(verb.module)[name], "commands", {})
            yield from ("", f"### aiotrack {name}", "", "```text", shown(name), "```")
            for each in below:
                yield from ("", f"#### {name} {each}", "", "```text", shown(name, each), "```")


def shown(*names: str) -> str:
    """Give the help of a verb, as a terminal of 80 columns shows it."""
    width = {"COLUMNS": "80", "TERMINAL_WIDTH": "80"}
    asked = CliRunner().invoke(app, [*names, "--help"], prog_name="aiotrack", env=width)
    return asked.stdout.strip()


def ours() -> set[type]:
    """Give the errors of the module and what stands above all of them."""
    return {thing for thing in vars(errors).values() if isinstance(thing, type)} | {Exception}


def walk(error: type[AioTrackError]) -> Iterator[type[AioTrackError]]:
    """Give an error and those below it that users can meet."""
    yield error
    for below in error.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from walk(below)


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for line in lines:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "settings.md": settings,
    "tables.md": tables,
    "errors.md": faults,
    "cli.md": program,
}


def outdated() -> list[Path]:
    """Give the pages that are not what the code says."""
    return [
        REFERENCE / name
        for name, page in PAGES.items()
        if not (REFERENCE / name).exists()
        or (REFERENCE / name).read_text(encoding="utf-8") != written(page)
    ]


def written(page: Callable[[], Iterator[str]]) -> str:
    """Give the text of a page."""
    return "\n".join(page()) + "\n"


def main() -> int:
    """Write the pages, or check them."""
    old = outdated()
    for path in old:
        name = path.relative_to(ROOT)
        if "--check" in sys.argv[1:]:
            print(f"{name} is out of date: run  python docs/generate.py")
        else:
            path.write_text(written(PAGES[path.name]), encoding="utf-8")
            print(f"{name} written")
    return 1 if old and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
