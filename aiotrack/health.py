"""``tracker.health()``: whether what the tracker needs answers, within two seconds."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiotrack.feature import Feature
from aiotrack.lifecycle import Lifecycle
from aiotrack.model import WorkerStatus

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from taskiq import AsyncBroker

    from aiotrack.redis.wire import Wire

LIMIT: Final = 1.8
"""Seconds for all of them: whoever asks waits for two at the most."""


class _Read:
    """Read by names, too, like the JSON that ``GET /health`` answers: ``health["ready"]``."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency(_Read):
    """How it stands with one thing that the tracker needs.

    ``latency`` is the seconds until it answered, None where nothing was asked: because there is
    none, or it can be asked nothing. ``error`` says what is wrong, without passwords; None when
    ``ok``.
    """

    ok: bool
    latency: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(_Read):
    """What `Tracker.health` gives; ``health["ready"]`` is ``health.ready``.

    ``live``: this process runs, for it answered. ``ready``: it can serve, for its database answers.
    ``is_healthy``: all of ``dependencies`` (``database``, ``redis``, ``broker``, ``workers``) are
    ok.
    """

    is_healthy: bool
    live: bool
    ready: bool
    dependencies: Mapping[str, Dependency]


class Checking(Lifecycle):
    """Asks what a tracker needs how it is; see `Tracker`."""

    async def health(self) -> Health:
        """Ask database, Redis, brokers and workers at once, for two seconds at the most.

        * ``database`` is ok when it answers and holds the schema of this release.
        * ``redis`` is ok when it answers, or when the tracker has none.
        * ``broker`` is ok when the Redis of each broker of this process answers. Brokers of other
          kinds are asked for their ``queue_states()`` where they have it; else they are ok, and so
          is a process without brokers.
        * ``workers`` is ok when at least one worker beats.

        Never raises. Who asks while others wait for an answer gets the same one.
        """
        return await self.core().feature(Checks).look()


class Checks(Feature):
    """What asks, in one event loop; its connections stay open from one time to the next."""

    _looking: asyncio.Task[Health] | None = None

    def __init__(self, tracker: Lifecycle, core: Any) -> None:
        super().__init__(tracker, core)
        self._wires: dict[object, Wire] = {}

    async def look(self) -> Health:
        """Ask, once for all who want to know it now."""
        if self._looking is None or self._looking.done():
            loop = asyncio.get_running_loop()
            self._looking = loop.create_task(self._look(), context=contextvars.Context())
        looking = self._looking
        try:
            return await asyncio.shield(looking)
        except asyncio.CancelledError:
            if not looking.cancelled():
                raise  # who asked goes away
            gone = Dependency(ok=False, error="the tracker stops")
            return _of(dict.fromkeys(("database", "redis", "broker", "workers"), gone))

    async def broker(self) -> Dependency:
        """Ask the brokers alone, as `look` does."""
        return await self._ask(self._broker)

    async def close(self, *, for_good: bool) -> None:  # noqa: ARG002 - it opens again on use
        """Ask no more, and disconnect."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
        wires, self._wires = self._wires, {}
        await asyncio.gather(*(wire.close() for wire in wires.values()))

    async def _look(self) -> Health:
        questions: dict[str, Callable[[], Awaitable[bool]]] = {
            "database": self._database,
            "redis": self._redis,
            "broker": self._broker,
            "workers": self._workers,
        }
        found = await asyncio.gather(*(self._ask(one) for one in questions.values()))
        return _of(dict(zip(questions, found, strict=True)))

    async def _ask(self, question: Callable[[], Awaitable[bool]]) -> Dependency:
        """Ask one thing; it gives whether anybody was there to be asked."""
        begun, limit = time.monotonic(), asyncio.timeout(LIMIT)
        try:
            async with limit:
                is_asked = await question()
        except Exception as error:
            late = isinstance(error, TimeoutError) and limit.expired()
            told = f"no answer within {LIMIT:g} s" if late else str(error) or type(error).__name__
            return Dependency(
                ok=False,
                latency=time.monotonic() - begun,
                error=self.tracker.encoder.text(told, 500),
            )
        return Dependency(ok=True, latency=time.monotonic() - begun if is_asked else None)

    async def _database(self) -> bool:
        await self.core.repository.ping()
        return True

    async def _redis(self) -> bool:
        if self.tracker.redis is None:
            return False
        await self._wire(self.tracker, self.tracker.redis).ask("PING")
        return True

    async def _broker(self) -> bool:
        asked = await asyncio.gather(*map(self._one_broker, tuple(self.tracker.brokers)))
        return any(asked)

    async def _one_broker(self, broker: AsyncBroker) -> bool:
        redis = _redis_of(broker)
        if redis is not None:
            await self._wire(broker, redis).ask("PING")
            return True
        states = getattr(broker, "queue_states", None)
        if not callable(states):
            return False
        await states()
        return True

    async def _workers(self) -> bool:
        from aiotrack.repository.control.workers import Registry

        found = await Registry(self.core.repository).list()
        if not any(one.status is WorkerStatus.ALIVE for one in found):
            raise LookupError("no worker beats")
        return True

    def _wire(self, owner: object, redis: str | Redis) -> Wire:
        """Give the connection to somebody's Redis."""
        from aiotrack.redis.client import make_client
        from aiotrack.redis.wire import Wire

        if owner not in self._wires:
            self._wires[owner] = Wire(make_client(redis))
        return self._wires[owner]


def _of(found: Mapping[str, Dependency]) -> Health:
    is_healthy = all(one.ok for one in found.values())
    return Health(is_healthy=is_healthy, live=True, ready=found["database"].ok, dependencies=found)


def _redis_of(broker: AsyncBroker) -> Redis | None:
    """Give a client of a broker's Redis, if it has one as taskiq-redis' brokers do."""
    pool: Any = getattr(broker, "connection_pool", None)
    if pool is None:
        return None
    from redis.asyncio import ConnectionPool, Redis

    return Redis(connection_pool=pool) if isinstance(pool, ConnectionPool) else None
