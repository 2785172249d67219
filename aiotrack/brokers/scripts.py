"""The Lua scripts of the broker. Each touches several streams: they must lie on one server."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from aiotrack.redis.wire import Script

_FOLDER: Final = Path(str(files("aiotrack.brokers"))) / "lua"
_SHARED: Final = _FOLDER / "shared.lua"

GROUPS, TAKE, ACK, RENEW, RECLAIM, LEAVE, TIDY, STATES, REVIVE = (
    Script(_SHARED, _FOLDER / f"{verb}.lua")
    for verb in (
        *("groups", "take", "ack", "renew", "reclaim", "leave", "tidy", "states", "revive"),
    )
)
