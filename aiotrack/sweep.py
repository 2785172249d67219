"""What a sweep is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.settings import Settings

LONGEST: Final = 3600.0
"""Seconds after which a sweep that has not ended is presumed to have been killed: a guess, ten
million rows take less."""


async def always(_: Core) -> bool:
    """Say that there is something to do: whoever cannot know it cheaply."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One of the tracker's own tasks.

    Args:
        name: The task is ``aiotrack:<name>``, and so is the id of its schedule.
        is_on: Whether settings want it to be scheduled.
        crontab: When, in UTC, by the settings.
        fallback: Seconds between two runs when the crontab cannot be read, by the settings.
        run: The work; it takes the keywords of the verb, and what it gives is kept as the result.
        is_due: Whether there is anything to do; where there is not, nothing is recorded.
    """

    name: str
    is_on: Callable[[Settings], bool]
    crontab: Callable[[Settings], str]
    fallback: Callable[[Settings], int]
    run: Callable[..., Awaitable[Any]]
    is_due: Callable[[Core], Awaitable[bool]] = always

    @property
    def task_name(self) -> str:
        """Its name on the broker, in the records and in schedules."""
        return f"aiotrack:{self.name}"
