"""How long a soak takes, how often something dies in it, and how the workers' memory grows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import time

import psutil

MINUTES = float(os.environ.get("AIOTRACK_SOAK_MINUTES", "60"))
"""How long the soak takes; ``AIOTRACK_SOAK_MINUTES`` sets it."""

EVERY = min(300.0, MINUTES * 60 / 8)
"""Seconds between two kills: five minutes, less in a short soak."""

WARM = MINUTES * 60 / 10
"""Seconds after which a process has loaded what it needs."""

RATE = 50
"""Tasks a second: about a third of a core with all that belongs to them."""

GROWTH = 10 * 1024 * 1024
"""Bytes by which a worker's memory may grow after it is warm."""

AWAY = min(20.0, EVERY / 4)
"""Seconds for which the database stays dead."""


class Memory:
    """The resident memory of a worker's processes over time."""

    def __init__(self, main: subprocess.Popen[bytes]) -> None:
        self._main = psutil.Process(main.pid)
        self._told: dict[int, list[tuple[float, int]]] = {}

    def processes(self) -> list[psutil.Process]:
        """Give the processes in which tasks run, the oldest first."""
        found = self._main.children()
        found = [one for one in found if "resource_tracker" not in " ".join(one.cmdline())]
        return sorted(found, key=lambda one: one.create_time())

    async def run(self) -> None:
        """Look every five seconds until cancelled."""
        while True:
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in self.processes():
                    told = self._told.setdefault(one.pid, [])
                    told.append((time.monotonic(), one.memory_info().rss))
            await asyncio.sleep(5)

    def growth(self) -> dict[int, int]:
        """Give the bytes that each process grew by after it was warm, of those that live."""
        grown = {}
        for pid in (one.pid for one in self.processes()):
            told = self._told[pid]
            warm = [rss for at, rss in told if at - told[0][0] >= WARM]
            if len(warm) >= 6:
                first, last = statistics.median(warm[:3]), statistics.median(warm[-3:])
                series = [f"{told[n * len(told) // 10][1] / 2**20:.1f}" for n in range(10)]
                print(
                    f"process {pid}: {told[-1][0] - told[0][0]:.0f} s, MB {' '.join(series)}, "
                    f"warm {first / 2**20:.1f}, in the end {last / 2**20:.1f}"
                )
                grown[pid] = int(last - first)
        return grown
