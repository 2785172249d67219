"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "aiotrack"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE = 400  # lines
LONGEST_FUNCTION = 60  # lines without the docstring; 40 is what we aim at
BANNED_NAMES = {"utils", "helpers", "common", "misc"}

modules = pytest.mark.parametrize(
    "path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES]
)


def test_the_package_is_there() -> None:
    """The checks below look at real files."""

    assert (PACKAGE / "__init__.py") in MODULES
    assert len(MODULES) > 10


@modules
def test_a_file_is_short(path: Path) -> None:
    """No file of the package is longer than 400 lines."""
    length = len(path.read_text(encoding="utf-8").splitlines())

    assert length <= LONGEST_FILE, f"{path.relative_to(ROOT)} has {length} lines: split it"


@modules
def test_a_function_is_short(path: Path) -> None:
    """No function of the package is longer than 60 lines, its docstring apart."""
    long = [
        f"{name} has {length} lines"
        for name, length in functions(path)
        if length > LONGEST_FUNCTION
    ]

    assert [] == long


@modules
def test_a_module_says_what_it_is(path: Path) -> None:
    """Every module of the package opens with a docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    assert docstring, f"{path.relative_to(ROOT)} has no docstring"


@modules
def test_a_module_has_a_telling_name(path: Path) -> None:
    """Nothing is called utils, helpers or common."""

    assert BANNED_NAMES.isdisjoint(path.relative_to(PACKAGE).with_suffix("").parts)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each function's name and its length in lines, without decorators and docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node) is not None
            yield node.name, lines_of(node) - (lines_of(node.body[0]) if documented else 0)


def lines_of(node: ast.stmt) -> int:
    """Count the lines of one statement."""
    return (node.end_lineno or node.lineno) - node.lineno + 1
