"""What the result backends say of executions that did not end, asked by a sweep in bounded time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from aiotrack import results
from aiotrack.encode import is_shortened
from aiotrack.model import OWN_MODULE, TaskStatus
from aiotrack.report import History, Report

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.repository.control.unfinished import Open

AT_ONCE: Final = 10
"""Questions that are under way together."""

PAGE: Final = 500
"""Executions of one read: each status has its turn after that many."""

BATCH: Final = 50
"""Executions that are locked at a time: measured at 5 to 10 ms."""

MOST: Final = 5000
"""Questions of one sweep (a guess): the next one goes on where it stopped."""

YOUNG: Final = 120_000_000
"""Microseconds after its start, or its sending, in which nobody is missed yet."""

WORDS: Final = (TaskStatus.STARTED, TaskStatus.RETRY, TaskStatus.PENDING)

_places: WeakKeyDictionary[Core, dict[TaskStatus, Open]] = WeakKeyDictionary()
"""Where the sweep of a process goes on: the last one that was asked about, by status."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found by task_id, how many were asked about, and whether the time was too short."""

    found: Mapping[str, results.Outcome]
    asked: int
    is_cut: bool


async def ask(core: Core, rows: Iterable[Open], deadline: float) -> Answers:
    """Ask about executions, in their order, until a time of the loop's clock."""
    from aiotrack.repository.read import decode_task_id

    tracker = core.tracker
    found: dict[str, results.Outcome] = {}
    asked = 0
    # A backend knows the id of the message; in place of a shortened one it might know another task.
    waiting = (one for one in rows if not is_shortened(one.task_id))

    async def next_ones() -> None:
        nonlocal asked
        for one in waiting:
            asked += 1
            outcome = await results.ask(tracker, decode_task_id(one.task_id))
            if outcome is not None:
                found[one.task_id] = outcome

    asking = [asyncio.ensure_future(next_ones()) for _ in range(AT_ONCE)]
    left = deadline - asyncio.get_running_loop().time()
    _, slow = await asyncio.wait(asking, timeout=max(0.0, left))
    for one in slow:
        one.cancel()
    if slow:
        await asyncio.wait(slow)
    return Answers(found, asked, bool(slow))


async def fill(
    core: Core, seconds: float, claimed: frozenset[str], is_late: Callable[[Open, int], bool]
) -> None:
    """Sync unfinished executions from the result backends, those of each status by their age.

    Args:
        core: Of the running loop.
        seconds: For all of it.
        claimed: The run_ids that living workers name: they tell the end themselves.
        is_late: Who is asked about before a verdict, and not here.
    """
    if not results.can_tell(core.tracker):
        return
    clock = asyncio.get_running_loop().time
    deadline, left = clock() + seconds, MOST
    places = _places.setdefault(core, {})
    words = deque(WORDS)
    while words and left > 0 and clock() < deadline:
        word = words.popleft()
        now = core.tracker.clock.now()
        page = await core.repository.unfinished.page(
            word.value, after=places.get(word), until=now - YOUNG, size=PAGE
        )
        wanted = [one for one in page if _is_wanted(one, claimed, now) and not is_late(one, now)]
        seen: list[Open] = []
        answers = await ask(core, _noted(wanted[:left], seen), deadline)
        left -= answers.asked
        await _tell(core, answers.found)
        if len(seen) == len(wanted) and len(page) < PAGE:
            places.pop(word, None)  # the next sweep begins with the oldest
            continue
        words.append(word)
        if len(seen) == len(wanted):
            places[word] = page[-1]
        elif seen:
            places[word] = seen[-1]


def _is_wanted(one: Open, claimed: frozenset[str], now: int) -> bool:
    is_young = one.started_at is not None and one.started_at > now - YOUNG
    return not is_young and one.run_id not in claimed and one.module != OWN_MODULE


def _noted(rows: Sequence[Open], seen: list[Open]) -> Iterator[Open]:
    for one in rows:
        seen.append(one)
        yield one


async def _tell(core: Core, found: Mapping[str, results.Outcome]) -> None:
    """Write what was found, under the lock of each row: it may know better by now."""
    now = core.tracker.clock.now()

    def change(history: History) -> Iterable[Report]:
        return found[history.task_id].on(now, core.tracker)(history)

    ids = [*found]
    for first in range(0, len(ids), BATCH):
        await core.repository.revise(ids[first : first + BATCH], change)
