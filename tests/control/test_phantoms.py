"""R32: what never begins: a send that fails, a task that nobody knows, a message that is none."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from taskiq import SendTaskError
from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.testing.servers import ValkeyServer

EACH = 34


async def test_phantoms_end_by_their_setting_and_not_before(
    database_url: str, own_valkey: ValkeyServer
) -> None:
    """A hundred: a failed send leaves no record; the rest is ended when it may, not before."""
    url = own_valkey.url
    async with Tracker(database_url) as tracker:
        sender = RedisStreamBroker(url, queue_name="phantoms", consumer_id="0")
        sender.add_middlewares(TrackerMiddleware(tracker))
        gone = sender.register_task(asyncio.sleep, task_name="shop.gone")
        await sender.startup()
        async with Redis.from_url(url) as client:
            for number in range(EACH):
                await gone.kiq(0)
                await client.xadd("phantoms", {b"data": b"\x00{no message" + str(number).encode()})

        served = RedisStreamBroker(url, queue_name="phantoms", consumer_id="0", xread_block=100)
        served.add_middlewares(TrackerMiddleware(tracker))
        known = served.register_task(asyncio.sleep, task_name="shop.known")
        served.is_worker_process = True
        await served.startup()
        finish = asyncio.Event()
        working = asyncio.create_task(Receiver(served).listen(finish))
        last = await known.kiq(0)
        await tracker.wait(last.task_id, timeout=20)  # all before it was taken
        finish.set()
        await asyncio.wait({working}, timeout=10)
        working.cancel()  # TaskIQ's own listener may wait for ever beside an end that it was told

        await asyncio.to_thread(own_valkey.kill)
        for _ in range(100 - 2 * EACH):
            with pytest.raises(SendTaskError):
                await gone.kiq(0)
        before = await tracker.count(status="pending")
        idle = await tracker.mark_timed_out(timeout_minutes=0)
        await sender.shutdown()
        await served.shutdown()
    async with Tracker(database_url, settings={"pending_timeout_minutes": 60}) as tracker:
        early = await tracker.mark_timed_out()
    async with Tracker(database_url, settings={"pending_timeout_minutes": 0}) as tracker:
        ended = await tracker.mark_timed_out()
        page = await tracker.list(limit=200)

    assert (EACH, 0, 0, EACH) == (before.value, idle, early, ended)
    assert {"shop.gone": EACH, "shop.known": 1} == {
        name: sum(one.task_name == name for one in page.items)
        for name in {one.task_name for one in page.items}
    }
    assert all(
        one.presumed and one.status == "FAILURE" and "nobody began it" in (one.error or "")
        for one in page.items
        if one.task_name == "shop.gone"
    )
