"""What one attempt logged and what of it is kept: the first half and the last half of a size."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from aiotrack.model import MARKER

if TYPE_CHECKING:
    from aiotrack.logs.writer import Logs

LINE_BYTES = 16
"""What a line counts besides its message, for its time and level: empty lines must end, too."""

LINE_MEMORY = 180
"""Bytes that a line takes in memory besides its message: 180 by tracemalloc."""

PACE_FIRST, PACE_LAST = 0.2, 5.0
"""Seconds between two writes of a tail that is a wholly new one each time: doubled from the first
to the last, so that a task that logs without end costs a few kilobytes a second."""

WARNING = 30


class Line(NamedTuple):
    """A line as it was logged, its message not yet masked."""

    at: int
    """Microseconds on the database's clock, perhaps unsettled."""
    level_number: int
    level: str
    logger: str
    message: str
    size: int
    """Bytes that it counts."""

    @property
    def weight(self) -> int:
        """Bytes of memory."""
        return self.size + LINE_MEMORY


_NO_LINES: deque[Line] = deque(maxlen=0)
_NO_SIZES: deque[int] = deque(maxlen=0)
"""The tail of a scroll that has none yet: an empty deque takes 600 bytes."""


class Part(NamedTuple):
    """What of a scroll goes into one write."""

    scroll: Scroll
    lines: list[tuple[int, Line]]
    """With their numbers."""
    cut: tuple[int, int] | None
    """The first and the last of those that are to be deleted."""
    weight: int
    """Bytes of memory that are free when it is written."""


class Scroll:
    """The lines of one attempt that are not written, and the sizes of its tail.

    Lines are numbered from 1. The head is written as it comes. What does not fit into it goes to
    the tail, of which the oldest line gives way to the newest. The number where the head ends is
    kept free for the marker, a line that says how much was left out between the two.

    Args:
        writer: Who writes it.
        task_id: As it is stored.
        run_id: Whose lines they are.
        attempt: None: the attempt that the execution is at when they are written.
        began_at: When the run began, in microseconds.
    """

    __slots__ = (
        *("writer", "task_id", "run_id", "attempt", "began_at", "is_held", "is_gone", "is_over"),
        *("_room", "_half", "_head", "_tail", "_sizes", "_size", "_last", "_tail_stored"),
        *("_marker", "_marked_at", "_is_marked", "_due", "_pace"),
        *("left_lines", "left_bytes"),
    )

    def __init__(
        self, writer: Logs, task_id: str, run_id: str, attempt: int | None, began_at: int
    ) -> None:
        self.writer = writer
        self.task_id = task_id
        self.run_id = run_id
        self.attempt = attempt
        self.began_at = began_at
        self.is_held = False
        """Its lines wait until it is known how the attempt ended."""
        self.is_gone = False
        """Nothing of it is kept."""
        self.is_over = False
        """Nothing more is expected: what waits for its pace is written at once."""
        self._half = writer.max_bytes // 2
        self._room = writer.max_bytes - self._half
        self._head: deque[Line] = deque()
        self._tail = _NO_LINES
        self._sizes = _NO_SIZES  # of all lines of the tail, also of those that are stored
        self._size = 0
        self._last = 0
        self._tail_stored = 0  # the first line of the tail that may be in the database
        self._marker = 0
        self._marked_at = 0
        self._is_marked = True
        self._due = 0.0
        self._pace = 0.0
        self.left_lines = 0
        self.left_bytes = 0

    @property
    def pending(self) -> int:
        """How many lines are to be written, the marker among them."""
        return len(self._head) + len(self._tail) + (not self._is_marked)

    def add(self, line: Line) -> int:
        """Take a line, and give the bytes of memory that this took; fewer than none are free."""
        self._last += 1
        if not self._marker:
            if line.size <= self._room:
                self._room -= line.size
                self._head.append(line)
                return line.weight
            self._end_head(self._last, line.at)
            self._last += 1
        self._tail.append(line)
        self._sizes.append(line.size)
        self._size += line.size
        taken = line.weight
        while self._size > self._half:
            taken -= self._leave_out_oldest()
        return taken

    def _end_head(self, marker: int, at: int) -> None:
        if not self._marker:
            self._tail, self._sizes = deque(), deque()
        self._marker = marker
        self._marked_at = at

    def _leave_out_oldest(self) -> int:
        size = self._sizes.popleft()
        self._size -= size
        self._count_out(size)
        return self._tail.popleft().weight if len(self._tail) > len(self._sizes) else 0

    def _count_out(self, size: int) -> None:
        self.left_lines += 1
        self.left_bytes += size - LINE_BYTES
        self._is_marked = False

    def shed_tail(self) -> int:
        """Leave the tail out, and give the bytes of memory that are free now."""
        freed = 0
        while self._sizes:
            freed += self._leave_out_oldest()
        return freed

    def shed(self) -> int:
        """Leave everything out that is not written, and give the bytes of memory."""
        freed = self.shed_tail()
        if self._head:
            first = (self._marker or self._last + 1) - len(self._head)
            self._end_head(first, self._head[0].at)
        for line in self._head:
            self._count_out(line.size)
            freed += line.weight
        self._head.clear()
        return freed

    def take(self, count: int, size: int, now: float) -> Part | None:
        """Give what is to be written next, of at most *count* lines and about *size* bytes.

        Args:
            count: Lines.
            size: Bytes.
            now: Seconds by the loop's clock: a tail that rolls is not written at every turn.
        """
        lines: list[tuple[int, Line]] = []
        end = self._marker or self._last + 1
        while self._head and count > len(lines) and size > 0:
            line = self._head.popleft()
            size -= line.size
            lines.append((end - len(self._head) - 1, line))
        cut, mark = None, None
        is_turn = now >= self._due or self.is_over
        if not self._head and count > len(lines) and size > 0 and is_turn:
            cut = self._cut()
            if not self._is_marked:
                self._is_marked = True
                mark = (self._marker, self._mark())
                self._set_pace(now)
            while self._tail and count > len(lines) and size > 0:
                line = self._tail.popleft()
                size -= line.size
                lines.append((self._last - len(self._tail), line))
        weight = sum(line.weight for _, line in lines)
        if mark is not None:
            lines.append(mark)
        return Part(self, lines, cut, weight) if lines or cut else None

    def _cut(self) -> tuple[int, int] | None:
        """Give the stored lines that are no part of the tail any more."""
        stored = self._tail_stored
        if not self._sizes and not stored:
            return None
        first = self._tail_stored = self._last - len(self._sizes) + 1
        return (stored, first - 1) if 0 < stored < first else None

    def _set_pace(self, now: float) -> None:
        """Write a tail the less often the longer it rolls on."""
        is_new = len(self._tail) == len(self._sizes)
        self._pace = min(max(2 * self._pace, PACE_FIRST), PACE_LAST) if is_new else PACE_FIRST
        self._due = now + self._pace

    def _mark(self) -> Line:
        return Line(
            self._marked_at,
            WARNING,
            "WARNING",
            MARKER,
            left_out(self.left_lines, self.left_bytes),
            LINE_BYTES,
        )

    def clear(self) -> int:
        """Forget all lines, and give the bytes of memory."""
        freed = sum(line.weight for line in (*self._head, *self._tail))
        self._head.clear()
        self._tail.clear()
        return freed


def left_out(lines: int, size: int | None = None) -> str:
    """Give the words for lines that were left out, and how many bytes their messages had."""
    noun = "line" if lines == 1 else "lines"
    return f"[... {lines} {noun}{'' if size is None else f', {size} bytes'} left out ...]"
