"""A process that ends executions of past hours, as fast as it can, until it is killed.

``python -m tests.integration.late URL FIRST``
"""

from __future__ import annotations

import asyncio
import sys
from random import Random

from aiotrack.clock import Clock
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository import Repository
from aiotrack.repository.statistics.periods import HOUR

HOURS = 60


def reports(now: int, first: int, count: int) -> list[Report]:
    """Give executions of the last days, some known before, in every status."""
    random = Random(first)
    made = []
    for number in range(first, first + count):
        origin = Origin(f"t{number % 997}", "late.work", "late", now - number % HOURS * HOUR)
        started = origin.created_at + random.randrange(1_000_000)
        status = random.choice([TaskStatus.SUCCESS, TaskStatus.FAILURE, TaskStatus.STARTED])
        is_over = status.is_final
        made.append(
            Report(
                origin,
                Witness.ENDED if is_over else Witness.STARTED,
                status,
                run_id=f"run {number}",
                started_at=started,
                finished_at=started + 5000 if is_over else None,
                duration=0.005 if is_over else None,
            )
        )
    return made


async def main(url: str, first: int) -> None:
    """Write for ever."""
    repository = Repository(url, clock=Clock())
    await repository.connect()
    now = repository._clock.now()
    while True:
        await repository.write(reports(now, first, 7))
        first += 7
        print(first, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
