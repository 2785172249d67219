"""The program itself: it starts quickly, its help is plain, its codes and its JSON can be used."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from aiotrack import Tracker
from aiotrack.cli import main
from aiotrack.cli.app import app, loaded
from aiotrack.cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
AWAY = "postgresql+asyncpg://127.0.0.1:1/x"
EVIL = "evil\x1b]0;title\x07\u202egnp\u200f\u2028\x9b31m\x7f\ufeff\U000e0041é"
RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200f\u2028-\u202e\ufeff\U000e0000-\U000e007f]")
LONG = "id-" + "x" * 200

PLAIN = ("demo", "serve")
"""Verbs without --json: they show something live."""

PROJECT = """
print("what a project prints while it is imported")
import os
from taskiq_redis import RedisStreamBroker
from aiotrack import Tracker, TrackerMiddleware

tracker = Tracker(os.environ["SHOP_DATABASE"])
broker = RedisStreamBroker(os.environ["SHOP_REDIS"], queue_name="shop-cli-program")
broker.add_middlewares(TrackerMiddleware(tracker))
"""

Run = Callable[..., Any]


def commands(found: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through every verb, and the verbs below it."""
    if found is None:
        found = {name: loaded(verb.module)[name] for name, verb in VERBS.items()}
    for name, command in found.items():
        yield f"{path}{name}", command
        yield from commands(getattr(command, "commands", {}), f"{path}{name} ")


COMMANDS = dict(commands())


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "aiotrack", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Unbuffered, Python itself would not tell that a reader has gone away.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "", **environment},
    )


