"""The locks of an event loop: who holds which, and who renews them."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aiotrack.current import CURRENT
from aiotrack.errors import LockReentry, LockUnavailable
from aiotrack.locks.grants import margin
from aiotrack.locks.renewal import Renewer
from aiotrack.locks.space import FORCE_RELEASE, REMEMBERED, Space
from aiotrack.redis.client import FAULTS
from aiotrack.redis.keys import lock_index, lock_keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from aiotrack.locks.lock import TaskLock
    from aiotrack.locks.renewal import Lease


TAKEN: Final = "somebody took it away"
GONE: Final = f"its lease ended, or {TAKEN}"


class Holders:
    """What the locks of one loop and one Redis share.

    Args:
        redis: URL or client.
        namespace: Begins every key.
        worker: Id of this process, for people.
    """

    def __init__(self, redis: str | Redis, namespace: str, worker: str | None = None) -> None:
        self.space = Space(redis, namespace)
        self.renewer = Renewer(redis, namespace, asyncio.get_running_loop())
        self.counters: Counter[str] = Counter()
        self._worker = worker or f"{socket.gethostname()}:{os.getpid()}"
        self._held: dict[tuple[str, object], TaskLock] = {}
        self._leases: dict[str, Lease] = {}
        self.space.on_revoked = self._revoked
        self._soon: set[asyncio.Task[None]] = set()

    def who(self, key: object, ttl: float) -> dict[str, Any]:
        """Tell who takes a lock, for people who look at it."""
        run = CURRENT.get()
        is_running = run is not None and not run.is_over
        return {
            "task_id": run.task_id if run is not None and is_running else None,
            "task_name": run.task_name if run is not None and is_running else None,
            "attempt": run.attempt if run is not None and is_running else None,
            "worker": self._worker,
            "key": None if key is None else str(key)[:200],
            "ttl": ttl,
        }

    def watch(self, lease: Lease) -> None:
        """Let its holder know at once when somebody takes the lock away."""
        self._leases[lease.token] = lease
        self.space.listen()

    def unwatch(self, lease: Lease) -> None:
        """It is held no more."""
        self._leases.pop(lease.token, None)

    def _revoked(self, token: str) -> None:
        lease = self._leases.pop(token, None)
        if lease is not None:
            self.renewer.drop(lease)
            lease.on_lost(lease, TAKEN)

    def hold(self, lock: TaskLock) -> None:
        """Remember a lock that is held."""
        self._held[lock.name, lock.task] = lock

    def let_go(self, lock: TaskLock) -> None:
        """Forget it."""
        self._held.pop((lock.name, lock.task), None)

    def refuse_reentry(self, lock: TaskLock) -> None:
        """Raise when the task that asks holds this lock already: it would wait for itself.

        Raises:
            LockReentry: It does.
        """
        held = self._held.get((lock.name, lock.task))
        if held is not None and held.lost is None:
            raise LockReentry(lock.name, self.who(None, 0.0))

    def extend_soon(self, lease: Lease) -> None:
        """Give a lock that was handed over for a moment its whole lease, once."""

        async def extend() -> None:
            sent = time.monotonic()
            try:
                is_ours = await self.space.extend(lease.name, lease.token, lease.ttl)
            except FAULTS:
                return  # its end is watched
            if is_ours:
                lease.deadline = sent + lease.ttl - margin(lease.ttl)
            else:
                lease.on_lost(lease, GONE)

        task = asyncio.get_running_loop().create_task(extend())
        self._soon.add(task)
        task.add_done_callback(self._soon.discard)

    async def close(self) -> None:
        """Finish what is under way, and disconnect."""
        self.renewer.close()
        await self.space.close()


async def server_time(space: Space, lock: str) -> int:
    """Give the microseconds of Redis' clock, for *lock*.

    Raises:
        LockUnavailable: Redis does not answer.
    """
    try:
        seconds, micros = await space.wire.ask("TIME")
    except FAULTS as error:
        raise LockUnavailable(lock, error) from error
    return int(seconds) * 1_000_000 + int(micros)


async def has_ended(space: Space, lock: str, mark: str) -> bool:
    """Tell whether the work with this mark held *lock*, and ended by itself a moment ago.

    Raises:
        LockUnavailable: Redis does not answer.
    """
    key, _ = lock_keys(space.namespace, lock)
    try:
        return bool(await space.wire.ask("EXISTS", f"{key}|ended:{mark}"))
    except FAULTS as error:
        raise LockUnavailable(lock, error) from error


async def held_names(space: Space) -> list[str]:
    """Give the names of the locks that are held, and forget those whose lease is over.

    Raises:
        LockUnavailable: Redis does not answer.
    """
    index = lock_index(space.namespace)
    now = await server_time(space, "*")
    try:
        await space.wire.ask("ZREMRANGEBYSCORE", index, "-inf", now)
        keys = await space.wire.ask("ZRANGE", index, 0, -1)
    except FAULTS as error:
        raise LockUnavailable("*", error) from error
    return [key.decode().removeprefix(f"{index}:") for key in keys]


async def held(space: Space, lock: str) -> dict[str, Any] | None:
    """Give what Redis knows of a lock; None when nobody holds it.

    Raises:
        LockUnavailable: Redis does not answer.
    """
    key, _ = lock_keys(space.namespace, lock)
    try:
        told, left, waiting = await asyncio.gather(
            space.wire.ask("HMGET", key, "info", "since", "fence", "renewed"),
            space.wire.ask("PTTL", key),
            space.wire.ask("ZCARD", f"{key}|queue"),
        )
    except FAULTS as error:
        raise LockUnavailable(lock, error) from error
    info, since, fence, renewed = told
    if fence is None or since is None:
        return None
    return {
        "info": info,
        "since": since,
        "fence": fence,
        "renewed": renewed,
        "left": max(0.0, left / 1000),
        "waiting": waiting,
    }


async def force_release(space: Space, lock: str, fence: int) -> bool:
    """Free a lock that is held with this fence; False when it is not any more.

    Raises:
        LockUnavailable: Redis does not answer.
    """
    request = secrets.token_hex(16)
    try:
        keys = lock_keys(space.namespace, lock)
        return bool(await space.wire.run(FORCE_RELEASE, keys, fence, request, REMEMBERED))
    except FAULTS as error:
        raise LockUnavailable(lock, error) from error
