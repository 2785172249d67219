"""Looks for alerts by a schedule, once for each due time across a fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from aiotrack.feature import Feature
from aiotrack.sweep import Sweep

if TYPE_CHECKING:
    from aiotrack.alerts.verbs import Watch
    from aiotrack.core import Core
    from aiotrack.tracker import Tracker


def _watch(core: Core) -> Watch:
    return cast("Tracker", core.feature(Alerts).tracker).alerts


async def _run(core: Core) -> int:
    return len(await _watch(core).check())


async def _is_due(core: Core) -> bool:
    return await _watch(core).has_news()


class Alerts(Feature):
    """Makes the sweep known; who is told is the tracker's."""

    sweeps: ClassVar[tuple[Sweep, ...]] = (
        Sweep(
            name="check_alerts",
            is_on=lambda settings: settings.alerts_enabled,
            crontab=lambda settings: settings.alerts_crontab,
            fallback=lambda _: 60,
            run=_run,
            is_due=_is_due,
        ),
    )