@pytest.fixture
def run(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on a database with texts that nobody should have to see."""

    async def fill() -> None:
        async with Tracker(sqlite_url) as tracker:
            await tracker.register(EVIL, EVIL, created_by=EVIL, module=EVIL, metadata={EVIL: EVIL})
            await tracker.update(EVIL, "running")
            await tracker.update(EVIL, "failed", error=ValueError(f"{EVIL}\n{EVIL}"))
            await tracker.register(LONG, f"shop.{'pay' * 50}")
            await tracker.update(LONG, "running")

    asyncio.run(fill())
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environment: str) -> Any:
        given = {"AIOTRACK_DATABASE_URL": sqlite_url, "COLUMNS": None, **environment}
        return CliRunner().invoke(app, arguments, env=given)

    return run


def test_help_loads_no_verb() -> None:
    """What the program shows of its verbs needs neither TaskIQ nor a database's library."""
    program = (
        "import sys; from aiotrack.cli import main; main(['--help'])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    modules = set(done.stderr.split())

    assert {"aiotrack", "typer"} <= modules
    assert set() == modules & {"alembic", "fastapi", "redis", "rich", "sqlalchemy", "taskiq"}
    assert all(f"  {name} " in done.stdout for name in VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_says_what_the_list_says(name: str) -> None:
    """The first line of its own help, which ends with a full stop and fits into a line."""
    told = VERBS[name].told
    shown = CliRunner().invoke(app, [name, "--help"]).stdout

    assert told == shown.splitlines()[2].strip()
    assert told.endswith(".")
    assert len(told) <= 60


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_plain(name: str) -> None:
    """Every option and argument has words and a name that people know; no frame, no colour."""
    given = [*COMMANDS[name].params]
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"FORCE_COLOR": "1"})

    assert 0 == result.exit_code
    assert [] == [one.name for one in given if not one.help]
    assert [] == [line for line in result.stdout.splitlines() if len(line) > 80]
    options = result.stdout.partition("Options:")[2]  # Typer itself puts types behind arguments
    assert not re.search(r"<(str|int|float|bool)|[─│\x1b]", options)
    assert not name.endswith(PLAIN) or "--json" not in options
    assert name.endswith(PLAIN) or any(one in options for one in ("--json", "Commands:"))


def test_the_program_says_what_it_knows_of_a_typo() -> None:
    """And where help is; with `-h`, too, and without any argument."""
    typo, short, nothing = (CliRunner().invoke(app, it) for it in (["lst"], ["-h"], []))

    assert (2, True) == (typo.exit_code, "Did you mean 'list'" in typo.stderr)
    assert (0, True) == (short.exit_code, "Look:" in short.stdout)
    assert (2, True) == (nothing.exit_code, "Look:" in nothing.output)


@pytest.mark.parametrize(
    "arguments",
    [
        "list", "show x", "explain x", "watch", "watch x", "logs x", "logs x -f", "stats", "report",
        "workers", "audit", "cancel x", "schedules", "schedules pause x", "sweep cleanup",
        "sweep mark_timed_out", "sweep rescue_lost", "sweep roll_up", "config",
        "config set retention_days 3", "config unset retention_days", "db check", "db upgrade",
    ],
)  # fmt: skip
def test_a_database_that_is_away_is_three(run: Run, arguments: str) -> None:
    """For every verb that needs one, as a line; stdout stays empty."""
    result = run(*arguments.split(), AIOTRACK_DATABASE_URL=AWAY)

    assert (3, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("aiotrack: ")
    assert 1 == result.stderr.count("\n")


@pytest.mark.parametrize(
    "arguments",
    ["show ID", "explain ID", "watch ID", "logs ID", "logs ID --follow", "cancel ID"],
)
@pytest.mark.parametrize("key", ["nobody", "4711", "9" * 30, "\u0661"])
def test_an_unknown_id_is_four(run: Run, arguments: str, key: str) -> None:
    """Whether it is a text, a number, or one that no record can have."""
    result = run(*arguments.replace("ID", key).split())

    assert (4, "") == (result.exit_code, result.stdout)
    assert "aiotrack: no execution with" in result.stderr


def test_a_number_names_a_record_everywhere(run: Run) -> None:
    """Where a task_id does; what is done is told by the task_id."""
    cancelled = run("cancel", "2", "--json")

    assert (1, LONG) == (cancelled.exit_code, json.loads(cancelled.stdout)["task_id"])
    assert [0, 0, 1] == [run(verb, "2").exit_code for verb in ("show", "logs", "cancel")]


@pytest.mark.parametrize(
    "arguments",
    [
        "list --limit 0", "list --limit many", "list --order size", "list --after nonsense",
        "list --since 5y", "logs 2 --level LOUD", "logs 2 --attempt x", "audit --limit 0",
        "report --since soon", "report --format pdf", "workers --status asleep",
        "sweep cleanup --retention-days -7", "config set logs 1", "config set retention_days x",
        "locks release x", "show", "watch 2 --module x", "db sql --dialect oracle",
        "doctor nowhere:broker", "doctor nonsense", "queues os:path", "serve --host 0.0.0.0",
        "serve --port 70000", "list --database nonsense", "stats extra", "db sql --from +1",
        "db sql --from 0001:0002", "db sql --from 9999",
    ],
)  # fmt: skip
def test_wrong_use_is_two(run: Run, arguments: str) -> None:
    """And nothing on stdout that a program could take for an answer."""
    result = run(*arguments.split())

    assert (2, "") == (result.exit_code, result.stdout)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "list --module nowhere", "stats --module nowhere", "workers", "audit", "config",
        "sweep roll_up", "logs 2", "report --since 1h",
    ],
)  # fmt: skip
def test_nothing_found_is_zero(run: Run, arguments: str) -> None:
    """An empty answer is an answer, and JSON."""
    shown, told = run(*arguments.split()), run(*arguments.split(), "--json")

    assert (0, 0, "") == (shown.exit_code, told.exit_code, told.stderr)
    assert isinstance(json.loads(told.stdout), dict)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    "arguments",
    [
        "list",
        "show 1",
        "explain 1",
        "watch 1",
        "stats",
        "report",
        "report --format csv",
        "report --format html",
        "cancel 1 --reason EVIL --by EVIL",
    ],
)
def test_foreign_text_never_steers_the_terminal(
    run: Run, arguments: str, options: list[str]
) -> None:
    """Nor hides in it: what cannot be seen is written out; JSON still means the same."""
    words = [EVIL if word == "EVIL" else word for word in arguments.split()]
    result = run(*words, *options)

    assert not RAW.search(result.output)
    assert result.exit_code in {0, 1}
    if arguments == "list" and options:
        assert EVIL in {item["task_name"] for item in json.loads(result.stdout)["items"]}


