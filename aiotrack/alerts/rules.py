"""The rules: each looks at the fleet as it is, and gives what it finds by its subject."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from aiotrack.clock import to_datetime
from aiotrack.counts import Stats
from aiotrack.model import Worker, WorkerStatus

if TYPE_CHECKING:
    from aiotrack.tracker import Tracker

log = logging.getLogger(__name__)

ENOUGH: Final = 20
"""Executions below which a share or a median says nothing."""

SHORT, RECENT, LONG = timedelta(minutes=15), timedelta(hours=1), timedelta(days=7)

SECOND: Final = 1.0
"""What takes less is not slow, however quick it was before."""

OVERDUE: Final = timedelta(minutes=5)
LOST_FOR: Final = timedelta(minutes=30)
"""How long a lost worker is something to see to: its work was rescued by then."""

MOST: Final = 20
"""Subjects of one rule that go on, or take a closer look."""

Found = dict[str, str | None]
"""What is wrong, by its subject or target; None: it was looked at, and it is fine."""

Closer = Callable[[], Awaitable[str | None]]
"""A look that costs more, and says the same."""

UNSURE: Final = frozenset({"backlog"})
"""Rules that leave out what did not answer: only what was looked at is fine."""


async def _failure_rate(tracker: Tracker) -> Found:
    stats: Stats = await tracker.stats(since=SHORT)
    found = Found()
    for name, counts in stats.by_task_name.items():
        ended = counts.success + counts.failure
        if ended >= ENOUGH and counts.failure_rate >= tracker.options.alert_failure_rate:
            found[name] = f"{counts.failure} of {ended} runs failed within fifteen minutes"
    return found


async def _slow_task(tracker: Tracker) -> dict[str, Closer]:
    recent: Stats = await tracker.stats(since=RECENT)
    return {
        name: partial(_slowness, tracker, name)
        for name, counts in recent.by_task_name.items()
        if counts.success + counts.failure >= ENOUGH
    }


async def _slowness(tracker: Tracker, name: str) -> str | None:
    lately: Stats = await tracker.stats(task_name=name, since=RECENT)
    before: Stats = await tracker.stats(task_name=name, since=LONG, until=_now(tracker) - RECENT)
    if lately.p50_duration is None or before.p50_duration is None or before.total < ENOUGH:
        return None
    times = lately.p50_duration / max(before.p50_duration, 1e-6)
    if lately.p50_duration < SECOND or times < tracker.options.alert_slow_factor:
        return None
    told = f"half of its runs took {lately.p50_duration:.1f} s or more within an hour"
    return f"{told}, {times:.0f} times as long as in the last week"


async def _silent_schedule(tracker: Tracker) -> Found:
    if tracker.redis is None:
        return {}
    runs: dict[int, datetime] = await tracker.schedules.next_runs()
    now = _now(tracker)
    return {
        f"task_{number}": f"it was due at {due:%H:%M:%S} UTC: is there a scheduler?"
        for number, due in runs.items()
        if now - due > OVERDUE
    }


async def _backlog(tracker: Tracker) -> Found:
    options, found = tracker.options, Found()
    for queue in await tracker.queues():
        age = queue.oldest_age or 0.0
        is_long = queue.depth >= options.alert_backlog or age >= options.alert_backlog_seconds
        told = f"{queue.depth} messages wait, the oldest for {age:.0f} s"
        found[queue.name] = told if is_long else None
    return found


async def _lost_worker(tracker: Tracker) -> Found:
    now = _now(tracker)
    return {
        one.id: f"{one.host} said nothing since {one.beat_at:%H:%M:%S} UTC, and no farewell"
        for one in await tracker.workers()
        if one.status is WorkerStatus.LOST and now - one.beat_at < LOST_FOR
    }


async def _worker_memory(tracker: Tracker) -> Found:
    most = tracker.options.alert_worker_memory
    return {
        one.id: f"it has {(one.memory or 0) / 2**20:.0f} MiB in memory"
        for one in await _alive(tracker)
        if most is not None and (one.memory or 0) >= most
    }


async def _worker_cpu(tracker: Tracker) -> Found:
    most = tracker.options.alert_worker_cpu
    return {
        one.id: f"it uses {one.cpu or 0:.2f} cores"
        for one in await _alive(tracker)
        if most is not None and (one.cpu or 0.0) >= most
    }


async def _alive(tracker: Tracker) -> Iterable[Worker]:
    return [one for one in await tracker.workers() if one.status is WorkerStatus.ALIVE]


def _now(tracker: Tracker) -> datetime:
    now = to_datetime(tracker.clock.now())
    assert now is not None
    return now


RULES: Final[dict[str, Callable[[Tracker], Awaitable[Mapping[str, str | Closer | None]]]]] = {
    "failure-rate": _failure_rate,
    "slow-task": _slow_task,
    "silent-schedule": _silent_schedule,
    "backlog": _backlog,
    "lost-worker": _lost_worker,
    "worker-memory": _worker_memory,
    "worker-cpu": _worker_cpu,
}


async def look(tracker: Tracker, known: Collection[str] = ()) -> tuple[Found, set[str]]:
    """Ask every rule.

    Args:
        tracker: Of the fleet.
        known: Targets, in the audit, of what went on until now: they are looked at first.

    Returns:
        What was found, by target; and the rules that could not look, or not at all of it,
        with the targets that were too many: what they found before goes on, unless they say that
        it is fine.
    """
    found = Found()
    blind = set(UNSURE)
    name = tracker.encoder.name
    for rule, ask in RULES.items():
        try:
            seen = await ask(tracker)
            targets = {subject: name(f"{rule}:{subject}") for subject in seen}
            told = await _told(seen, {one for one in seen if targets[one] in known})
        except Exception as error:
            log.warning("alerts of %s are not looked for now: %s", rule, error)
            blind.add(rule)
            continue
        found |= {targets[subject]: text for subject, text in told.items()}
        blind |= {targets[one] for one in seen.keys() - told.keys()}
    return found, blind


async def _told(seen: Mapping[str, str | Closer | None], known: Collection[str]) -> Found:
    """Take as many as may be, those that are *known* first; what is left out was not looked at."""
    found, wrong, looks = Found(), 0, 0
    for subject in sorted(seen, key=lambda one: one not in known):
        text = seen[subject]
        if callable(text):
            looks += 1
            if looks > MOST:
                continue
            text = await text()
        wrong += text is not None
        if text is None or wrong <= MOST:
            found[subject] = text
    return found
