"""The locks of one event loop: how they are taken, waited for, extended, freed.

Every script may run twice with the same outcome, so that a lost answer is simply asked for again.
Who is cancelled while a request is under way gives up in the background: the lock that the server
may have granted is freed, and a request that is still on its way takes nothing any more. A server
that is away hears of it when it is back.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from aiotrack.errors import LockNotAcquired, LockUnavailable
from aiotrack.locks.grants import Grant, granted, holder_in, margin
from aiotrack.locks.hazards import look
from aiotrack.locks.owed import Owed
from aiotrack.redis.channel import Channel
from aiotrack.redis.client import FAULTS, make_client
from aiotrack.redis.keys import lock_keys, woken_channel
from aiotrack.redis.wire import Script, Wire

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

GRACE: Final = 3.0
"""Seconds that a lock is handed over for; as in shared.lua."""

REMEMBERED: Final = 10_000
"""Milliseconds that an owner who gave up is remembered: a request lives two seconds at most."""

ASK_AGAIN: Final = 1.0
"""Seconds after which a waiter asks by itself, give or take a fifth: messages may get lost."""

TRIES: Final = 3
"""How often a lease that ended before its grant was heard of is asked for."""

REVOKED: Final = "-1"  # in the place of a fence; as in shared.lua
SLOW: Final = "its answers take longer than the lease"

SOON: Final = 0.1
"""Seconds after which a waiter asks a server again that was just away."""

BUDGET: Final = 2.0
"""Seconds until a server that does not answer is given up, and for what is left at a close."""

_FOLDER = Path(str(files("aiotrack.locks"))) / "lua"
_SHARED = _FOLDER / "shared.lua"
ACQUIRE, EXTEND, RELEASE, ABANDON, FORCE_RELEASE, TAKE_OVER = (
    Script(_SHARED, _FOLDER / f"{verb}.lua")
    for verb in ("acquire", "extend", "release", "abandon", "force_release", "take_over")
)


@dataclass(slots=True)
class _Wait:
    """A place in a queue: what is asked for, until when; and when and how we asked last."""

    name: str
    token: str
    ttl: float
    info: str
    end: float
    place: str = ""
    sent: float = 0.0
    channel: str = ""

    def left(self) -> float:
        return self.end - time.monotonic()


class Space:
    """One connection for requests, and one for messages once somebody waits.

    Args:
        redis: URL or client.
        namespace: Begins every key.
    """

    def __init__(self, redis: str | Redis, namespace: str) -> None:
        self._client = make_client(redis)
        self._is_ours = self._client is not redis
        self.redis = redis
        self.namespace = namespace
        self.wire = Wire(self._client)
        self._channel = woken_channel(namespace, secrets.token_hex(8))
        self._waiters: dict[str, asyncio.Future[int]] = {}
        self._messages = Channel(
            self._client,
            self._channel,
            on_message=self._wake,
            on_open=self._hear,
            on_fault=self._tell_deaf,
        )
        self._is_listening = False
        self.on_revoked: Callable[[str], None] = lambda _: None  # with the token of what was taken
        self._background: set[asyncio.Task[object]] = set()
        self._owed = Owed(self._give_up, self._apart)
        self._late: set[str] = set()  # tokens of which a request may still be on its way
        self._is_closed = False
        self._is_deaf = False
        self._has_looked = False

    async def acquire(self, name: str, *, ttl: float, wait: float, info: dict[str, Any]) -> Grant:
        """Take a lock.

        Args:
            name: Which.
            ttl: Seconds of the lease.
            wait: Seconds to wait for it; 0 tries once.
            info: Who takes it, for people.

        Raises:
            LockNotAcquired: Others have it.
            LockUnavailable: Redis does not answer, or refuses.
        """
        if not self._has_looked:
            self._has_looked = True
            self._apart(look(self.wire))
        token = secrets.token_hex(16)
        told = self._told(info)
        try:
            if wait > 0:
                return await self._wait(_Wait(name, token, ttl, told, time.monotonic() + wait))
            return await self._try(name, token, ttl, told)
        except FAULTS as error:
            self.abandon(name, token)
            raise LockUnavailable(name, error) from error
        except LockNotAcquired:
            if wait > 0 or token in self._late:
                self.abandon(name, token)
            raise
        except BaseException:
            self.abandon(name, token)
            raise

    async def extend(self, name: str, token: str, ttl: float) -> bool:
        """Make a lease longer; False when it is not this owner's any more."""
        keys = lock_keys(self.namespace, name)
        return bool(await self.wire.run(EXTEND, keys, token, math.ceil(ttl * 1000)))

    async def take_over(
        self, name: str, fence: int, *, ttl: float, info: dict[str, Any]
    ) -> Grant | None:
        """Take a lock from the holder with *fence*; None when it is not held with it any more.

        Raises:
            LockUnavailable: Redis does not answer.
        """
        token = secrets.token_hex(16)
        told = self._told(info)
        sent = time.monotonic()
        try:
            keys = lock_keys(self.namespace, name)
            found = await self.wire.run(TAKE_OVER, keys, fence, token, math.ceil(ttl * 1000), told)
        except FAULTS as error:
            self.abandon(name, token)
            raise LockUnavailable(name, error) from error
        except BaseException:
            self.abandon(name, token)
            raise
        if not found:
            return None
        return Grant(name, token, int(found), sent + ttl - margin(ttl))

    async def release(self, name: str, token: str, *, ended: str = "") -> bool:
        """Free a lock; False when it was not this owner's any more.

        Args:
            name: Which.
            token: Its owner's.
            ended: Marks the work that ended by itself, for a copy of it that waits.

        Raises:
            LockUnavailable: Redis does not answer; the lease ends by itself.
        """
        keys = lock_keys(self.namespace, name)
        free = functools.partial(self.wire.run_once, RELEASE, keys, token, ended)
        if token in self._late:  # what still comes is to take nothing
            free = functools.partial(self.wire.run_once, ABANDON, keys, token, REMEMBERED, ended)
        try:
            try:
                return bool(await free())
            except ResponseError:
                raise
            except FAULTS:  # the answer may be what got lost: then nothing is left to free
                await free()
                return True
        except FAULTS as error:
            self.abandon(name, token, ended=ended)
            raise LockUnavailable(name, error) from error
        except asyncio.CancelledError:
            self.abandon(name, token, ended=ended)
            raise

    def abandon(self, name: str, token: str, *, ended: str = "") -> None:
        """Give up a lock or a place in its queue, in the background."""
        self._owed.add(name, token, ended)

    async def _give_up(self, name: str, token: str, ended: str) -> None:
        await self.wire.run(ABANDON, lock_keys(self.namespace, name), token, REMEMBERED, ended)

    async def close(self) -> None:
        """Finish what is under way, and disconnect; who waits gets a fault.

        What is held is not freed: its body runs on, and frees it over a connection of its own.
        """
        self._is_closed = True
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_exception(ConnectionResetError("the tracker was shut down"))
                waiter.exception()  # heard: its owner may be about to go
        end = time.monotonic() + BUDGET
        self._owed.rest()
        await asyncio.sleep(0)
        if self._background:
            await asyncio.wait(self._background, timeout=BUDGET)
        for task in self._background:
            task.cancel()
        await self._owed.close(end - time.monotonic())  # the loop's end cancelled who did it
        await self._messages.close()
        await self.wire.close()
        if self._is_ours:
            await self._client.aclose(close_connection_pool=True)

    def listen(self) -> None:
        """Hear from soon on of locks that are taken away; no holder waits for that."""
        if not self._is_listening:
            self._is_listening = True
            self._apart(self._messages.open())

    def _told(self, info: dict[str, Any]) -> str:
        """Give what a holder tells: of itself, and where it hears that its lock was taken away."""
        return json.dumps({**info, "channel": self._channel}, separators=(",", ":"))

    def _hear(self) -> None:
        self._is_deaf = False

    def _tell_deaf(self, error: BaseException) -> None:
        """Say once that nobody wakes our waiters: they ask each second, in no queue."""
        if not self._is_deaf:
            self._is_deaf = True
            log.warning("who waits for a lock is not woken for now, and asks again: %s", error)

    async def _request(
        self, name: str, token: str, ttl: float, info: str, channel: str, place: str
    ) -> Any:
        keys = lock_keys(self.namespace, name)
        words = (token, math.ceil(ttl * 1000), info, channel, place)
        try:
            return await self.wire.run_once(ACQUIRE, keys, *words)
        except ResponseError:
            raise
        except FAULTS:  # it may be late, and not lost: then it comes after its own repeat
            self._late.add(token)
            loop, context = asyncio.get_running_loop(), contextvars.Context()  # of no run
            loop.call_later(REMEMBERED / 1000, self._late.discard, token, context=context)
            return await self.wire.run_once(ACQUIRE, keys, *words)

    async def _try(self, name: str, token: str, ttl: float, info: str) -> Grant:
        for _ in range(TRIES):
            sent = time.monotonic()
            answer = await self._request(name, token, ttl, info, "", "")
            if answer[0] != 1:
                raise LockNotAcquired(name, holder_in(answer))
            if grant := granted(name, token, ttl, answer, sent):
                return grant
        raise TimeoutError(SLOW)

    async def _wait(self, wait: _Wait) -> Grant:
        """Stand in the queue until the lock is handed over."""
        loop = asyncio.get_running_loop()
        name, token, ttl = wait.name, wait.token, wait.ttl
        woken = self._waiters[token] = loop.create_future()
        try:
            while True:
                answer = await self._ask_patiently(wait)
                if answer[0] == 1:
                    if grant := granted(name, token, ttl, answer, wait.sent):
                        return grant
                    if wait.left() < 0:
                        raise TimeoutError(SLOW)
                    continue  # we slept meanwhile: whose it is now, the server knows
                if not wait.channel and wait.left() > 0 and await self._is_heard(wait):
                    continue  # now in the queue
                wait.place = answer[2].decode()
                lease = max(0.02, answer[1] / 1000)  # of the holder
                pause = min(lease, ASK_AGAIN * random.uniform(0.8, 1.2), wait.left())
                timer = loop.call_later(max(0.0, pause), _wake_to_ask, woken)
                fence = await woken
                timer.cancel()
                # One that is older than the answer was lost again before we asked.
                if fence > int(answer[4]) and (grant := await self._handed_over(wait, fence)):
                    return grant
                if not fence and wait.left() <= 0:
                    raise LockNotAcquired(name, holder_in(answer))
                woken = self._waiters[token] = loop.create_future()
        finally:
            del self._waiters[token]

    async def _is_heard(self, wait: _Wait) -> bool:
        return await self._messages.open(min(wait.left(), BUDGET / 2))

    async def _ask_patiently(self, wait: _Wait) -> Any:
        """Ask for the lock; a restart of the server is waited for, an outage is not."""
        begun = time.monotonic()
        while True:
            wait.sent = time.monotonic()
            wait.channel = self._channel if self._messages.is_open else ""
            try:
                return await self._request(
                    wait.name, wait.token, wait.ttl, wait.info, wait.channel, wait.place
                )
            except ResponseError:
                raise
            except FAULTS:
                if self._is_closed or wait.left() <= 0 or time.monotonic() - begun >= BUDGET:
                    raise
                await asyncio.sleep(SOON)

    async def _handed_over(self, wait: _Wait, fence: int) -> Grant | None:
        """Take a lock that was handed over since we asked: when exactly, no message can say.

        Returns:
            None when we slept for so long that others have it now.
        """
        name, token, ttl = wait.name, wait.token, wait.ttl
        lease = min(ttl, GRACE)
        deadline = wait.sent + lease - margin(lease)
        if deadline - time.monotonic() < lease / 4:
            sent = time.monotonic()
            if not await self.extend(name, token, ttl):
                return None
            return Grant(name, token, fence, sent + ttl - margin(ttl))
        return Grant(name, token, fence, deadline, is_brief=True)

    def _wake(self, data: bytes) -> None:
        token, fence = data.decode().split(" ")
        if fence == REVOKED:
            self.on_revoked(token)
        elif (waiter := self._waiters.get(token)) and not waiter.done():
            waiter.set_result(int(fence))

    def _apart(self, work: Coroutine[Any, Any, object]) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work, context=contextvars.Context())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _wake_to_ask(woken: asyncio.Future[int]) -> None:
    """Nobody woke a waiter: no fence is 0."""
    if not woken.done():
        woken.set_result(0)