def test_nothing_is_cut_in_a_pipe(run: Run) -> None:
    """A program gets whole ids and names, a line each, without colours."""
    lines = run("list").stdout.splitlines()

    assert 3 == len(lines)
    assert lines[1].split()[:2] == [LONG, f"shop.{'pay' * 50}"]
    assert "\x1b" not in "".join(lines)


def test_a_cancel_is_in_the_audit(run: Run) -> None:
    """As one through the REST API is; also when it runs on."""
    run("cancel", "2", "--by", "ada", "--reason", "a duplicate")
    (row,) = json.loads(run("audit", "--json").stdout)["items"]

    assert ("execution.cancel", f"execution:{LONG}") == (row["action"], row["target"])
    assert ("ada", "a duplicate", {"outcome": "not_interruptible"}) == (
        *(row["actor"], row["reason"], row["after"]),
    )


def test_a_setting_is_in_the_audit(run: Run) -> None:
    """As one through the REST API is; what was not there and what is refused are not."""
    run("config", "set", "retention_days", "7", "--by", "ada")
    run("config", "set", "retention_days", "5", "--user", "42")
    run("config", "set", "retention_days", "-2", "--by", "ada")
    run("config", "unset", "retention_days", "--by", "bob")
    run("config", "unset", "retention_days", "--by", "bob")
    rows = json.loads(run("audit", "--json").stdout)["items"]

    assert {"setting:retention_days"} == {row["target"] for row in rows}
    assert [
        ("setting.unset", "bob", {"user": None, "value": 7}, {"user": None, "value": None}),
        ("setting.set", None, {"user": "42", "value": None}, {"user": "42", "value": 5}),
        ("setting.set", "ada", {"user": None, "value": None}, {"user": None, "value": 7}),
    ] == [(row["action"], row["actor"], row["before"], row["after"]) for row in rows]


def test_other_names_are_whole_in_a_pipe_too(run: Run, sqlite_url: str) -> None:
    """Of the audit, and of definitions."""

    async def fill() -> None:
        async with Tracker(sqlite_url) as tracker:
            await tracker.definitions.create(name="nightly", task_type=LONG, by=LONG)

    asyncio.run(fill())
    audit = run("audit").stdout.splitlines()[1].split()

    assert LONG in audit
    assert "definition:1" in audit


@pytest.mark.parametrize("columns", ["60", "80", "130"])
def test_no_id_is_cut_in_a_terminal(run: Run, columns: str) -> None:
    """It goes on in the next line; NO_COLOR is obeyed."""
    result = run("list", COLUMNS=columns, FORCE_COLOR="1", NO_COLOR="1", TERM="xterm-256color")
    plain = re.sub(r"\x1b\[[\d;]*m", "", result.stdout)
    first = "".join(line[:36].strip() for line in plain.splitlines())

    assert LONG in first
    assert max(map(len, plain.splitlines())) <= int(columns)
    assert not re.search(r"\x1b\[(\d+;)*[349]\d", result.stdout)
    assert re.search(r"\x1b\[(\d+;)*[349]\d", run("list", FORCE_COLOR="1", TERM="xterm").stdout)


def test_json_fits_what_stdout_can_encode(run: Run, sqlite_url: str) -> None:
    """Where that is not UTF-8, all else is escaped."""
    del run
    process = start(
        "list",
        "--json",
        AIOTRACK_DATABASE_URL=sqlite_url,
        PYTHONIOENCODING="latin-1",
        PYTHONUTF8="0",
    )
    out, err = process.communicate(timeout=30)

    assert (0, "") == (process.returncode, err)
    assert EVIL in {item["task_name"] for item in json.loads(out)["items"]}
    assert out.isascii()


