"""Every example runs with one command and no server, and prints what its README shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/main.py"))
LONGEST = 80  # lines
TEXT_BLOCK = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)

examples = pytest.mark.parametrize("folder", EXAMPLES, ids=[path.name for path in EXAMPLES])


def test_the_examples_are_there() -> None:
    """The tests below look at real files."""

    assert len(EXAMPLES) >= 5


@examples
def test_an_example_prints_what_its_readme_shows(folder: Path, tmp_path: Path) -> None:
    """The command of the README gives its expected output, nothing on stderr, and no file."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    expected = TEXT_BLOCK.findall(readme)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("AIOTRACK_")
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(folder / "main.py")],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,  # a hang: what it prints is what counts
    )

    assert f"python examples/{folder.name}/main.py" in readme
    assert "" == done.stderr
    assert expected == [done.stdout]
    assert 0 == done.returncode
    assert [] == list(tmp_path.iterdir())


@examples
def test_an_example_is_short(folder: Path) -> None:
    """An example is read in one go: at most 80 lines."""
    lines = (folder / "main.py").read_text(encoding="utf-8").splitlines()

    assert len(lines) <= LONGEST
