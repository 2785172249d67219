"""The sweep that keeps rollups up to date: see docs/explanation/statistics.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiotrack.sweep import Sweep

if TYPE_CHECKING:
    from aiotrack.core import Core


async def _run(core: Core) -> int:
    return await core.repository.rollups.roll_up()


async def _is_due(core: Core) -> bool:
    return await core.repository.rollups.is_due()


ROLL_UP = Sweep(
    name="roll_up",
    is_on=lambda settings: settings.roll_up_enabled,
    crontab=lambda settings: settings.roll_up_crontab,
    fallback=lambda _: 300,
    run=_run,
    is_due=_is_due,
)