def test_closed_streams_are_no_fault(run: Run, sqlite_url: str) -> None:
    """The exit code tells all the same."""
    del run
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m aiotrack show 2 --json >&- 2>&-"],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AIOTRACK_DATABASE_URL": sqlite_url},
    )

    assert 0 == done.returncode


def test_ctrl_c_is_130(run: Run, sqlite_url: str) -> None:
    """And says nothing more."""
    del run
    process = start("watch", "2", "--json", AIOTRACK_DATABASE_URL=sqlite_url)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert "STARTED" == first["status"]
    assert (130, "", "") == (process.returncode, out, err)


@pytest.mark.parametrize("words", [["list", "--json"], ["show", "a"]], ids=["json", "text"])
def test_a_reader_that_goes_away_is_141(run: Run, sqlite_url: str, words: list[str]) -> None:
    """As for any program of Unix, without a word: `aiotrack list | head -1`."""
    del run
    much = "\n".join(["x" * 50] * 1_000)

    async def fill() -> None:
        async with Tracker(sqlite_url) as tracker:  # more than a pipe holds
            for name in ("a", "b", "c"):
                await tracker.register(name, "shop.pay", args=[much])
                await tracker.update(name, "success", result=much)

    asyncio.run(fill())
    process = start(*words, AIOTRACK_DATABASE_URL=sqlite_url)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()

    assert (141, "") == (process.wait(30), err)


