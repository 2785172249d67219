"""Every `aiotrack` command that README and docs show is one that the program knows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
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
                    told = [*takewhile(lambda word: word not in {">", "&"}, told)]
                    told += ["ID"] if "xargs" in words else []
                    yield pytest.param(told, id=f"{page.name}: {' '.join(told)}"[:70])


@pytest.mark.parametrize("words", [*commands()])
def test_a_command_is_known(words: list[str]) -> None:
    """Its verb, the verb below it, each of its options, and how many arguments it takes."""
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    name = words[0] if words else "--help"
    if name.startswith("-"):
        assert name in {"--help", "--version"}
        return
    command = loaded(VERBS[name].module)[name]
    rest = words[1:]
    below = getattr(command, "commands", {})
    if rest and rest[0] in below:
        command = below[rest.pop(0)]
    known = {
        one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)
    }

    assert [] == [one for one in options if one not in known | {"--help"}]
    if "--help" not in options:
        values, left, _ = command.make_parser(command.context_class(command)).parse_args(rest)
        needed = [
            one.name for one in command.params if one.param_type_name == "argument" and one.required
        ]
        given = [name for name in needed if values.get(name)]

        assert [] == left
        assert given in ([], needed), "none at all names the verb, in a sentence"
