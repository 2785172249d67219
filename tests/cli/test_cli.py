"""The command line reads real records, says what is wrong in one line, and never creates a file."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from taskiq.abc.cmd import TaskiqCMD
from typer.testing import CliRunner

from aiotrack import Tracker, __version__
from aiotrack.cli import main
from aiotrack.cli.app import app
from aiotrack.cli.taskiq_command import TrackCommand
from aiotrack.repository.columns import HEAD

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., Any]


async def fill(url: str) -> None:
    """Record three executions: a success, a failure after a retry, one that waits."""
    async with Tracker(url) as tracker:
        await tracker.register("a-1", "orders.place", created_by=42, metadata={"order_id": 7})
        await tracker.update("a-1", "success", result={"order": 7})
        await tracker.register("a-2", "billing.charge", args=["card"], status="running")
        await tracker.update("a-2", "retry", error=ConnectionError("no answer"))
        await tracker.update("a-2", "running")
        await tracker.update("a-2", "failed", error=ValueError("declined \x1b[2J"))
        await tracker.register("b-3", "orders.ship", module="logistics")


@pytest.fixture
def filled_url(sqlite_url: str) -> str:
    """A SQLite database with three executions."""
    asyncio.run(fill(sqlite_url))
    return sqlite_url


@pytest.fixture
def run(filled_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the filled database, as a wide terminal would show it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str, database: str | None = filled_url) -> Any:
        environment = {"AIOTRACK_DATABASE_URL": database, "COLUMNS": "200", "NO_COLOR": "1"}
        return CliRunner().invoke(app, arguments, env=environment)

    return run


def ids(result: Any) -> list[str]:
    """Give the task ids that a command printed as JSON."""
    return [item["task_id"] for item in json.loads(result.stdout)["items"]]


def test_list_shows_the_newest_first(run: Run) -> None:
    """`list` prints a line for each execution: id, task, status, outcome."""
    result = run("list")
    lines = result.stdout.splitlines()

    assert 0 == result.exit_code
    assert ["task_id", "b-3", "a-2", "a-1"] == [line.split()[0] for line in lines]
    assert '{"order": 7}' in lines[3]
    assert "ValueError: declined" in lines[2]


def test_list_as_json_is_a_page(run: Run) -> None:
    """`list --json` gives items and the cursor that leads to the next ones."""
    first = run("list", "--json", "--limit", "2")
    cursor = json.loads(first.stdout)["next"]
    second = run("list", "--json", "--limit", "2", "--after", cursor)

    assert ["b-3", "a-2"] == ids(first)
    assert ["a-1"] == ids(second)
    assert json.loads(second.stdout)["next"] is None
    assert json.loads(second.stdout)["items"][0]["created_at"].endswith("+00:00")


def test_a_full_page_names_the_next_one(run: Run) -> None:
    """`list` for people ends with how many there are, and the option that goes on."""
    cursor = json.loads(run("list", "--json", "--limit", "1").stdout)["next"]

    shown = run("list", "--limit", "1").stdout

    assert f"--after {cursor}" in shown
    assert "1 of 3\n" in shown
    assert " of " not in run("list", "--limit", "3").stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--status", "failed"], ["a-2"]),
        (["--status", "failed", "--status", "pending"], ["b-3", "a-2"]),
        (["--module", "logistics"], ["b-3"]),
        (["--task-name", "orders.place"], ["a-1"]),
        (["--created-by", "42"], ["a-1"]),
        (["--metadata", "order_id=7"], ["a-1"]),
        (["--text", "a-"], ["a-2", "a-1"]),
        (["--since", "1h"], ["b-3", "a-2", "a-1"]),
        (["--until", "1h"], []),
        (["--since", "2020-01-31T08:00"], ["b-3", "a-2", "a-1"]),
        (["--order", "created_at"], ["a-1", "a-2", "b-3"]),
    ],
)
def test_a_filter_narrows_the_list(run: Run, options: list[str], expected: list[str]) -> None:
    """Each option of `list` does what its Python keyword does."""

    assert expected == ids(run("list", "--json", *options))


def test_nothing_found_is_said(run: Run) -> None:
    """An empty list is no empty output, and no failure."""
    result = run("list", "--module", "nowhere")

    assert (0, "nothing found\n") == (result.exit_code, result.stdout)


def test_show_tells_every_attempt_with_its_own_error(run: Run) -> None:
    """`show` prints the record, and below it each attempt."""
    result = run("show", "a-2")

    assert 0 == result.exit_code
    assert "billing.charge  FAILURE" in result.stdout
    assert "ConnectionError: no answer" in result.stdout
    assert "ValueError: declined" in result.stdout


def test_show_as_json_holds_the_attempts(run: Run) -> None:
    """`show --json` gives the record with its attempts in it."""
    data = json.loads(run("show", "a-2", "--json").stdout)

    assert ("FAILURE", True) == (data["status"], data["is_completed"])
    assert ["no answer", "declined \x1b[2J"] == [item["error"] for item in data["attempts"]]


def test_show_takes_the_number_of_a_record(run: Run) -> None:
    """The number that `show` prints as id finds the record too."""
    number = json.loads(run("show", "a-1", "--json").stdout)["id"]

    assert "task_id     a-1" in run("show", str(number)).stdout


def test_an_error_cannot_steer_the_terminal(run: Run) -> None:
    """Escape sequences in what a task raised are shown, not obeyed."""
    result = run("show", "a-2")

    assert "\x1b" not in result.stdout
    assert "\\x1b[2J" in result.stdout


def test_stats_count_by_module_and_task(run: Run) -> None:
    """`stats` prints the counts for each module, each task and all."""
    lines = run("stats").stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}

    assert ["1", "0", "0", "0", "0", "1", "0", "100.0", "%"] == rows["billing.charge"]
    assert ["1", "1", "0", "0", "0", "0", "0", "0.0", "%"] == rows["logistics"]
    assert ["3", "1", "0", "0", "1", "1", "0", "50.0", "%"] == rows["all"]


def test_stats_as_json_obey_filters(run: Run) -> None:
    """`stats --json` gives the counts of what the filters match."""
    data = json.loads(run("stats", "--json", "--text", "orders").stdout)

    assert (2, 1, 1, 0.0) == (
        data["total"],
        data["success"],
        data["pending"],
        data["failure_rate"],
    )
    assert {"orders", "logistics"} == set(data["by_module"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "nobody"], 4, "no execution with task_id 'nobody'"),
        (["show", "4711"], 4, "no execution with id 4711"),
        (["list", "--database", "nonsense"], 2, "is not a URL"),
        (["list", "--limit", "1001"], 2, "1 to 1000"),
        (["list", "--status", "asleep"], 2, "unknown status 'asleep'"),
        (["list", "--since", "yesterday"], 2, "write 30m, 2h, 7d"),
        (["list", "--metadata", "order_id"], 2, "KEY=VALUE"),
        (["db", "sql", "--from", "9999"], 2, "9999"),
        (["list", "--database", "sqlite:///none.db"], 3, "there is no file"),
        (["list", "--database", "postgresql://u:secret@127.0.0.1:1/x"], 3, "is the server running"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, arguments: list[str], code: int, words: str) -> None:
    """An error is one line on stderr, without traceback or password, and an exit code."""
    result = run(*arguments)

    assert code == result.exit_code
    assert words in result.stderr
    assert result.stderr.startswith("aiotrack: ")
    assert 1 == result.stderr.count("\n")
    assert "secret" not in result.stderr


def test_wrong_usage_ends_with_two(run: Run) -> None:
    """An unknown verb is refused."""

    assert 2 == run("lst").exit_code


def test_a_bad_variable_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting in the environment that cannot be used is named."""
    monkeypatch.setenv("AIOTRACK_MAX_BACKLOG", "many")
    result = run("list")

    assert 2 == result.exit_code
    assert "AIOTRACK_MAX_BACKLOG" in result.stderr


