"""Work in tasks of its own: what waits for it may go away, and connections stay whole."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Apart(set[asyncio.Task[Any]]):
    """What runs apart."""

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for *work*; a caller's cancellation does not reach it."""
        return await asyncio.shield(self.begin(work))

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run *work*, whoever waits for it."""
        task = asyncio.ensure_future(work)
        self.add(task)
        task.add_done_callback(self._is_over)
        return task

    async def end(self, wait: float) -> None:
        """Wait so many seconds for what runs, and as long again for what is cancelled then."""
        if self:
            _, late = await asyncio.wait(self, timeout=wait)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=wait)

    def _is_over(self, task: asyncio.Task[Any]) -> None:
        self.discard(task)
        if not task.cancelled():
            task.exception()  # heard, even if the caller went away: asyncio would complain
