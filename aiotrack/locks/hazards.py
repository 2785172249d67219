"""A look at the server, once in a process: may it throw locks away?"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiotrack.redis.wire import Wire

log = logging.getLogger(__name__)

_TOLD: set[str] = set()


async def look(wire: Wire) -> None:
    """Warn of a server that evicts keys; say of one without a journal that a restart frees all.

    INFO says both, also where CONFIG is not allowed; where it is not, nothing is said.
    """
    facts = await wire.facts()
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory", "0") != "0" and "policy" not in _TOLD:
        _TOLD.add("policy")
        log.warning(
            "Redis has maxmemory-policy %s: when its memory is full it throws held locks away, and "
            "others get them; set noeviction, or write with the lock's fence",
            policy,
        )
    if facts.get("aof_enabled") == "0" and "journal" not in _TOLD:
        _TOLD.add("journal")
        log.info("Redis has appendonly no: after a restart every lock is free")
