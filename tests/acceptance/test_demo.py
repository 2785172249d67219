"""The demo runs a real broker, worker and database, with and without a terminal, and cleans up."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from aiotrack.demo.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 80  # seconds; an idle machine needs eight

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

# Where pytest runs in the background, children start with SIGINT ignored.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from aiotrack.cli import main
sys.exit(main())
"""


def command(*arguments: str) -> list[str]:
    """Give the command line of the program."""
    return [sys.executable, "-c", PROGRAM, *arguments]


def environment(temporary: Path) -> dict[str, str]:
    """Give an environment in which nothing is set but what every shell sets."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AIOTRACK_")}
    kept.pop("COLUMNS", None)
    return kept | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "TERM": "xterm-256color"}


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without a terminal."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment(folder) | variables,
        timeout=PATIENCE,
    )


def test_the_demo_shows_every_kind_in_plain_lines(tmp_path: Path) -> None:
    """Without a terminal: a line for each change, a summary, exit 0; `--keep` leaves records.

    What the shell has set for a project's workers does not reach it.
    """
    project = {"AIOTRACK_QUEUES": "gpu", "AIOTRACK_RESCUE_LOST_ENABLED": "false"}
    done = run(tmp_path, "demo", "--keep", **project)
    listed = run(tmp_path, "list", "-d", "sqlite:///aiotrack-demo.db", "--json")
    items = {item["task_name"]: item for item in json.loads(listed.stdout)["items"]}

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Each ended as it must" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 250  # people read it in a log
    assert re.search(r"PENDING +shop\.greet\n", done.stdout)
    assert re.search(r"SUCCESS +rates\.fetch +attempt 3 in ", done.stdout)
    assert "502" in done.stdout
    assert re.search(r"REVOKED +search\.crawl ", done.stdout)
    assert re.search(r"FAILURE +search\.index .* was lost", done.stdout)
    assert "aiotrack:mark_timed_out, sent by the scheduler: SUCCESS" in done.stdout
    assert "0 while it was paused for 2.5 s, 1 after it was resumed" in done.stdout
    assert ("ada", "lost") == (
        items["search.crawl"]["cancelled_by"],
        items["search.index"]["error_class"],
    )
    assert len(items) >= 10
    assert items["orders.place"]["task_id"] == items["orders.receipt"]["parent_task_id"]
    assert "hunter2" not in listed.stdout
    assert [] == left_behind(tmp_path)


def test_the_demo_is_live_in_a_terminal(tmp_path: Path) -> None:
    """In a terminal: colours, progress bars, counts, the summary, exit 0."""
    terminal, process = start_in_terminal(tmp_path, "demo")
    shown = read_all(terminal)

    assert 0 == process.wait(PATIENCE), shown
    assert "\x1b[32m" in shown
    assert "━" in shown
    assert re.search(r"\d+ running", shown)
    assert "Each ended as it must" in shown
    assert "The database was temporary" in shown
    assert [] == left_behind(tmp_path)


def test_ctrl_c_ends_the_demo_and_all_it_started(tmp_path: Path) -> None:
    """Ctrl-C while tasks run: exit 130, no process and no file is left."""
    terminal, process = start_in_terminal(tmp_path, "demo")
    shown = read_until(terminal, "running")
    started = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(True))]
    os.kill(process.pid, signal.SIGINT)
    shown += read_all(terminal)

    assert 130 == process.wait(PATIENCE), shown
    assert "stopped: worker and servers are gone" in shown
    assert "Traceback" not in shown
    assert len(started) >= 4
    assert [] == [pid for pid in started if psutil.pid_exists(pid)]
    assert [] == left_behind(tmp_path)


def test_the_demo_goes_on_with_its_dashboard(tmp_path: Path) -> None:
    """`--serve`: the page, the demo's records, and new ones; Ctrl-C ends it, and all is gone."""
    terminal, process = start_in_terminal(tmp_path, "demo", "--serve", "--port", "0")
    shown = read_until(terminal, "Ctrl-C ends it")
    address = re.search(r"http://127\.0\.0\.1:\d+/", shown)
    assert address is not None, shown
    started = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(True))]

    def total() -> int:
        with urlopen(f"{address[0]}api/v1/executions/stats/", timeout=30) as answer:
            counts = json.load(answer)
        return int(counts["total"])

    with urlopen(address[0], timeout=30) as answer:
        assert b"<title>aiotrack</title>" in answer.read()
    first, end = total(), time.monotonic() + 40
    assert first >= 20
    while total() < first + 3:
        assert time.monotonic() < end
        time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    shown += read_all(terminal)

    assert 0 == process.wait(PATIENCE), shown
    assert "Each ended as it must" in shown
    assert "Traceback" not in shown
    assert len(started) >= 6
    assert [] == [pid for pid in started if psutil.pid_exists(pid)]
    assert [] == left_behind(tmp_path)


