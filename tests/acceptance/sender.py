"""A web process that sends: python -m tests.acceptance.sender FIRST COUNT PAUSE.

Prints one JSON object: the seconds that each send took, and the task_ids in order.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from taskiq import AsyncBroker

from aiotrack import tracking


async def main(first: int, count: int, pause: float) -> None:
    """Send *count* tasks numbered from *first*, with *pause* seconds between two."""
    from tests.acceptance.app import Project

    project = Project.from_environment()
    broker: AsyncBroker = project.broker
    task = broker.find_task("shop.sums:add")
    assert task is not None
    await broker.startup()
    took: list[float] = []
    ids: list[str] = []
    for number in range(first, first + count):
        with tracking(created_by=f"web-{first}", metadata={"order_id": number}):
            begun = time.perf_counter()
            sent = await task.kiq(number, note="from the web")
            took.append(time.perf_counter() - begun)
        ids.append(sent.task_id)
        await asyncio.sleep(pause)
    await broker.shutdown()
    print(json.dumps({"took": took, "ids": ids}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
