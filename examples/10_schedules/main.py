"""Three tasks on schedules: a clean-up, an import, a mail. One is paused, and goes on."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from taskiq import InMemoryBroker, TaskiqScheduler
from taskiq.api import run_scheduler_task

from aiotrack import DefinitionScheduleSource, Tracker, TrackerMiddleware
from aiotrack.testing.servers import ValkeyServer

logging.getLogger("aiotrack").addHandler(logging.NullHandler())  # it tells of a stop, too
folder = tempfile.TemporaryDirectory()
broker = InMemoryBroker()


@broker.task("shop.clean_up")
async def clean_up(days: int) -> int:
    return days  # delete what is older


@broker.task("shop.import_prices")
async def import_prices(source: str, currency: str = "EUR") -> str:
    return f"{source} in {currency}"


@broker.task("shop.remind")
async def remind(text: str) -> str:
    return text


async def main(tracker: Tracker) -> None:
    definitions, schedules = tracker.definitions, tracker.schedules
    nightly = {"cron": "0 3 * * *", "tz": "Europe/Berlin"}
    for name, task, kind, schedule, parameters in (
        ("clean up", clean_up, "cron", nightly, {"days": 30}),
        ("prices", import_prices, "interval", {"seconds": 1}, {"source": "ecb"}),
        ("reminder", remind, "manual", {}, {"text": "pay"}),
    ):
        when = {"schedule_kind": kind, "schedule": schedule}
        await definitions.create(name=name, task_type=task.task_name, parameters=parameters, **when)
    for name in ("clean up", "prices"):
        print(f"{name}: {await schedules.start(name)}")
    prices = await definitions.get("prices")
    await fired(tracker, prices.id, 2)
    print(f"prices: {await schedules.pause('prices')}")
    before = (await definitions.stats("prices")).success
    print(f"prices: {await schedules.resume('prices')}")
    await fired(tracker, prices.id, before + 2)

    reminder = await schedules.trigger("reminder", by="ada")
    print((await tracker.wait(reminder.task_id, timeout=10)).result)
    newest = (await tracker.list(config_id=prices.id, limit=1)).items[0]
    print(f"{newest.task_name}: {newest.result} ({newest.schedule_id})")


async def fired(tracker: Tracker, definition_id: int, count: int) -> None:
    while (await tracker.stats(config_id=definition_id)).success < count:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def project() -> None:
    with folder, ValkeyServer() as server:
        tracker = Tracker(f"sqlite+aiosqlite:///{Path(folder.name) / 'x.db'}", redis=server.url)
        broker.add_middlewares(TrackerMiddleware(tracker))
        await broker.startup()
        source = DefinitionScheduleSource(tracker)  # `taskiq scheduler` does this, elsewhere
        beat = asyncio.create_task(run_scheduler_task(TaskiqScheduler(broker, [source])))
        await main(tracker)
        beat.cancel()
        await source.shutdown()
        await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(project())
