"""The client of one event loop: short time-outs, and no retries that nobody asked for.

redis-py retries ten times by default, also what must not be repeated; a server that hangs then
costs a minute. Here a command ends within `TIMEOUT`, and who called decides what to do.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from aiotrack.errors import InvalidSetting
from aiotrack.settings import masked

TIMEOUT = 1.0
"""Seconds to connect, and seconds for the answer to a command."""

FAULTS = (RedisError, OSError, TimeoutError)
"""What an unreachable server raises."""


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
        except ValueError as error:
            raise InvalidSetting("redis", f"{masked(redis)!r} is not a URL: {error}") from None
    given = redis.connection_pool
    if type(given) is not ConnectionPool:  # sentinels and others find their server themselves
        return redis
    lent = given.connection_kwargs.items()  # but for what belongs to the other protocol
    options = {name: value for name, value in lent if "maint_notifications" not in name} | ours
    pool = ConnectionPool(connection_class=given.connection_class, **options)
    return Redis.from_pool(pool)
