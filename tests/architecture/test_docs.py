"""What `make docs` checks, and that the check itself sees faults."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "check.py"


@pytest.fixture
def check() -> ModuleType:
    """docs/check.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_link_leads_somewhere_and_every_block_compiles(check: ModuleType) -> None:
    """README and docs have no broken local link and no Python block with a syntax error."""
    found = [fault for page in check.pages() for fault in check.faults(page)]

    assert [] == found


def test_every_block_knows_its_names(check: ModuleType) -> None:
    """What a Python block uses is defined or imported in it, so that it can be copied."""

    assert [] == list(check.nameless(check.pages()))


def test_a_name_from_nowhere_is_seen(check: ModuleType, tmp_path: Path) -> None:
    """So is an import that is not used; `await` at the top is fine."""
    check.ROOT = tmp_path
    page = tmp_path / "page.md"
    page.write_text("# A\n```python\nimport os\n\nawait tracker.get(7)\n```\n")
    found = list(check.nameless([page]))

    assert ["page.md:3", "page.md:5"] == [fault.rpartition(": ")[0] for fault in found]


def test_a_broken_link_is_seen(check: ModuleType, tmp_path: Path) -> None:
    """A link to a missing file or heading is a fault; one that leads out or is code is none."""
    check.ROOT = tmp_path
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading\n[ok](#a-heading) [out](https://example.org/x) `[code](nowhere.md)`\n"
        "[gone](gone.md)\n[no heading](#nothing)\n"
    )

    assert [
        "page.md:3: no such file: gone.md",
        "page.md:4: no such heading: #nothing",
    ] == list(check.faults(page))


def test_a_python_block_that_does_not_compile_is_seen(check: ModuleType, tmp_path: Path) -> None:
    """A block of Python is compiled, where await may stand at the top; other languages are not."""
    check.ROOT = tmp_path
    page = tmp_path / "page.md"
    page.write_text("```python\nawait x\n```\n\n```sh\nif (\n```\n\n```python\nx = (\n```\n")

    faults = list(check.faults(page))

    assert 1 == len(faults)
    assert faults[0].startswith("page.md:10: python block:")
