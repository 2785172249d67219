"""What README and docs show in Python is no wish: each block runs, as far as it needs no server."""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
YOURS = {"shop", "tasks"}
"""Modules of the reader, which some blocks import."""


def blocks() -> Iterator[Any]:
    """Give every Python block by its page and line."""
    spec = importlib.util.spec_from_file_location("docs_check", ROOT / "docs" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    for page in check.pages():
        for line, language, code in check.split(page.read_text(encoding="utf-8"))[1]:
            if language in {"py", "python"}:
                yield pytest.param(code, id=f"{page.relative_to(ROOT)}:{line}")


def is_of_the_reader(node: ast.stmt) -> bool:
    """Tell whether a line awaits at the top of a block, or imports what only the reader has."""
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in YOURS
    if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef | ast.ClassDef):
        return False
    return any(isinstance(one, ast.Await) for one in ast.walk(node))


@pytest.fixture(autouse=True)
def _no_sinks_left() -> Iterator[None]:
    """What a block adds to loguru would say every line twice to the tests that come after it."""
    yield
    if "loguru" in sys.modules:
        sys.modules["loguru"].logger.remove()


@pytest.mark.parametrize("code", [*blocks()])
def test_a_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its imports are there, its decorators take what they are given; it leaves no file."""
    monkeypatch.chdir(tmp_path)
    for name in ("AIOTRACK_DATABASE_URL", "AIOTRACK_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    tree = ast.parse(code)
    tree.body = [one for one in tree.body if not is_of_the_reader(one)]
    module = types.ModuleType("a_block_of_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(tree, "block", "exec"), module.__dict__)

    assert [] == list(tmp_path.iterdir())
