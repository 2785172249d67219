"""What of an attempt's log lines is kept: head, tail, and a marker that tells what is not."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from aiotrack.logs.scroll import LINE_BYTES, Line, Scroll

HALF = 10 * (LINE_BYTES + 4)
"""Ten lines of four characters."""


class Table:
    """What a database would hold after each write."""

    def __init__(self) -> None:
        self.rows: dict[int, str] = {}

    def write(self, scroll: Scroll, *, count: int = 10_000, now: float = math.inf) -> int:
        """Write what a scroll gives until it gives no more; gives the lines written."""
        written = 0
        while (part := scroll.take(count, 1 << 30, now)) is not None:
            if part.cut is not None:
                first, last = part.cut
                self.rows = {n: t for n, t in self.rows.items() if not first <= n <= last}
            self.rows |= {seq: line.message for seq, line in part.lines}
            written += len(part.lines)
        return written

    @property
    def messages(self) -> list[str]:
        """The lines in order."""
        return [self.rows[seq] for seq in sorted(self.rows)]


def scroll_of(half: int = HALF) -> Scroll:
    """A scroll whose head and tail hold ten lines each."""
    writer: Any = SimpleNamespace(max_bytes=2 * half)
    return Scroll(writer, "t", "r", 1, 0)


def line(number: int) -> Line:
    """A line of four characters."""
    text = f"{number:04d}"
    return Line(number, 20, "INFO", "app", text, len(text) + LINE_BYTES)


def expected(count: int) -> list[str]:
    """What is kept of so many lines of four characters."""
    told = [f"{number:04d}" for number in range(count)]
    if count <= 20:
        return told
    left = count - 20
    noun = "line" if left == 1 else "lines"
    return [*told[:10], f"[... {left} {noun}, {4 * left} bytes left out ...]", *told[-10:]]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 19, 20, 21, 22, 100, 5000])
def test_the_first_and_the_last_half_are_kept(count: int) -> None:
    """What fits is whole; of more the head and the tail stay, and a marker tells the rest."""
    scroll, table = scroll_of(), Table()
    for number in range(count):
        scroll.add(line(number))
    table.write(scroll)

    assert expected(count) == table.messages
    assert 0 == scroll.pending


@pytest.mark.parametrize("seed", range(30))
def test_it_does_not_matter_when_lines_are_written(seed: int) -> None:
    """Written in whatever pieces, at whatever times, the table ends as if written at once."""
    dice = random.Random(seed)
    scroll, table = scroll_of(), Table()
    count = dice.randint(1, 200)
    for number in range(count):
        scroll.add(line(number))
        if dice.random() < 0.2:
            table.write(scroll, count=dice.randint(1, 5), now=dice.choice([0.0, number, math.inf]))
    table.write(scroll)

    assert expected(count) == table.messages


def test_a_long_line_ends_the_head() -> None:
    """Nothing that comes after it stands before it."""
    scroll, table = scroll_of(), Table()
    long = Line(1, 20, "INFO", "app", "x" * 150, 150 + LINE_BYTES)
    for one in (line(0), line(1), long, line(3)):
        scroll.add(one)
    table.write(scroll)

    assert ["0000", "0001", "x" * 150, "0003"] == table.messages


def test_memory_is_counted_exactly() -> None:
    """What lines took is free again when they are written, left out, or shed."""
    dice = random.Random(1)
    scroll, memory = scroll_of(), 0
    for number in range(500):
        memory += scroll.add(line(number))
        if dice.random() < 0.1:
            part = scroll.take(5, 1000, math.inf)
            memory -= 0 if part is None else part.weight
        if number == 300:
            memory -= scroll.shed()
    memory -= scroll.clear()

    assert 0 == memory


def test_what_is_shed_is_told() -> None:
    """Lines that memory had no room for are counted by the marker, in their place."""
    scroll, table = scroll_of(), Table()
    for number in range(3):
        scroll.add(line(number))
    table.write(scroll)
    for number in range(3, 8):
        scroll.add(line(number))
    scroll.shed()
    scroll.add(line(8))
    table.write(scroll)

    told = ["0000", "0001", "0002", "[... 5 lines, 20 bytes left out ...]", "0008"]
    assert told == table.messages


def test_a_shed_tail_goes_from_the_table_too() -> None:
    """The tail is whole from some line on: stored lines before one that was shed give way."""
    scroll, table = scroll_of(), Table()
    for number in range(14):
        scroll.add(line(number))
    table.write(scroll)
    for number in range(14, 17):
        scroll.add(line(number))
    scroll.shed_tail()
    scroll.add(line(17))
    table.write(scroll)

    told = [f"{number:04d}" for number in range(10)]
    assert [*told, "[... 7 lines, 28 bytes left out ...]", "0017"] == table.messages


def test_a_rolling_tail_is_written_ever_less_often() -> None:
    """A task that logs without end is written a few times in the first second, then rarely."""
    scroll, table = scroll_of(), Table()
    writes = []
    for turn in range(300):  # a minute of turns
        for number in range(50):
            scroll.add(line(number))
        if table.write(scroll, now=turn * 0.2):
            writes.append(turn * 0.2)
    scroll.is_over = True
    scroll.add(line(7))

    assert len(writes) < 20
    assert max(b - a for a, b in pairwise(writes)) <= 5.3
    assert table.write(scroll, now=60.0)
