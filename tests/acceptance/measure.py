"""What the tests of outages need: workers as processes, and how fast they acknowledge."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from tests.acceptance.conftest import Workers
from tests.acceptance.outage import Outage
from tests.waits import until

APP = "tests.acceptance.outage:broker"


class Meter:
    """Counts acknowledgements once a second, and gives rates of stretches of time."""

    def __init__(self, acknowledged: Callable[[], Awaitable[int]]) -> None:
        self._acknowledged = acknowledged
        self._told: list[tuple[float, int]] = []
        self._stretches: dict[str, list[tuple[float, float]]] = {}

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            count = await self._acknowledged()
            self._told.append((time.monotonic(), count))
            await asyncio.sleep(1)

    @contextlib.contextmanager
    def stretch(self, name: str) -> Iterator[None]:
        """Note when the block begins and ends."""
        begun = time.monotonic()
        yield
        self._stretches.setdefault(name, []).append((begun, time.monotonic()))

    def rates(self, name: str) -> list[float]:
        """Give the rates of all seconds within the stretches of this name."""
        return [
            (after[1] - before[1]) / (after[0] - before[0])
            for begun, ended in self._stretches[name]
            for before, after in self._pairs(begun, ended)
        ]

    def _pairs(
        self, begun: float, ended: float
    ) -> Iterator[tuple[tuple[float, int], tuple[float, int]]]:
        inside = [one for one in self._told if begun <= one[0] <= ended + 1]
        return itertools.pairwise(inside)

    def compare(self, name: str, calm: str = "calm") -> tuple[float, float]:
        """Print a stretch beside the calm; give its share by the median and by the mean."""
        told, base = self.rates(name), self.rates(calm)
        median = statistics.median(told) / statistics.median(base)
        mean = statistics.mean(told) / statistics.mean(base)
        print(
            f"{name}: {statistics.mean(told):.0f}/s of {statistics.mean(base):.0f}/s "
            f"({len(told)} and {len(base)} s): mean {mean:.3f}, median {median:.3f}, "
            f"lowest second {min(told):.0f}, lowest calm second {min(base):.0f}"
        )
        return median, mean


def kept(folder: Path) -> int:
    """Give the bytes of all journals."""
    return sum(path.stat().st_size for path in folder.rglob("*.journal"))


def start_worker(
    workers: Workers, *, app: str = APP, processes: int = 1, at_once: int = 6
) -> subprocess.Popen[bytes]:
    """Start a worker of the project."""
    return workers.start(
        *("-m", "taskiq", "worker", app, "--log-level", "WARNING"),
        *("--workers", str(processes), "--max-async-tasks", str(at_once)),
        *("--wait-tasks-timeout", "5"),
    )


async def settle(project: Outage, journals: Path, deadline: float) -> float:
    """Wait until all that was sent is acknowledged and recorded; give the seconds that it took."""
    begun = time.monotonic()
    await until("all acknowledged", project.is_done, deadline)

    async def is_recorded() -> bool:
        await project.tracker.flush(deadline)
        stats = await project.tracker.stats()
        return stats.success + stats.failure == len(project.sent) and kept(journals) == 0

    await until("all recorded", is_recorded, deadline)
    return time.monotonic() - begun
