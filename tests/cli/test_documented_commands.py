"""Every `aiotrack` command that README and docs show is one that the program knows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiotrack.cli.app import loaded
from aiotrack.cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
SHELL = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(aiotrack [a-z][^`]*)`")


def typed(block: str) -> list[str]:
    """Give the lines of a block that are typed; where there are prompts, the rest is output."""
    lines = block.splitlines()
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    return prompted or lines


def commands() -> Iterator[Any]:
    """Give each command, by its page."""
    for page in PAGES:
        if page.name in {"CHANGELOG.md", "cli.md"}:
            continue
        text = page.read_text(encoding="utf-8")
        lines = [line for block in SHELL.findall(text) for line in typed(block)]
        for line in [*lines, *INLINE.findall(text)]:
            for part in re.split(r"\|\|?|&&|;", line.partition(" #")[0]):
                words = shlex.split(part)
                if "aiotrack" in words:
                    told = words[words.index("aiotrack") + 1 :]
                    yield pytest.param(told, id=f"{page.name}: {' '.join(told)}"[:70])


@pytest.mark.parametrize("words", [*commands()])
def test_a_command_is_known(words: list[str]) -> None:
    """Its verb, the verb below it, and each of its options."""
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    name = words[0] if words else "--help"
    if name.startswith("-"):
        assert name in {"--help", "--version"}
        return
    command = loaded(VERBS[name].module)[name]
    below = getattr(command, "commands", {})
    if len(words) > 1 and words[1] in below:
        command = below[words[1]]
    known = {
        one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)
    }

    assert [] == [one for one in options if one not in known | {"--help"}]
