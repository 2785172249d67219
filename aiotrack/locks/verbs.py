"""What users call: `task_lock`, a lock by its token, and who holds what."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiotrack.ends import at_loop_end
from aiotrack.errors import InvalidSetting, LockNotAcquired, StoreError, TrackerNotFound
from aiotrack.feature import Feature
from aiotrack.finding import the_tracker
from aiotrack.lifecycle import Lifecycle
from aiotrack.locks.names import checked_ttl, listed_name, lock_name

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from aiotrack.locks.holders import Holders
    from aiotrack.locks.lock import TaskLock

REDIS_VARIABLE = "AIOTRACK_REDIS_URL"

_WITHOUT: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Holders] = (
    weakref.WeakKeyDictionary()
)
"""Locks of code that runs without any tracker, by event loop."""


_ENDS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, object] = weakref.WeakKeyDictionary()
"""What closes them when their loop ends."""


class Locks(Feature):
    """A tracker's locks in one event loop; they connect on first use."""

    _holders: Holders | None = None

    def holders(self) -> Holders:
        """Give them.

        Raises:
            InvalidSetting: The tracker has no Redis.
        """
        if self._holders is None:
            if self.tracker.redis is None:
                raise _without_redis()
            settings = self.tracker.options
            self._holders = _holders(self.tracker.redis, settings.namespace, self.tracker.worker_id)
        return self._holders

    async def close(self, *, for_good: bool) -> None:
        """Disconnect; locks that are held connect again to be freed."""
        if self._holders is not None and for_good:
            await self._holders.close()


def _holders(redis: str | Redis, namespace: str, worker: str | None) -> Holders:
    from aiotrack.locks.holders import Holders

    return Holders(redis, namespace, worker)


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    _ENDS.pop(loop, None)
    holders = _WITHOUT.pop(loop, None)
    if holders is not None:
        await holders.close()


def _without_redis() -> InvalidSetting:
    return InvalidSetting(
        "redis",
        "locks need Redis or Valkey: Tracker(..., redis='redis://host:6379/0') "
        f"or {REDIS_VARIABLE}",
    )


def find_holders(tracker: Lifecycle | None) -> Holders:
    """Give the locks of a tracker, of the current run's, of the only started one, or of none.

    Raises:
        TrackerNotFound: Several trackers are started, or none and there is no AIOTRACK_REDIS_URL.
        InvalidSetting: The tracker has no Redis.
    """
    try:
        found = the_tracker(tracker)
    except TrackerNotFound as error:
        url = os.environ.get(REDIS_VARIABLE)
        if error.candidates or not url:
            raise
        loop = asyncio.get_running_loop()
        holders = _WITHOUT.get(loop)
        if holders is None:
            namespace = os.environ.get("AIOTRACK_NAMESPACE", "aiotrack")
            holders = _WITHOUT[loop] = _holders(url, namespace, None)
            _ENDS[loop] = at_loop_end(functools.partial(_end, loop))
        return holders
    return found.feature(Locks).holders()


def task_lock(
    name: str,
    *,
    key: object = None,
    ttl: float = 60.0,
    wait: float = 0.0,
    renew: bool = True,
    on_lost: str = "cancel",
    tracker: Lifecycle | None = None,
) -> TaskLock:
    """Make a lock for ``async with``: its body runs in one place at a time.

    One Redis holds it, so it promises what one Redis can: a holder that is paused for longer than
    the lease, or a Redis that loses its data, lets a second one in. What must be right writes
    `TaskLock.fence` and refuses a lower one.

    Args:
        name: Any text.
        key: Tells locks of one name apart; values of different type or value are different.
        ttl: Seconds of the lease, 0.05 to 86,400: how long a killed process blocks others.
        wait: Seconds to wait for it, in order of arrival; 0 tries once, `math.inf` for ever.
        renew: Make the lease longer while the body runs.
        on_lost: ``cancel``: when it is lost the body is cancelled and `LockLost` raised;
            ``flag``: only ``lost`` says so, and `LockLost` is raised at the end.
        tracker: Whose Redis; default: the current run's, else the only started one of this process,
            else ``AIOTRACK_REDIS_URL``.

    Raises:
        InvalidValue: A name, key, ttl, wait or on_lost that cannot be meant.
    """
    from aiotrack.locks.lock import TaskLock

    find = functools.partial(find_holders, tracker)
    return TaskLock(name, key=key, ttl=ttl, wait=wait, renew=renew, on_lost=on_lost, holders=find)


async def acquire_task_lock(
    name: str, ttl: float = 3600, *, key: object = None, tracker: Lifecycle | None = None
) -> str | None:
    """Take a lock without a block: it is not renewed, and ends after its *ttl*.

    Returns:
        The token that frees it; None when others hold it.

    Raises:
        InvalidValue: A name, key or ttl that cannot be meant.
        LockUnavailable: Redis does not answer.
    """
    holders = find_holders(tracker)
    seconds = checked_ttl(ttl)
    try:
        grant = await holders.space.acquire(
            lock_name(name, key), ttl=seconds, wait=0.0, info=holders.who(key, seconds)
        )
    except LockNotAcquired:
        return None
    return grant.token


