"""The sweep that ends what lost workers left. Workers do it, too, by turns: see ``workers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiotrack import rescue
from aiotrack.sweep import Sweep

if TYPE_CHECKING:
    from aiotrack.core import Core


async def _run(core: Core) -> int:
    return (await rescue.rescue(core)).count


RESCUE_LOST = Sweep(
    name="rescue_lost",
    is_on=lambda settings: settings.rescue_lost_enabled,
    crontab=lambda settings: settings.rescue_lost_crontab,
    fallback=lambda _: 60,
    run=_run,
    is_due=rescue.is_due,
)