def test_a_redis_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """`--redis` with a wrong address ends at once, with a line that says so."""
    done = run(tmp_path, "demo", "--redis", "redis://:secret@127.0.0.1:1/0")

    assert 3 == done.returncode
    assert "no Redis answers at ...@127.0.0.1:1/0" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_that_is_not_encoded_is_not_told(tmp_path: Path) -> None:
    """`--redis` with a `/` in its password: the line says how to write it, without a part of it."""
    done = run(tmp_path, "demo", "--redis", "redis://user:hunter2/x@localhost:6379/0")

    assert 2 == done.returncode
    assert "%2F" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_database_that_does_not_answer_ends_with_three(tmp_path: Path) -> None:
    """`--database` with a wrong address ends at once, with the exit code for it."""
    done = run(tmp_path, "demo", "--database", "postgresql://u:secret@127.0.0.1:1/x")

    assert 3 == done.returncode
    assert "is the server running" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert [] == left_behind(tmp_path)


def test_a_choice_too_many_is_refused(tmp_path: Path) -> None:
    """`--keep` is for the SQLite file, not for a PostgreSQL that goes away."""
    done = run(tmp_path, "demo", "--keep", "--postgres")

    assert 2 == done.returncode
    assert "choose one" in done.stderr


def test_the_demo_works_with_given_servers(
    tmp_path: Path, redis_url: str, empty_postgres_url: str
) -> None:
    """`--redis` and `--database` take servers that are there, and name what was recorded."""
    done = run(tmp_path, "demo", "--redis", redis_url, "--database", empty_postgres_url)
    name = re.search(r"--text (demo-\w+)", done.stdout)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert name is not None
    listed = run(tmp_path, "list", "-d", empty_postgres_url, "--text", name[1], "--json")
    assert len(json.loads(listed.stdout)["items"]) >= 10


def test_a_worker_that_cannot_start_leaves_its_last_words(tmp_path: Path) -> None:
    """A worker without its module ends by itself, and its log says why."""
    log = tmp_path / "worker.log"
    with Worker("aiotrack.demo.nothing:broker", environment={}, log_file=log) as worker:
        for _ in range(600):
            if not worker.is_running:
                break
            time.sleep(0.1)

        assert not worker.is_running
        assert "aiotrack.demo.nothing" in worker.last_words()


def start_in_terminal(folder: Path, *arguments: str) -> tuple[int, subprocess.Popen[bytes]]:
    """Start the program in a terminal of 130 columns; give the terminal's other end."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 130, 0, 0))
    process = subprocess.Popen(
        command(*arguments),
        stdin=inner,
        stdout=inner,
        stderr=inner,
        cwd=folder,
        env=environment(folder),
        start_new_session=True,
    )
    os.close(inner)
    return outer, process


def read_until(terminal: int, word: str) -> str:
    """Read what a terminal shows until *word* comes, or its end."""
    shown = b""
    while word.encode() not in shown:
        try:
            more = os.read(terminal, 65_536)
        except OSError:  # Linux: the other end was closed
            break
        if not more:
            break
        shown += more
    return shown.decode(errors="replace")


def read_all(terminal: int) -> str:
    """Read what a terminal shows until its end."""
    shown = read_until(terminal, "\0 never shown")
    os.close(terminal)
    return shown


def left_behind(folder: Path) -> list[str]:
    """List the demo's temporary folders that are still there."""
    return [path.name for path in folder.glob("aiotrack-demo-*") if path.is_dir()]
