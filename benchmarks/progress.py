"""What one `await tracker.progress(…)` costs a task that calls it in a loop."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from harness import parser, percentile, save, show

from aiotrack import Tracker


async def measure(calls: int, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Give microseconds per call by the kind of call, and the row's last percentage."""
    kinds = ("percent", "current and total", "with a message", "with two extras", "from a thread")
    times: dict[str, list[float]] = {kind: [] for kind in kinds}

    def work(tracker: Tracker) -> None:
        for number in range(calls):
            tracker.progress_sync(number % 100)

    with TemporaryDirectory() as folder:
        async with Tracker(f"sqlite+aiosqlite:///{Path(folder) / 'bench.db'}") as tracker:
            async with tracker.track("bench:progress") as run:
                for _ in range(rounds):
                    begun = time.perf_counter()
                    for number in range(calls):
                        await tracker.progress(number % 100)
                    times["percent"].append((time.perf_counter() - begun) / calls * 1e6)
                    begun = time.perf_counter()
                    for number in range(calls):
                        await tracker.progress(current=number, total=calls)
                    times["current and total"].append((time.perf_counter() - begun) / calls * 1e6)
                    begun = time.perf_counter()
                    for number in range(calls):
                        await tracker.progress(number % 100, "half way", "copy")
                    times["with a message"].append((time.perf_counter() - begun) / calls * 1e6)
                    begun = time.perf_counter()
                    for number in range(calls):
                        await tracker.progress(number % 100, rows=number, bad_rows=0)
                    times["with two extras"].append((time.perf_counter() - begun) / calls * 1e6)
                    begun = time.perf_counter()
                    await asyncio.to_thread(work, tracker)
                    times["from a thread"].append((time.perf_counter() - begun) / calls * 1e6)
                await tracker.progress(77)
            stored = await tracker.get(run.task_id)
    return times, stored.metadata["progress_percent"]


def main() -> None:
    options = parser(__doc__).parse_args()
    calls, rounds = (20_000, 3) if options.short else (100_000, 11)
    times, last = uvloop.run(measure(calls, rounds))
    if last != 77:
        raise SystemExit(f"the last call said 77, the record says {last}")
    rows = [
        [name, f"{statistics.median(every):.2f}", f"{percentile(every, 100):.2f}"]
        for name, every in times.items()
    ]
    head = ["await tracker.progress(…)", "µs a call", "slowest round"]
    show(head, rows, markdown=options.markdown)
    results: list[dict[str, Any]] = [
        {"what": "progress", "call": name, "calls": calls, "us": statistics.median(every)}
        for name, every in times.items()
    ]
    save("progress", results, options)


if __name__ == "__main__":
    main()