@pytest.fixture
def project(run: Run, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in the folder of a project."""
    (tmp_path / "program_shop.py").write_text(PROJECT)
    (tmp_path / "program_broken.py").write_text("raise RuntimeError('no key \x1b')\n")
    monkeypatch.setenv("SHOP_DATABASE", sqlite_url)
    monkeypatch.setenv("SHOP_REDIS", "redis://127.0.0.1:1")

    def here(*arguments: str) -> Any:
        for name in ("program_shop", "program_broken"):
            sys.modules.pop(name, None)
        return run(*arguments)

    return here


@pytest.mark.parametrize("arguments", ["queues", "sync 1", "rerun 1", "schedules trigger x"])
def test_a_broker_that_is_away_is_three(project: Run, arguments: str) -> None:
    """In a line, like a database."""
    verb, *rest = arguments.rsplit(" ", 1)
    result = project(*verb.split(), "program_shop:broker", *rest)

    assert 3 == result.exit_code, result.stderr
    assert "aiotrack: the broker program_shop:broker does not start" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_definition_is_sent_now(project: Run, tmp_path: Path, sqlite_url: str) -> None:
    """By its name or id; what nobody knows is 4, a task of a module not imported 2."""
    (tmp_path / "program_mail.py").write_text(
        "import os\n"
        "from taskiq import InMemoryBroker\n"
        "from aiotrack import Tracker, TrackerMiddleware\n"
        "tracker = Tracker(os.environ['SHOP_DATABASE'])\n"
        "broker = InMemoryBroker(await_inplace=True).with_middlewares(TrackerMiddleware(tracker))\n"
        "@broker.task('mail.remind')\n"
        "async def remind() -> None: ...\n"
    )

    async def fill() -> None:
        async with Tracker(sqlite_url) as tracker:
            await tracker.definitions.create(name="remind", task_type="mail.remind")
            await tracker.definitions.create(name="other", task_type="mail.other")

    asyncio.run(fill())
    trigger = ("schedules", "trigger", "program_mail:broker")
    by_name = project(*trigger, "remind", "--by", "ada", "--json")
    by_id = project(*trigger, "1")
    codes = [project(*trigger, name).exit_code for name in ("nobody", "other")]

    assert 0 == by_name.exit_code, by_name.output
    assert ("ada", 1) == tuple(
        json.loads(by_name.stdout)[key] for key in ("created_by", "config_id")
    )
    assert "1 is sent as " in by_id.stdout
    assert [4, 2] == codes


def test_a_module_that_raises_is_named(project: Run) -> None:
    """With the line that raised."""
    result = project("tasks", "program_shop:broker", "--import", "program_broken")

    assert 2 == result.exit_code
    assert "RuntimeError: no key \\x1b" in result.stderr
    assert "program_broken.py:1)" in result.stderr


def test_a_log_does_not_steer_the_terminal_either(run: Run, tmp_path: Path) -> None:
    """Whatever a project logs while it is looked at."""
    del run
    (tmp_path / "program_loud.py").write_text(
        "import logging\n"
        "from taskiq import InMemoryBroker\n"
        "broker = InMemoryBroker()\n"
        "logging.getLogger('shop').warning('look \\x1b[2J \\u202e')\n"
    )
    process = start("doctor", "program_loud:broker", "--json", PYTHONPATH=f"{ROOT}:{tmp_path}")
    out, err = process.communicate(timeout=30)

    assert (1, True) == (process.returncode, "no-tracker" in out)
    assert "look \\x1b[2J \\u202e\n" == err


def test_what_nobody_foresaw_is_70(
    project: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its traceback: 1 is an answer of a verb that works."""
    del project
    (tmp_path / "program_odd.py").write_text(
        "from taskiq import InMemoryBroker\n"
        "from aiotrack import Tracker, TrackerMiddleware\n"
        "class Odd(InMemoryBroker):\n"
        "    async def shutdown(self) -> None:\n"
        "        raise ZeroDivisionError('odd')\n"
        "broker = Odd().with_middlewares(TrackerMiddleware(Tracker('sqlite+aiosqlite://')))\n"
    )

    assert 70 == main(["queues", "program_odd:broker"])
    assert "ZeroDivisionError: odd" in capsys.readouterr().err


def test_what_a_project_prints_is_not_on_stdout(project: Run) -> None:
    """That is for the answer."""
    result = project("tasks", "program_shop:broker", "--json")

    assert 0 == result.exit_code
    assert {"items"} == set(json.loads(result.stdout))
    assert "while it is imported" in result.stderr


def test_the_program_is_a_group_of_typer() -> None:
    """A project may put it below a command of its own."""
    own = typer.Typer()
    own.add_typer(app, name="track")
    own.command()(lambda: None)

    assert "aiotrack" in CliRunner().invoke(own, ["track", "version"]).stdout


ODD = ["\udcff", "9" * 30, "x" * 70_000, "a=" + "[" * 3_000]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_no_word_of_a_shell_makes_a_traceback(
    database_url: str, redis_url: str, queue_name: str, odd: str
) -> None:
    """Bytes that are no text, endless numbers, depth: an answer, or a line that tells a fault."""
    environment = {
        "AIOTRACK_DATABASE_URL": database_url,
        "AIOTRACK_REDIS_URL": redis_url,
        "AIOTRACK_NAMESPACE": queue_name,
    }
    told = [
        (words, result.exit_code)
        for words in (
            ["list", f"--module={odd}", f"--text={odd}", f"--created-by={odd}"],
            *(["list", f"--{name}={odd}"] for name in ("since", "metadata", "after", "order")),
            ["show", odd],
            ["logs", odd, f"--level={odd}"],
            ["audit", f"--actor={odd}"],
            ["config", "set", "retention_days", "3", f"--user={odd}"],
            ["sweep", "cleanup", f"--retention-days={odd}"],
            ["schedules", "pause", odd, f"--by={odd}", f"--reason={odd}"],
            ["cancel", "x", f"--by={odd}", f"--reason={odd}"],
            ["db", "sql", f"--from={odd}"],
        )
        for result in [CliRunner().invoke(app, words, env=environment)]
        if not (result.exception is None or isinstance(result.exception, SystemExit))
        or result.exit_code not in {0, 2, 4}
    ]

    assert [] == told
