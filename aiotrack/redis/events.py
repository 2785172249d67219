"""Changed executions, told to every process that follows some.

A message is a JSON list, ``[process, *task_ids]``; no ids means: look at everything again. It may
get lost: whoever follows also asks the database now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING
from uuid import uuid4

from aiotrack.redis.channel import AGAIN, Channel
from aiotrack.redis.client import FAULTS, TIMEOUT, make_client

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

GAP, UNHEARD_GAP = 0.003, 0.05
"""Seconds between two messages of a process while somebody listens, and while nobody does."""

MOST = 5_000
"""task_ids of one message; more are told as "everything"."""


class Events:
    """Both directions, for one event loop.

    Args:
        redis: URL or client.
        channel: From `aiotrack.redis.keys`.
        hear: Called with the task_ids that another process changed; None means any.
    """

    def __init__(
        self, redis: str | Redis, channel: str, hear: Callable[[AbstractSet[str] | None], None]
    ) -> None:
        self._client = make_client(redis)
        self._is_ours = self._client is not redis
        self._channel = channel
        self._hear = hear
        self._sender = uuid4().hex
        self._pending: set[str] = set()
        self._publishing: asyncio.Task[None] | None = None
        self._messages = Channel(
            self._client,
            channel,
            on_message=self._take,
            on_open=self._opened,
            on_fault=self._complain,
        )
        self._is_reported = False

    @property
    def is_pushed(self) -> bool:
        """Whether messages of other processes arrive."""
        return self._messages.is_open

    def publish(self, task_ids: AbstractSet[str]) -> None:
        """Tell the others, soon and without waiting."""
        self._pending |= task_ids
        if self._publishing is None or self._publishing.done():
            self._publishing = _apart(self._publish())

    async def subscribe(self) -> None:
        """Listen, and wait until the server knows it; no longer than it may take to answer."""
        await self._messages.open()

    async def close(self) -> None:
        """Send what is left, if that is quick, and disconnect."""
        if self._publishing is not None and not self._publishing.done():
            await asyncio.wait({self._publishing}, timeout=UNHEARD_GAP * 2)
            self._publishing.cancel()
            await asyncio.wait({self._publishing}, timeout=TIMEOUT)
        await self._messages.close()
        if self._is_ours:
            with contextlib.suppress(*FAULTS):
                await self._client.aclose(close_connection_pool=True)

    async def _publish(self) -> None:
        while self._pending:
            pending, self._pending = self._pending, set()
            ids = pending if len(pending) <= MOST else ()
            try:
                heard = await self._client.publish(self._channel, json.dumps([self._sender, *ids]))
            except FAULTS as error:
                self._complain(error)
                await asyncio.sleep(AGAIN)
            else:
                self._is_reported = False
                await asyncio.sleep(GAP if heard else UNHEARD_GAP)

    def _opened(self) -> None:
        self._is_reported = False
        self._hear(None)  # what was told before is lost

    def _take(self, message: bytes) -> None:
        try:
            sender, *ids = json.loads(message)
        except (ValueError, TypeError):  # of another release
            sender, ids = "", []
        if sender != self._sender:
            self._hear(set(ids) or None)

    def _complain(self, error: BaseException) -> None:
        if not self._is_reported:
            self._is_reported = True
            log.warning("live events do not travel through Redis for now: %s", error)


def _apart(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Run in a context that belongs to no run."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())
