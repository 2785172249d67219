"""The look at the server at the first use."""

from __future__ import annotations

import pytest

from aiotrack import Tracker
from aiotrack.locks import hazards
from aiotrack.testing.servers import ValkeyServer


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({"maxmemory": "50mb", "maxmemory-policy": "volatile-lru"}, 1),
        ({"maxmemory": "50mb", "maxmemory-policy": "noeviction"}, 0),
        ({"maxmemory": "0", "maxmemory-policy": "allkeys-lru"}, 0),
    ],
)
async def test_a_server_that_evicts_is_warned_of(
    settings: dict[str, str],
    warnings: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once in a process, however many trackers; it names the hazard and what to do."""
    monkeypatch.setattr(hazards, "_TOLD", set())
    with ValkeyServer(settings=settings) as server:
        for _ in range(2):
            tracker = Tracker("sqlite+aiosqlite://", redis=server.url)
            async with tracker.lock("x"):
                pass
            await tracker.shutdown()
    told = [line for line in caplog.messages if "throws held locks away" in line]

    assert warnings == len(told)