def test_reading_creates_no_database(run: Run) -> None:
    """Without any database, `list` looks for ./aiotrack.db and leaves the folder as it is."""
    result = run("list", database=None)

    assert 3 == result.exit_code
    assert str(Path.cwd() / "aiotrack.db") in result.stderr
    assert [] == list(Path.cwd().iterdir())


def test_reading_makes_no_schema(run: Run, tmp_path: Path) -> None:
    """A database of somebody else gets no tables because it was looked at."""
    path = tmp_path / "other.db"
    path.touch()
    result = run("list", "--database", f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()

    assert 3 == result.exit_code
    assert "holds no executions" in result.stderr
    assert [] == tables


def test_check_says_that_the_schema_fits(run: Run) -> None:
    """`db check` ends with 0 on a database of this release."""
    result = run("db", "check", "--json")

    assert 0 == result.exit_code
    assert json.loads(result.stdout)["ok"] is True


def test_check_fails_on_another_schema(run: Run, filled_url: str) -> None:
    """`db check` ends with 1 on an older or newer schema, and `list` says what to type."""
    path = filled_url.partition("///")[2]
    told = []
    for version in ("0000", "9999"):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE aiotrack_version SET version_num = ?", [version])
        connection.close()
        told.append((run("db", "check").exit_code, run("list").exit_code))

    assert [(1, 3), (1, 3)] == told
    assert "pip install -U aiotrack" in run("list").stderr
    upgrade = run("db", "upgrade")
    assert (3, "pip install -U aiotrack") == (upgrade.exit_code, upgrade.stderr.strip()[-23:])


def test_upgrade_makes_the_schema(run: Run, tmp_path: Path) -> None:
    """`db upgrade` makes what `db check` misses."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    (tmp_path / "new.db").touch()
    before = run("db", "check", "-d", url)
    done = run("db", "upgrade", "-d", url)
    after = run("db", "check", "-d", url)

    assert [1, 0, 0] == [before.exit_code, done.exit_code, after.exit_code]
    assert "aiotrack db upgrade" in before.stdout


def test_the_printed_sql_makes_the_schema(run: Run, tmp_path: Path) -> None:
    """What `db sql` prints, run by hand, is the schema of this release."""
    path = tmp_path / "by-hand.db"
    connection = sqlite3.connect(path)
    connection.executescript(run("db", "sql", "--dialect", "sqlite").stdout)
    connection.close()

    assert 0 == run("db", "check", "-d", f"sqlite:///{path}").exit_code
    assert "JSONB" in run("db", "sql").stdout


def test_the_printed_sql_comes_as_json_too(run: Run) -> None:
    """With what it is for."""
    for dialect in ("postgresql", "sqlite"):
        options = ("--dialect", dialect, "--from", "0007")
        told = json.loads(run("db", "sql", *options, "--json").stdout)
        plain = run("db", "sql", *options).stdout

        assert "UPDATE aiotrack_version" in plain
        assert told == {"dialect": dialect, "from": "0007", "version": HEAD, "sql": plain}


def test_the_version_is_told(run: Run) -> None:
    """`version` and `--version` say the same."""
    told = f"aiotrack {__version__}\n"

    assert (told, told) == (run("version").stdout, run("--version").stdout)
    assert {"version": __version__} == json.loads(run("version", "--json").stdout)


def test_main_gives_exit_codes() -> None:
    """What the console script returns is the exit code."""

    assert [0, 2] == [main(["version"]), main(["no-such-verb"])]


def test_a_missing_package_is_named() -> None:
    """Without Typer the program says what to install, and how."""
    program = "import sys; sys.modules['typer'] = None; from aiotrack.cli import main; exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=50,
    )

    assert 2 == done.returncode
    assert "pip install 'aiotrack[cli]'" in done.stderr
    assert 1 == done.stderr.count("\n")


def test_a_closed_pipe_is_no_fault(filled_url: str) -> None:
    """`aiotrack list | head -0` prints no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "aiotrack", "list", "-d", filled_url, "--json"]
    done = subprocess.run(
        command,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=50,
    )
    os.close(writing)

    assert "Traceback" not in done.stderr


def test_taskiq_finds_the_plug_in() -> None:
    """`taskiq track` is announced in pyproject.toml, is TaskIQ's kind of command, and runs ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["taskiq_cli"]["track"].partition(":")

    assert TrackCommand is getattr(import_module(module), name)
    assert issubclass(TrackCommand, TaskiqCMD)
    assert 0 == TrackCommand().exec(["version"])
