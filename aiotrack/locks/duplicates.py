"""``@prevent_duplicate_task``: work that is already running is not done twice at a time."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar, cast

from aiotrack.current import CURRENT, Run
from aiotrack.errors import (
    InvalidSetting,
    InvalidValue,
    LockNotAcquired,
    LockUnavailable,
    TrackerNotFound,
)
from aiotrack.locks.names import checked_ttl, lock_name
from aiotrack.locks.verbs import find_holders

if TYPE_CHECKING:
    from types import TracebackType

    from aiotrack.locks.grants import Grant
    from aiotrack.locks.holders import Holders
    from aiotrack.locks.renewal import Lease

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

LEASE: Final = 30.0
"""Seconds of the lease, which is renewed: a killed worker blocks the work for that long."""

LOOK: Final = 0.5
"""Seconds between two looks of a redelivered copy at whether the first delivery lives."""

RUNNING: Final = "task_already_running"
UNAVAILABLE: Final = "lock_unavailable"


def prevent_duplicate_task(
    lock_name: str,
    lock_param: str | tuple[str, ...] | list[str] | None = None,
    timeout: float = 3600,
    *,
    on_unavailable: str = "raise",
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a task's body run only while no other run of the same work does.

    Put it under ``@broker.task``, on an async or sync function. What is held elsewhere is skipped:
    the body does not run, ``{"success": False, "status": "skipped", "reason":
    "task_already_running"}`` is returned, and the record says ``metadata["skipped_by"]``. A retry
    of the same task_id takes over from the attempt before it. A redelivered copy of a message
    waits until it sees that the first delivery lives, or has ended, and is then set aside without
    a result; or takes over, when the lease of the first one ran out.

    Args:
        lock_name: Any text.
        lock_param: Parameter, or several, whose values tell the work apart; given by keyword, by
            position or by default they mean the same.
        timeout: Seconds that the lock is held at most; the body is not ended by it.
        on_unavailable: With Redis away, or without one: ``raise`` what `task_lock` raises, ``run``
            all the same, or ``skip`` with the reason ``lock_unavailable``.

    Raises:
        InvalidValue: An unknown parameter, a name, timeout or word that cannot be meant, or the
            decorator stands above ``@broker.task``.
    """
    names = (lock_param,) if isinstance(lock_param, str) else tuple(lock_param or ())
    _check(lock_name, timeout, on_unavailable)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if hasattr(function, "kiq") or not callable(function):
            raise InvalidValue(
                "prevent_duplicate_task goes under @broker.task, next to the function"
            )
        signature = inspect.signature(function)
        unknown = [name for name in names if name not in signature.parameters]
        if unknown:
            raise InvalidValue(
                f"{function.__qualname__}() has no parameter {', '.join(unknown)}: "
                f"it has {', '.join(signature.parameters) or 'none'}"
            )

        def guard(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Guard:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = tuple(bound.arguments[name] for name in names)
            key = values[0] if len(values) == 1 else values or None
            return _Guard(lock_name, key, timeout, on_unavailable)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
                own = guard(args, kwargs)
                skipped = await own.enter()
                if skipped is not None:
                    return skipped
                async with own:
                    return await function(*args, **kwargs)

            return cast("Callable[P, T]", guarded)

        @functools.wraps(function)
        def guarded_sync(*args: P.args, **kwargs: P.kwargs) -> Any:
            own = guard(args, kwargs)
            with _Portal() as call:
                skipped = call(own.enter)
                if skipped is not None:
                    return skipped
                try:
                    with own:
                        return function(*args, **kwargs)
                finally:
                    own.leave_by(call)

        return cast("Callable[P, T]", guarded_sync)

    return decorate


def _check(name: str, timeout: object, on_unavailable: str) -> None:
    lock_name(name)
    is_long = isinstance(timeout, (int, float)) and timeout >= LEASE
    checked_ttl(LEASE if is_long else timeout)
    if on_unavailable not in {"raise", "run", "skip"}:
        raise InvalidValue(f"on_unavailable is 'raise', 'run' or 'skip', not {on_unavailable!r}")


def _skipped(reason: str) -> dict[str, Any]:
    return {"success": False, "status": "skipped", "reason": reason}


class _Guard:
    """The lock of one call."""

    def __init__(self, name: str, key: object, timeout: float, on_unavailable: str) -> None:
        self._name = lock_name(name, key)
        self._key = key
        self._timeout = timeout
        self._ttl = min(timeout, LEASE)
        self._on_unavailable = on_unavailable
        self._holders: Holders | None = None
        self._lease: Lease | None = None
        self._run: Run | None = None
        self._mark = ""
        self._is_cut_off = False

    async def enter(self) -> dict[str, Any] | None:
        """Take the lock; give what the call returns when its body must not run.

        Raises:
            LockUnavailable: Redis is away, and that is to be raised.
            InvalidSetting: There is none, likewise.
            TrackerNotFound: Nobody says which, likewise.
            NoResultError: This is a second delivery of work that another worker does.
        """
        run = CURRENT.get()
        if run is not None and not run.is_over:
            self._run, self._mark = run, json.dumps([run.task_id, run.attempt, run.requeues])
        try:
            self._holders = find_holders(None)
            skipped = await self._enter(self._holders, run)
        except (LockUnavailable, InvalidSetting, TrackerNotFound):  # or nobody has a Redis here
            if self._on_unavailable == "raise":
                raise
            log.warning("lock %s is unavailable: its task is %s", self._name, self._on_unavailable)
            skipped = None if self._on_unavailable == "run" else _skipped(UNAVAILABLE)
        if run is not None and skipped is not None:
            for one in run.with_twins():
                one.skipped = skipped  # no result of the body: nothing to validate
        return skipped

    def __enter__(self) -> None:
        """Around the body itself."""

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was cancelled did not end: a copy of it may go on."""
        self._is_cut_off = error is not None and not isinstance(error, Exception)

    async def __aenter__(self) -> None:
        """Around an async body, which is followed by `leave`."""

    async def __aexit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
        await self.leave()

    async def leave(self) -> None:
        """Free the lock, if it is still ours."""
        holders, lease, self._lease = self._holders, self._lease, None
        if holders is None or lease is None:
            return
        holders.renewer.drop(lease)
        holders.unwatch(lease)
        try:
            await holders.space.release(lease.name, lease.token, ended=self._ended())
        except LockUnavailable as error:
            log.warning("%s; it ends with its lease of %g s", error, self._ttl)

    def _ended(self) -> str:
        """Give the mark of work that ended, well or not; not of what was sent again meanwhile."""
        if self._run is None or self._is_cut_off:
            return ""
        return "" if any(one.resent for one in self._run.with_twins()) else self._mark

    def leave_by(self, call: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]) -> None:
        """Free it from sync code; the body's outcome is what counts, whatever happens here."""
        try:
            call(self.leave)
        except Exception as error:
            log.warning("lock %s ends with its lease: %s", self._name, error)

    async def _enter(self, holders: Holders, run: Run | None) -> dict[str, Any] | None:
        from aiotrack.locks.holders import server_time

        arrived: int | None = None
        while True:
            info = holders.who(self._key, self._ttl)
            try:
                grant: Grant | None = await holders.space.acquire(
                    self._name, ttl=self._ttl, wait=0.0, info=info
                )
            except LockNotAcquired as held:
                holder = held.holder
                task_id = holder.get("task_id")
                if run is None or run.is_over or task_id != run.task_id:
                    if run is not None and arrived is not None:  # it waited for its first delivery
                        await self._refuse_done(holders, run)
                    _tell(run, str(task_id or holder.get("worker") or "unknown"))
                    return _skipped(RUNNING)
                arrived = arrived or await server_time(holders.space, self._name)
                grant = await self._succeed(holders, run, info, arrived)
            if grant is not None:
                if run is not None and arrived is not None:
                    await self._refuse_done(holders, run, grant)
                self._hold(holders, grant)
                return None
            await asyncio.sleep(LOOK)

    async def _succeed(
        self, holders: Holders, run: Run, info: dict[str, Any], arrived: int
    ) -> Grant | None:
        """Take over from an earlier attempt; of the same one, find out whether it lives.

        Raises:
            NoResultError: It does: its result is the one that counts.
        """
        from aiotrack.locks.holders import held

        found = await held(holders.space, self._name)
        if found is None:
            return None
        told = json.loads(found["info"])
        if told.get("task_id") == run.task_id and (told.get("attempt") or 0) < run.attempt:
            fence = int(found["fence"])
            return await holders.space.take_over(self._name, fence, ttl=self._ttl, info=info)
        if int(found["renewed"] or 0) > arrived:
            _set_aside(run)
        return None

    async def _refuse_done(self, holders: Holders, run: Run, grant: Grant | None = None) -> None:
        """Set a copy aside when its first delivery freed the lock at its end, well or not.

        Raises:
            NoResultError: It did: its result is the one that counts.
        """
        from aiotrack.locks.holders import has_ended

        is_done = True  # or nobody knows, and the lock that it left to us is not needed
        try:
            is_done = await has_ended(holders.space, self._name, self._mark)
        finally:
            if is_done and grant is not None:
                holders.space.abandon(grant.name, grant.token)
        if is_done:
            _set_aside(run)

    def _hold(self, holders: Holders, grant: Grant) -> None:
        from aiotrack.locks.renewal import Lease

        until = time.monotonic() + self._timeout
        self._lease = Lease(grant.name, grant.token, self._ttl, grant.deadline, until, self._lost)
        holders.renewer.add(self._lease)
        holders.watch(self._lease)

    def _lost(self, _: Lease, reason: str) -> None:
        log.warning("lock %s was lost, its body runs on: %s", self._name, reason)


def _set_aside(run: Run) -> NoReturn:
    from taskiq import NoResultError

    for one in run.with_twins():
        one.is_set_aside = True
    raise NoResultError


def _tell(run: Run | None, holder: str) -> None:
    """Let each tracker's record say who did the work instead."""
    if run is not None and not run.is_over:
        for one in run.with_twins():
            one.tracker.note(one, {"skipped_by": holder})


class _Portal:
    """Runs coroutines for sync code: in the tracker's loop, or in one of its own."""

    def __init__(self) -> None:
        run = CURRENT.get()
        # Of a parent process: its loop seems to run in this copy, and never turns again.
        if run is not None and run.worker != run.tracker.worker_id:
            run = None
        loop = None if run is None or run.is_over else run.loop or run.tracker.living_loop()
        if loop is not None and not loop.is_running():
            loop = None
        try:
            is_inside = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_inside = False
        self._loop = None if is_inside else loop
        self._own: Any = None

    def __enter__(self) -> Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]:
        if self._loop is None:
            from anyio.from_thread import start_blocking_portal

            self._own = start_blocking_portal()
            portal = self._own.__enter__()
            call_apart: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any] = portal.call
            return call_apart
        loop = self._loop

        def call(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
            coroutine = work()
            try:
                return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
            except RuntimeError:
                coroutine.close()  # the loop has gone, and never began it
                raise

        return call

    def __exit__(self, *error: object) -> None:
        if self._own is not None:
            self._own.__exit__(*error)
