"""Waiting for an execution's end: of a tracker, or of a client of its API."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

from aiotrack.errors import InvalidValue, WaitTimeout

if TYPE_CHECKING:
    from aiotrack.model import Execution


class Watched(Protocol):
    """What knows executions, and follows one."""

    async def get(self, task_id: str | int) -> Execution:
        """Give an execution."""

    def watch(self, task_id: str | int) -> AsyncIterator[Execution]:
        """Give it as it is, and whenever it changed."""


async def until_over(of: Watched, task_id: str | int, timeout: float | None) -> Execution:
    """Wait until an execution's status is final; a presumed verdict counts.

    Raises:
        ExecutionNotFound: There is no such execution.
        WaitTimeout: The time is over; it has the ``execution`` as it is.
        InvalidValue: *timeout* is negative or no number.
    """
    is_number = isinstance(timeout, (int, float)) or timeout is None
    if not is_number or (timeout is not None and not timeout >= 0):  # NaN is neither
        raise InvalidValue(f"timeout must be seconds, 0 or more, not {timeout!r}")
    execution = await of.get(task_id)
    if execution.is_completed:
        return execution
    scope = asyncio.timeout(None if timeout is None or math.isinf(timeout) else timeout)
    try:
        async with scope:
            async for execution in of.watch(task_id):
                if execution.is_completed:
                    break
    except TimeoutError:
        if not scope.expired():
            raise
        raise WaitTimeout(execution, float(timeout or 0)) from None
    return execution
