"""``async with task_lock(...)``: taken, renewed while the body runs, freed; its loss is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from aiotrack.errors import InvalidValue, LockLost, LockUnavailable
from aiotrack.locks.names import checked_ttl, checked_wait, lock_name
from aiotrack.locks.renewal import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiotrack.locks.grants import Grant
    from aiotrack.locks.holders import Holders

log = logging.getLogger(__name__)

FOR_EVER: Final = math.inf
OVER: Final = "its lease is over"


class TaskLock:
    """A lock on a name, and a key; for one ``async with`` at a time.

    Attributes:
        name: As it was given, with the digest of the key behind a ``/``.
        lost: Why the lock is ours no more, None while it is.
    """

    def __init__(
        self,
        name: str,
        *,
        key: object = None,
        ttl: float = 60.0,
        wait: float = 0.0,
        renew: bool = True,
        on_lost: str = "cancel",
        holders: Callable[[], Holders],
    ) -> None:
        if on_lost not in {"cancel", "flag"}:
            raise InvalidValue(f"on_lost is 'cancel' or 'flag', not {on_lost!r}")
        self.name = lock_name(name, key)
        self.lost: str | None = None
        self._key = key
        self._ttl = checked_ttl(ttl)
        self._for = checked_wait(wait)
        self._renews = renew
        self._cancels = on_lost == "cancel"
        self._find = holders
        self._holders: Holders | None = None
        self._is_entered = False
        self._grant: Grant | None = None
        self._lease: Lease | None = None
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0
        self._has_cancelled = False

    @property
    def token(self) -> str:
        """What only this holder knows."""
        return self._granted().token

    @property
    def fence(self) -> int:
        """A number that rises with every grant: let what you write refuse a lower one."""
        return self._granted().fence

    def check(self) -> None:
        """Raise when the lock is ours no more; asks nobody.

        Raises:
            LockLost: It was lost, or its lease is over.
        """
        lease, lost = self._lease, self.lost
        if lost is None and lease is not None and time.monotonic() >= lease.deadline:
            lost = OVER  # the loop sees it at its next turn; this may be another thread
        if lost is not None:
            raise LockLost(self.name, lost)

    async def verify(self) -> None:
        """Ask Redis whether the lock is still ours: before a step that must not be done twice.

        Raises:
            LockLost: It is not, or its lease is over.
            LockUnavailable: Redis does not answer.
        """
        from aiotrack.locks.holders import GONE, held

        self.check()
        grant, holders = self._granted(), self._holders
        found = None if holders is None else await held(holders.space, self.name)
        self.check()
        if found is None or int(found["fence"]) != grant.fence:
            self.lost = GONE
            raise LockLost(self.name, self.lost)

    async def __aenter__(self) -> Self:
        """Take the lock.

        Raises:
            LockNotAcquired: Others hold it, for longer than was waited.
            LockUnavailable: Redis does not answer.
            LockReentry: This very task holds it.
            InvalidValue: This object is entered already.
        """
        if self._is_entered:
            raise InvalidValue(f"lock {self.name!r} is entered twice: make one for each block")
        holders = self._holders = self._find()
        self._task = asyncio.current_task()
        holders.refuse_reentry(self)
        self.lost, self._has_cancelled, self._is_entered = None, False, True
        grant = None
        try:
            grant = self._grant = await holders.space.acquire(
                self.name, ttl=self._ttl, wait=self._for, info=holders.who(self._key, self._ttl)
            )
            self._begin(holders, grant)
        except BaseException:
            self._is_entered = False
            if grant is not None:  # such as a thread that cannot be started
                self._end()
                holders.space.abandon(grant.name, grant.token)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Free the lock; what the body raised comes first, then a cancellation, then the loss.

        Raises:
            LockLost: The body was cancelled for it, or ended without an error of its own.
        """
        grant, holders = self._granted(), self._holders
        self._end()
        self._is_entered = False
        if holders is not None:
            if self.lost is None:
                await self._release(holders, grant)
            else:
                holders.space.abandon(grant.name, grant.token)
        if self.lost is None:
            return False
        if self._has_cancelled:
            is_cancelled = await self._uncancel(is_delivered=kind is asyncio.CancelledError)
            if is_cancelled and kind is None:
                raise asyncio.CancelledError  # from outside, and it came together with ours
            if not is_cancelled and kind in {None, asyncio.CancelledError}:
                raise LockLost(self.name, self.lost) from error
        elif kind is None:
            raise LockLost(self.name, self.lost)
        return False

    async def _uncancel(self, *, is_delivered: bool) -> bool:
        """Take our cancellation back; True when there is another one, from outside."""
        if not is_delivered:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # it may still be on its way
        task = self._task
        return task is not None and task.uncancel() > self._cancelling

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task that holds it, or tried to."""
        return self._task

    def _granted(self) -> Grant:
        if self._grant is None:
            raise InvalidValue(f"lock {self.name!r} was never held: use  async with")
        return self._grant

    def _begin(self, holders: Holders, grant: Grant) -> None:
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self._lease = Lease(
            grant.name, grant.token, self._ttl, grant.deadline, FOR_EVER, self._lose
        )
        holders.hold(self)
        holders.watch(self._lease)
        if self._renews:
            holders.renewer.add(self._lease)
        elif grant.is_brief:
            holders.extend_soon(self._lease)
        self._watch()

    def _end(self) -> None:
        """Renew and watch it no more."""
        lease, self._lease = self._lease, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._holders is None or lease is None:
            return
        self._holders.let_go(self)
        self._holders.unwatch(lease)
        if self._renews:
            self._holders.renewer.drop(lease)
        if self.lost is None and time.monotonic() >= lease.deadline:
            self.lost = OVER

    async def _release(self, holders: Holders, grant: Grant) -> None:
        try:
            is_freed = await holders.space.release(grant.name, grant.token)
        except LockUnavailable as error:
            holders.counters["release_failures"] += 1
            log.warning("%s; it ends with its lease of %g s", error, self._ttl)
            return
        if not is_freed and self.lost is None:
            self.lost = "its lease ended, or somebody took it away"

    def _watch(self) -> None:
        """Look at the end of the lease whether it was renewed; a loop timer costs nothing."""
        lease = self._lease
        if lease is None:
            return
        left = lease.deadline - time.monotonic()
        if left <= 0:
            self._lose(lease, OVER)
            return
        self._timer = asyncio.get_running_loop().call_later(left, self._watch)

    def _lose(self, lease: Lease, reason: str) -> None:
        """The lock is ours no more: tell the body."""
        if self._lease is not lease or self.lost is not None:
            return
        self.lost = reason
        log.warning("lock %s was lost: %s", self.name, reason)
        if self._cancels and self._task is not None and not self._task.done():
            self._has_cancelled = True
            self._task.cancel(f"lock {self.name} was lost: {reason}")
