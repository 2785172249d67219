"""Hearing records changes nothing of what users configured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BEGIN = """
import asyncio, logging, logging.config
from aiotrack import Tracker

log = logging.getLogger("app")

async def main():
    async with Tracker("sqlite+aiosqlite:///t.db") as tracker:
        async with tracker.track("shop.x", task_id="x"):
"""
END = """
        print([(line.level, line.message) for line in (await tracker.logs("x")).items])
    print(logging.root.parent, logging.root.handlers)

asyncio.run(main())
"""


def run(tmp_path: Path, body: str, before: str = "") -> tuple[list[str], str]:
    """Run a program that logs in a tracked block; gives what it printed, and its stderr."""
    lines = "".join(f"            {line}\n" for line in body.strip().splitlines())
    script = tmp_path / "main.py"
    script.write_text(before + BEGIN + lines + END)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIOTRACK_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_a_program_without_configuration_is_as_before(tmp_path: Path) -> None:
    """Warnings still go to stderr, INFO is made by nobody, and no handler is left."""
    out, err = run(tmp_path, 'log.info("quiet")\nlog.warning("loud")')

    assert ["[('WARNING', 'loud')]", "None []"] == out
    assert "loud\n" == err


def test_a_handler_of_a_logger_is_no_last_resort(tmp_path: Path) -> None:
    """What users' handlers print is printed once."""
    body = 'log.addHandler(logging.StreamHandler())\nlog.warning("once")'
    out, err = run(tmp_path, body)

    assert ["[('WARNING', 'once')]", "None []"] == out
    assert "once\n" == err


@pytest.mark.parametrize("place", ["before", "inside"])
def test_basic_config_works_before_and_inside(tmp_path: Path, place: str) -> None:
    """It finds a root logger without handlers of ours, whenever it is called."""
    config = "logging.basicConfig(level=logging.INFO, format='%(name)s %(message)s')"
    body = f"{config}\nlog.info('hello')" if place == "inside" else "log.info('hello')"
    before = f"import logging\n{config}\n" if place == "before" else ""
    out, err = run(tmp_path, body, before)

    assert "[('INFO', 'hello')]" == out[0]
    assert err.endswith("app hello\n")


def test_a_dict_config_takes_nothing_away(tmp_path: Path) -> None:
    """It replaces the root's handlers; loggers that it disables are silent everywhere."""
    body = """
log.warning("one")
logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}, "loggers": {"app": {}}})
log.info("two")
logging.getLogger("other")
logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}})
log.info("three")
"""
    out, _ = run(tmp_path, body)

    assert "[('WARNING', 'one'), ('INFO', 'two')]" == out[0]


def test_a_forked_child_is_not_heard(tmp_path: Path) -> None:
    """Its writer would be a copy; it logs as if there were no tracker."""
    body = """
import os
log.warning("parent")
child = os.fork()
if not child:
    log.warning("child")
    os._exit(0)
os.waitpid(child, 0)
"""
    out, err = run(tmp_path, body)

    assert "[('WARNING', 'parent')]" == out[0]
    assert "parent\nchild\n" == err
