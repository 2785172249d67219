"""A process that reports much while its database is away: python -m tests.integration.flood COUNT.

Prints a JSON object when all is reported, waits for a line, writes what is left and prints another.
A third of the reports are sends, a third starts, a third ends, each of another task.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import psutil

from aiotrack import TaskStatus, Tracker
from aiotrack.recorder import Recorder
from aiotrack.report import Origin, Report, Witness

LIMIT_VARIABLE = "FLOOD_FILE_LIMIT"
"""Bytes that a file may have, where no small disk can be mounted."""

TOGETHER = 100
"""Tasks that report at once."""

BIG = 200
"""One of so many results is as long as a stored value may be."""


def report(number: int, witness: Witness) -> Report:
    """Give a report as a middleware makes it: nothing is shared but names."""
    origin = Origin(
        task_id=f"{witness.name.lower()}-{number:026d}",
        task_name="shop.orders:close",
        module="shop",
        created_at=1_700_000_000_000_000 + number,
        queue="orders",
        args=f"[{number}]",
        kwargs=f'{{"note": "order {number} of a customer"}}',
    )
    if witness is Witness.SENT:
        return Report(origin, witness, TaskStatus.PENDING)
    one = Report(origin, witness, TaskStatus.STARTED, run_id=os.urandom(16).hex(), worker="host:1")
    one.started_at = origin.created_at + 1000
    if witness is Witness.ENDED:
        one.status = TaskStatus.SUCCESS
        one.finished_at, one.duration = one.started_at + 2000, 0.002
        one.result = json.dumps("x" * 60_000 if number % BIG == 0 else f"closed {number}")
    return one


class Memory:
    """What this process takes more than at first."""

    def __init__(self) -> None:
        gc.collect()
        self._process = psutil.Process()
        self._first = self._process.memory_info().rss
        self.most = 0

    def look(self) -> None:
        """Remember the most."""
        self.most = max(self.most, self._process.memory_info().rss - self._first)


async def flood(recorder: Recorder, count: int, memory: Memory) -> None:
    """Report as hooks do."""
    for first in range(0, count // 3, TOGETHER):
        numbers = range(first, min(first + TOGETHER, count // 3))
        await asyncio.gather(*(recorder.commit(report(n, Witness.SENT)) for n in numbers))
        for number in numbers:
            recorder.add(report(number, Witness.STARTED))
        await asyncio.gather(*(recorder.commit(report(n, Witness.ENDED)) for n in numbers))
        memory.look()


async def main(count: int) -> None:
    """Report, wait, write."""
    limit = os.environ.get(LIMIT_VARIABLE)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    tracker = Tracker()
    await tracker.startup(wait=False)
    recorder = tracker.recorder()
    await recorder.commit(report(10**9, Witness.SENT), at_once=True)
    memory = Memory()
    await flood(recorder, count, memory)

    def tell(**more: Any) -> None:
        folder = Path(os.environ["AIOTRACK_JOURNAL_DIR"])
        journal = sum(path.stat().st_size for path in folder.rglob("*.journal"))
        told = {"memory": memory.most, "journal": journal, "backlog": recorder.backlog}
        print(json.dumps(told | {"counters": dict(recorder.counters)} | more), flush=True)

    tell()
    await asyncio.to_thread(sys.stdin.readline)

    async def look() -> None:
        while True:
            memory.look()
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    flushed = await tracker.flush(240)
    looking.cancel()
    tell(flushed=flushed)
    await tracker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
