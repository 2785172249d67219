"""Examines a project's set-up by running against it, and says what to change."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiotrack.doctor import project, servers
from aiotrack.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskiq import AsyncBroker

log = logging.getLogger(__name__)

CLOSE = 5.0
"""Seconds for the broker to close."""

__all__ = ["Finding", "examine"]


async def examine(broker: AsyncBroker) -> list[Finding]:
    """Look at a broker, its tasks and middlewares, and at the servers that they work with.

    Nothing is written, and no task is sent. A server that is mute costs some seconds.

    Args:
        broker: As ``taskiq worker`` would import it, with its tasks, and not started.

    Returns:
        What is wrong or could be better, the worst first; nothing for a set-up that is right.
    """
    found = project.look(broker)
    tracker = project.tracker_of(broker)
    if tracker is not None:
        try:
            found += await servers.look(broker, tracker)
        finally:
            await _close([broker, *tracker.brokers])
            await tracker.shutdown()
    return sorted(found, key=lambda one: not one.is_wrong)


async def _close(brokers: Iterable[AsyncBroker]) -> None:
    """Close what was opened to ask."""
    for broker in {id(one): one for one in brokers}.values():
        try:
            async with asyncio.timeout(CLOSE):
                await broker.shutdown()
        except Exception as error:
            log.debug("a broker could not be closed: %r", error)
