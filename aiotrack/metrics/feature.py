"""The metrics of this process: how recording is. On with the setting ``metrics``."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Final

from aiotrack.errors import MissingExtra
from aiotrack.feature import Feature

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.metrics.meter import Meter

log = logging.getLogger(__name__)

EVERY: Final = 2.0
"""Seconds between two looks: nothing is done for a task or a group of reports."""


class Metrics(Feature):
    """Tells prometheus_client's default registry how this loop's recorder is, every two seconds.

    There `PrometheusMiddleware` finds it, in the mode for several processes, too.
    """

    def __init__(self, tracker: Lifecycle, core: Core) -> None:
        super().__init__(tracker, core)
        self._task: asyncio.Task[None] | None = None
        self._meter: Meter | None = None
        if tracker.options.metrics:
            self._meter = _meter()
            context = contextvars.Context()  # of no run: it would keep what belongs to it
            self._task = asyncio.get_running_loop().create_task(self._look(), context=context)

    async def close(self, *, for_good: bool) -> None:
        """Tell what came last."""
        self._tell()
        task = self._task
        if for_good and task is not None:
            task.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self._tell()

    def _tell(self) -> None:
        if self._meter is None:
            return
        try:
            self._meter.tell(self.core)
        except Exception:  # a full disk below the files of several processes, for one
            log.exception("metrics are not told any more")
            self._meter = None


def _meter() -> Meter | None:
    try:
        from aiotrack.metrics.meter import METER
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        log.error("%s", MissingExtra("prometheus_client", "metrics", "metrics"))
        return None
    return METER