async def release_task_lock(
    name: str, token: str, *, key: object = None, tracker: Lifecycle | None = None
) -> bool:
    """Free a lock that was taken with `acquire_task_lock`.

    Returns:
        False when it was not held with this token any more.

    Raises:
        LockUnavailable: Redis does not answer.
    """
    space, lock = find_holders(tracker).space, lock_name(name, key)
    # What we give is such a text; another may be no UTF-8 for Redis, and None is no token at all.
    given: object = token
    is_text = isinstance(given, str) and given.isascii()
    return is_text and await space.release(lock, token)


async def is_task_locked(
    name: str, *, key: object = None, tracker: Lifecycle | None = None
) -> bool:
    """Tell whether somebody holds a lock.

    Raises:
        LockUnavailable: Redis does not answer.
    """
    return await _info(find_holders(tracker), lock_name(name, key)) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LockInfo:
    """A lock that is held.

    Attributes:
        name: Its name, with the digest of its key behind a ``/``. Of a name with more than letters,
            digits and ``_ . : -`` it is the beginning, with the digest of all of it behind a ``~``.
        key: The key as text, shortened; None without.
        task_id: Of the execution that holds it; None outside a run.
        task_name: Likewise.
        worker: Id of the process.
        since: When it was taken, on Redis' clock.
        ttl: Seconds of its lease.
        left: Seconds until the lease ends, if it is not renewed.
        fence: Its number; `force_release` wants it.
        waiting: How many stand in its queue.
        is_lost: Whether its worker is lost, so that nobody renews it; None where no database that
            the tracker uses could tell.
    """

    name: str
    key: str | None
    task_id: str | None
    task_name: str | None
    worker: str | None
    since: datetime
    ttl: float | None
    left: float
    fence: int
    waiting: int
    is_lost: bool | None = None


class Listing:
    """Who holds what: ``tracker.locks``."""

    def __init__(
        self, tracker: Lifecycle | None, tell: Callable[..., Awaitable[None]] | None = None
    ) -> None:
        self._tracker = tracker
        self._tell = tell

    async def list(self, *, task_id: str | int | None = None) -> list[LockInfo]:
        """Give every lock that is held, by name.

        Args:
            task_id: Only what this execution holds.

        Raises:
            LockUnavailable: Redis does not answer.
        """
        from aiotrack.locks.holders import held_names

        holders = find_holders(self._tracker)
        names = await held_names(holders.space)
        found = await asyncio.gather(*(_info(holders, name) for name in sorted(names)))
        wanted = None if task_id is None else str(task_id)
        held = [info for info in found if info and wanted in {None, info.task_id}]
        return await _marked(self._tracker, held)

    async def info(self, name: str, *, key: object = None) -> LockInfo | None:
        """Tell who holds a lock; None: nobody. The name may be one that `list` gave.

        Raises:
            LockUnavailable: Redis does not answer.
        """
        found = await _info(find_holders(self._tracker), listed_name(name, key))
        return found and (await _marked(self._tracker, [found]))[0]

    async def force_release(
        self,
        name: str,
        *,
        key: object = None,
        fence: int | None = None,
        by: str | int | None = None,
        reason: str | None = None,
    ) -> bool:
        """Take a lock from its holder, who is told at once, or at its next renewal.

        The audit gets a row; where the database does not take it, that is logged.

        Args:
            name: Which; also as `list` gives it.
            key: Its key.
            fence: Only from the holder with this number; default: from who holds it now.
            by: Who wants it.
            reason: Why.

        Returns:
            False when nobody holds it, or somebody else does by now.

        Raises:
            LockUnavailable: Redis does not answer.
        """
        from aiotrack.locks.holders import force_release

        holders = find_holders(self._tracker)
        lock = listed_name(name, key)
        if fence is None:
            info = await _info(holders, lock)
            if info is None:
                return False
            fence = info.fence
        is_freed = await force_release(holders.space, lock, fence)
        if is_freed and self._tell is not None:
            facts = {"by": by, "reason": reason, "before": {"fence": fence}}
            await self._tell("lock.release", f"lock:{lock}", **facts)
        return is_freed


async def _marked(tracker: Lifecycle | None, held: list[LockInfo]) -> list[LockInfo]:
    """Say which holders are lost, if a database that is in use anyway can tell."""
    workers = {one.worker for one in held if one.worker is not None}
    try:
        repository = the_tracker(tracker).core().repository
        if not workers or not repository.is_ready:
            return held
        from aiotrack.repository.control.workers import Registry

        lost = await Registry(repository).lost_among(workers)
    except (TrackerNotFound, StoreError):
        return held
    return [replace(one, is_lost=one.worker in lost) for one in held]


async def _info(holders: Holders, lock: str) -> LockInfo | None:
    from aiotrack.locks.holders import held

    found = await held(holders.space, lock)
    if found is None:
        return None
    told = json.loads(found["info"] or "{}")
    return LockInfo(
        name=lock,
        key=told.get("key"),
        task_id=told.get("task_id"),
        task_name=told.get("task_name"),
        worker=told.get("worker"),
        since=datetime.fromtimestamp(int(found["since"]) / 1e6, UTC),
        ttl=told.get("ttl"),
        left=found["left"],
        fence=int(found["fence"]),
        waiting=found["waiting"],
    )
