"""Waiting in tests for what others do: it ends when that is so, and fails when it never comes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest


async def until(
    what: str, condition: Callable[[], Any], seconds: float = 20.0, *, pause: float = 0.02
) -> None:
    """Poll *condition*, sync or async, until it is true.

    What counts are polls, not the clock: a machine that stands still for half a minute fails
    nothing.
    """
    for _ in range(math.ceil(seconds / pause)):
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        await asyncio.sleep(pause)
    pytest.fail(f"not within {seconds:g} s: {what}")
