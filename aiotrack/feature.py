"""The seam for features: a part of a loop's core that can be deleted with its folder.

The core never names one; `aiotrack.tracker` lists the standard ones, a line each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.core import Core, Lifecycle
    from aiotrack.report import Report


class Feature:
    """One object for each event loop that uses a tracker. Every hook here does nothing.

    Args:
        tracker: Its settings, encoder and clock.
        core: What belongs to the loop: connections, buffer, writer, live wake-ups.
    """

    def __init__(self, tracker: Lifecycle, core: Core) -> None:
        self.tracker = tracker
        self.core = core

    @classmethod
    def attach(cls, tracker: Lifecycle, broker: AsyncBroker) -> None:
        """Meet a broker as soon as the middleware does, long before any loop runs."""

    def on_commit(self, reports: Sequence[Report]) -> None:
        """Hear of reports that are durable now, in the loop, between two groups: never wait."""

    async def close(self, *, for_good: bool) -> None:
        """Let go of what is held, within half a second.

        Args:
            for_good: Otherwise runs are in flight, and may need it again.
        """
