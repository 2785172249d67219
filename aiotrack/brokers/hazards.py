"""A look at the server, once in a process: can it keep what is promised?"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiotrack.redis.wire import Wire

log = logging.getLogger(__name__)

_TOLD: set[str] = set()


async def look(wire: Wire) -> None:
    """Warn of a server that may throw messages away, or that is a cluster; INFO says both."""
    facts = await wire.facts()
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys") and facts.get("maxmemory", "0") != "0":
        _say(
            f"Redis has maxmemory-policy {policy}: when its memory is full it throws queues away, "
            "with all their messages; set noeviction"
        )
    if facts.get("cluster_enabled") == "1":
        _say(
            "Redis is a cluster: the streams of a queue must lie on one server, and a cluster "
            "spreads them; use a server of its own for the queues"
        )


def _say(text: str) -> None:
    if text not in _TOLD:
        _TOLD.add(text)
        log.warning("%s", text)
