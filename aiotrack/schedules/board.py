"""What a scheduler knows of all schedules, and what of it stands in TaskIQ's list."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from aiotrack.schedules.entry import ACTIVE, DONE, PATIENCE, Entry
from aiotrack.schedules.listing import Due, Listing
from aiotrack.schedules.timetable import LEASE, Late, Line, Reading

if TYPE_CHECKING:
    from taskiq import AsyncBroker

log = logging.getLogger(__name__)

STEP: Final = 50
"""Milliseconds by which the host's clock differs from Redis' where that is more than the way."""

BEHIND: Final = 10
"""Due times of one definition in the list, when it is behind: TaskIQ sends each once a second."""


class Board:
    """Schedules as they were read last.

    Args:
        brokers: Those that know the tasks.
        time_limit: Seconds that a run may take where nobody says it; 0: any.
    """

    def __init__(self, brokers: Iterable[AsyncBroker], time_limit: float) -> None:
        self.listing = Listing(brokers, time_limit)
        self.making = ""
        self.version: int | None = None
        """What was read last; None reads everything."""
        self.stale: set[int] = set()
        """Definitions that are to be read again, whatever the version."""
        self._lines: dict[int, Line] = {}
        self._entries: dict[int, Entry] = {}
        self._odd: set[tuple[str, bytes | None]] = set()
        self._offset = 0
        self._since: int | None = None

    def now(self) -> int:
        """Give Redis' time as far as it is known here, in milliseconds."""
        return host_now() + self._offset

    def forget_version(self) -> None:
        """Read everything at the next look."""
        self.version = None

    def is_missed(self, entry: Entry, due: int, now: int) -> bool:
        """Tell whether nobody looked at a due time when it was one."""
        is_seen = self._since is not None and due >= self._since
        return now - due > entry.patience(due, seen=is_seen)

    def follow(self, reading: Reading, asked: int) -> list[Late]:
        """Take what was read; give what was not sent in time and is not to be sent any more.

        Args:
            reading: What was read just now.
            asked: When, as `host_now` told it.
        """
        self._set_clock(reading.now, asked)
        if reading.is_all:
            for definition_id in self._lines.keys() - {line.id for line in reading.lines}:
                self.take(Line(definition_id, 0, None, None))
        for name in reading.odd:
            self._set_aside(name, None, "no definition has such an id")
        for line in reading.lines:
            self.take(line)
        self.stale.difference_update(line.id for line in reading.lines)
        self.making, self.version = reading.making, reading.version
        return [late for late in reading.late if not self._take_late(late, reading.now)]

    def take(self, line: Line) -> None:
        """Take a schedule as it stands, and list what is due next of it."""
        known = self._lines.get(line.id)
        if line.raw is None:
            self._lines.pop(line.id, None)
            self._entries.pop(line.id, None)
            self.listing.drop(line.id)
            return
        self._lines[line.id] = line
        try:
            if known is None or known.raw != line.raw or line.id not in self._entries:
                self._entries[line.id] = Entry.read(line.raw)
            self._show(line, self._entries[line.id])
        except Exception as error:  # whatever somebody wrote there
            self._entries.pop(line.id, None)
            self.listing.drop(line.id)
            self._set_aside(str(line.id), line.raw, str(error))

    def _show(self, line: Line, entry: Entry) -> None:
        dues: list[tuple[Due, int]] = []
        due, now = line.due if entry.state == ACTIVE else None, self.now()
        while due is not None and len(dues) < BEHIND:
            dues.append((Due(line, entry, due), due - self._offset))
            if due > now:
                break
            due = None if self.is_missed(entry, due, now) else entry.next(due)
        self.listing.show(line.id, dues)

    def _take_late(self, late: Late, now: int) -> bool:
        """List what somebody did not send in time; False when nobody wants it any more."""
        line, entry = self._lines.get(late.id), self._entries.get(late.id)
        if line is None or entry is None or entry.state not in {ACTIVE, DONE}:
            return False
        period = entry.timing.period(entry.anchor, late.due)
        if period is not None and now - late.due > max(period, PATIENCE + LEASE):
            log.warning("definition %d: a run could not be sent, and is skipped", late.id)
            return False
        if not self.listing.has(late):
            self.listing.add(Due(line, entry, late.due, late), now - self._offset)
        return True

    def _set_clock(self, now: int, asked: int) -> None:
        """Learn how far the host's clock is off, as far as the way to Redis and back tells it.

        A due time that is listed too late by a little is sent a whole second too late.
        """
        doubt = max(STEP, (host_now() - asked) // 2 + 1)
        found = now - (asked + host_now()) // 2
        offset = found if abs(found) > doubt else 0
        if abs(offset - self._offset) > doubt:
            self._offset = offset
            for line in list(self._lines.values()):
                self.listing.drop(line.id)
                self.take(line)
        if self._since is None:
            self._since = now

    def _set_aside(self, name: str, raw: bytes | None, fault: str) -> None:
        """Tell once of what cannot be read; all else goes on."""
        if (name, raw) not in self._odd and len(self._odd) < 1000:
            self._odd.add((name, raw))
            log.error("the schedule of definition %s in Redis is set aside: %s", name, fault)


def host_now() -> int:
    """Give this host's time in milliseconds."""
    return time.time_ns() // 1_000_000
