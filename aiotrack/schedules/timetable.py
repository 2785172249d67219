"""The live state of all schedules in Redis, by scripts: each change is one, and counted."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiotrack.errors import ScheduleUnavailable
from aiotrack.redis.client import FAULTS, make_client
from aiotrack.redis.keys import schedule_keys
from aiotrack.redis.wire import Script, Wire
from aiotrack.schedules.entry import Entry

if TYPE_CHECKING:
    from redis.asyncio import Redis

LEASE: Final = 10_000
"""Milliseconds that a due time is its sender's; then anybody sends it. A broker that is slower than
that gets some runs twice, under one task_id."""

PAGE: Final = 500
"""Schedules of one answer: some 200 KB, which neither side is busy with for long."""

_FOLDER = Path(str(files("aiotrack.schedules"))) / "lua"
READ, PUT, CLAIM, AGAIN, MAKE = (
    Script(_FOLDER / "shared.lua", _FOLDER / f"{verb}.lua")
    for verb in ("read", "put", "claim", "again", "make")
)
_SENDING: Final = 3
"""Its place among the keys."""


class LostError(Exception):
    """Redis has lost its data, or was never told any."""


@dataclass(frozen=True, slots=True)
class Line:
    """One schedule as it stands; ``raw`` is None where there is none, ``due`` in milliseconds."""

    id: int
    revision: int
    raw: bytes | None
    due: int | None

    def entry(self) -> Entry | None:
        """Give what stands there; None when there is nothing.

        Raises:
            ValueError: It cannot be read.
        """
        return None if self.raw is None else Entry.read(self.raw)


@dataclass(frozen=True, slots=True)
class Late:
    """A due time that was not sent by the end (milliseconds) of its sender's time."""

    id: int
    due: int
    end: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: ``now`` is Redis' clock in milliseconds, ``odd`` ids that are no numbers."""

    now: int
    making: str
    version: int
    is_all: bool
    lines: list[Line]
    late: list[Late]
    odd: list[str]


@dataclass(frozen=True, slots=True)
class Claim:
    """What came of a wish for a due time.

    ``is_ours``; else ``wait`` is the milliseconds until it is due, or ``line`` how it stands now.
    """

    is_ours: bool
    wait: int | None = None
    line: Line | None = None


class Timetable:
    """The schedules of one namespace; connects on first use.

    All verbs raise `ScheduleUnavailable`; those that need what is there, `LostError`.

    Args:
        redis: URL or client.
        namespace: Begins every key.
    """

    def __init__(self, redis: str | Redis, namespace: str) -> None:
        self._redis = redis
        self._client = make_client(redis)
        self._wire = Wire(self._client)
        self._keys = schedule_keys(namespace)

    async def read(
        self, making: str = "", version: int | None = None, ids: Iterable[int] = ()
    ) -> Reading:
        """Read what changed since a version of a making, else everything; and *ids* besides."""
        seen = "" if version is None else version
        now, name, newest, every, lines, late = await self._read(making, seen, *ids)
        names = [one.decode(errors="replace") for one in every or ()]
        known = [one for one in names if _is_id(one)]
        for start in range(0, len(known), PAGE):
            *_, more, _ = await self._read("*", "", *known[start : start + PAGE])
            lines += more
        pairs = zip(late[::2], late[1::2], strict=True)
        return Reading(
            now=int(now),
            making=name.decode(),
            version=int(newest),
            is_all=every != 0,
            lines=[_line(one) for one in lines],
            late=[one for one in (_late(*pair) for pair in pairs) if one is not None],
            odd=[one for one in names if not _is_id(one)],
        )

    async def _read(self, *values: object) -> list[Any]:
        told: list[Any] = await self._run(READ, *values)
        if len(told) == 1:
            raise LostError
        return told

    async def line(self, definition_id: int) -> tuple[Line, int]:
        """Give one schedule, and Redis' time."""
        found = await self.read("*", None, (definition_id,))
        return found.lines[0], found.now

    async def now(self) -> int:
        """Give Redis' time, in milliseconds."""
        try:
            seconds, micros = await self._wire.ask("TIME")
        except FAULTS as error:
            raise ScheduleUnavailable(error) from error
        return int(seconds) * 1000 + int(micros) // 1000

    async def put(self, line: Line, entry: Entry | None, due: int | None) -> bool:
        """Change a schedule; False when it is not any more as it was read."""
        told = "" if entry is None else entry.write()
        moments = ["" if moment is None else moment for moment in (due, line.due)]
        done = await self._run(PUT, line.id, line.revision, told, *moments)
        if done < 0:
            raise LostError
        return bool(done)

    async def claim(
        self,
        line: Line,
        due: int,
        following: int | None,
        *,
        is_dropped: bool = False,
        entry: Entry | None = None,
    ) -> Claim:
        """Take a due time, to send it within `LEASE`; or drop it.

        Args:
            line: The schedule as it was read.
            due: What is taken.
            following: What is due next.
            is_dropped: Nobody sends it.
            entry: What the schedule becomes; None leaves it.
        """
        told = await self._run(
            CLAIM,
            line.id,
            line.revision,
            due,
            "" if following is None else following,
            "" if is_dropped else LEASE,
            "" if entry is None else entry.write(),
        )
        if told[0] < 0:
            raise LostError
        if told[0] == 0:
            return Claim(False, line=_line(told[1]))
        return Claim(True) if told[0] == 1 else Claim(False, wait=int(told[1]))

    async def again(self, late: Late) -> bool:
        """Take over what somebody did not send in time; False: he did, or somebody else does."""
        told = await self._run(AGAIN, f"{late.id}:{late.due}", late.end, LEASE)
        return bool(int(told))

    async def sent(self, definition_id: int, due: int) -> None:
        """Say that a due time was sent, or never will be."""
        try:
            await self._wire.ask("ZREM", self._keys[_SENDING], f"{definition_id}:{due}")
        except FAULTS as error:
            raise ScheduleUnavailable(error) from error

    async def make(self, lines: Iterable[tuple[int, Entry, int | None]]) -> bool:
        """Make everything anew; False when somebody did."""
        told: list[object] = [secrets.token_hex(8)]
        for definition_id, entry, due in lines:
            told += [definition_id, entry.write(), "" if due is None else due]
        return bool(await self._run(MAKE, *told))

    async def close(self) -> None:
        """Disconnect."""
        await self._wire.close()
        if self._client is not self._redis:
            await self._client.aclose(close_connection_pool=True)

    async def _run(self, script: Script, *values: object) -> Any:
        try:
            return await self._wire.run(script, self._keys, *values)
        except FAULTS as error:
            raise ScheduleUnavailable(error) from error


def _is_id(name: str) -> bool:
    return name.isascii() and name.isdigit() and 0 < len(name) < 20


def _line(told: list[bytes]) -> Line:
    name, revision, raw, due = told
    return Line(int(name), int(float(revision)), raw or None, _moment(due))


def _late(name: bytes, end: bytes) -> Late | None:
    definition, _, due = name.decode(errors="replace").partition(":")
    moment = _moment(end)
    is_ours = _is_id(definition) and _is_id(due) and moment is not None
    return Late(int(definition), int(due), moment or 0) if is_ours else None


def _moment(told: bytes) -> int | None:
    """Read a score of ours; what is no moment counts as none."""
    try:
        return int(float(told)) if told else None
    except (ValueError, OverflowError):
        return None
