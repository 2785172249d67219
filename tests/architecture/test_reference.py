"""The documentation says what the code says."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def generate() -> ModuleType:
    """docs/generate.py as a module."""
    return load("generate")


def test_the_reference_is_what_the_code_says(generate: ModuleType) -> None:
    """No page of docs/reference is out of date: `python docs/generate.py` writes them."""

    assert [] == generate.outdated()


def test_an_outdated_page_is_seen(generate: ModuleType, tmp_path: Path) -> None:
    """A page that is missing or was changed by hand is found."""
    generate.REFERENCE = tmp_path
    for name, page in generate.PAGES.items():
        (tmp_path / name).write_text(generate.written(page))
    (tmp_path / "errors.md").unlink()
    (tmp_path / "settings.md").write_text("by hand")

    assert {"errors.md", "settings.md"} == {path.name for path in generate.outdated()}


def test_the_check_ends_with_zero() -> None:
    """`docs/generate.py --check` is what a build can call."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_every_name_that_a_page_imports_exists() -> None:
    """What README and docs import from aiotrack can be imported."""
    check = load("check")
    missing = [
        f"{page.relative_to(ROOT)}: {module}.{name}"
        for page in check.pages()
        for _, language, code in check.split(page.read_text(encoding="utf-8"))[1]
        if language in {"python", "py"}
        for module, name in imported(code)
        if not exists(module, name)
    ]

    assert [] == missing


def load(name: str) -> ModuleType:
    """Load a script of docs as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imported(code: str) -> Iterator[tuple[str, str]]:
    """Yield the names that a block of code imports from aiotrack."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiotrack"):
            yield from ((node.module or "", name.name) for name in node.names)


def exists(module: str, name: str) -> bool:
    """Whether a module has a name, or a module of that name in it."""
    home = importlib.import_module(module)
    return hasattr(home, name) or importlib.util.find_spec(f"{module}.{name}") is not None
