"""Kills the processes of a worker, as an out-of-memory killer does."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess

import psutil


def children(main: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Give the processes in which tasks run."""
    found = psutil.Process(main.pid).children()
    return [one for one in found if "resource_tracker" not in " ".join(one.cmdline())]


async def kill_at_random(
    main: subprocess.Popen[bytes], chance: random.Random, pauses: tuple[float, float]
) -> None:
    """Kill one of the worker's processes after the other; their parent starts new ones."""
    while True:
        await asyncio.sleep(chance.uniform(*pauses))
        found = await asyncio.to_thread(children, main)
        if found:
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(found).kill()
