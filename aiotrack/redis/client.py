"""The client of one event loop: short time-outs, and no retries that nobody asked for.

redis-py retries ten times by default, also what must not be repeated; a server that hangs then
costs a minute. Here a command ends within `TIMEOUT`, and who called decides what to do.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from aiotrack.errors import InvalidSetting
from aiotrack.settings import masked

TIMEOUT = 1.0
"""Seconds to connect, and seconds for the answer to a command."""

FAULTS = (RedisError, OSError, TimeoutError)
"""What an unreachable server raises."""


def unreadable(url: str) -> str:
    """Tell what is wrong with a URL; redis-py's words quote a part of the password as its port."""
    return (
        f"{masked(url)!r} is not a URL: write redis://user:password@host:6379/0, "
        "and any / @ # ? of the password as %2F %40 %23 %3F"
    )


def make_client(redis: str | Redis) -> Redis:
    """Make a client for the running loop.

    A client that was given lends its address and its password, not its connections: those belong
    to the loop and the process in which they were opened.

    Raises:
        InvalidSetting: It is no URL of Redis.
    """
    ours: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
        "protocol": 2,  # what `aiotrack.redis.wire` reads
    }
    if isinstance(redis, str):
        try:
            return Redis.from_url(redis, **ours)
        except ValueError:
            raise InvalidSetting("redis", unreadable(redis)) from None
    given = redis.connection_pool
    if isinstance(given, SentinelConnectionPool):  # asks its sentinels where the server is
        return _by_sentinels(given, ours)
    lent = given.connection_kwargs.items()  # but for what belongs to the other protocol
    options = {name: value for name, value in lent if "maint_notifications" not in name} | ours
    pool = ConnectionPool(connection_class=given.connection_class, **options)
    return Redis.from_pool(pool)


def _by_sentinels(given: SentinelConnectionPool, ours: dict[str, Any]) -> Redis:
    """Ask the same sentinels, over connections of our own."""
    known: Any = given
    manager = known.sentinel_manager
    places = [one.connection_pool.connection_kwargs for one in manager.sentinels]
    make: Any = Sentinel  # it has no annotations
    sentinels = make(
        [(place["host"], place["port"]) for place in places],
        min_other_sentinels=manager.min_other_sentinels,
        sentinel_kwargs=manager.sentinel_kwargs,
    )
    dropped = {"connection_pool", "connection_class", "is_master", "check_connection"}
    lent = given.connection_kwargs.items()
    options = {
        name: value
        for name, value in lent
        if name not in dropped and "maint_notifications" not in name
    }
    found: Redis = sentinels.master_for(known.service_name, **(options | ours))
    return found
