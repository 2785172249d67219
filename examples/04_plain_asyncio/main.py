"""Record functions and blocks that no broker carries."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from aiotrack import Tracker

folder = tempfile.TemporaryDirectory()
tracker = Tracker(f"sqlite+aiosqlite:///{Path(folder.name) / 'plain.db'}")


@tracker.tracked(module="reports")
async def nightly_report(day: str) -> str:
    await tracker.progress(50, "half way")
    return f"report of {day}"


@tracker.tracked("reports.count")
def count(rows: list[int]) -> int:
    return len(rows)


async def load_customers(path: str) -> int:
    raise FileNotFoundError(path)


async def main() -> None:
    async with tracker:
        print(await nightly_report("Monday"))
        print(await asyncio.to_thread(count, [1, 2, 3]))

        try:
            async with tracker.track("imports.customers", metadata={"file": "a.csv"}) as run:
                print("the id is known at once:", len(run.task_id), "characters")
                await load_customers("a.csv")
        except FileNotFoundError:
            print("the exception passed through")

        await tracker.flush()  # what a thread reported is committed now
        page = await tracker.list(order="created_at")
        for execution in page.items:
            print(execution.task_name, execution.status, execution.args, execution.metadata)
            print("  ", execution.result or execution.error)


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
