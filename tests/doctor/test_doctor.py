"""What `aiotrack doctor` finds: each mistake that is planted, and nothing in a right set-up."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from taskiq import AsyncBroker, InMemoryBroker, SimpleRetryMiddleware, SmartRetryMiddleware
from taskiq.serializers import PickleSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.brokers import PriorityStreamBroker
from aiotrack.doctor import Finding, examine
from aiotrack.testing.servers import PostgresServer, ValkeyServer
from tests.control.crew import enlist

Plant = Callable[[AsyncBroker], AsyncBroker]


@pytest.fixture
def tracker(postgres_url: str, redis_url: str, queue_name: str) -> Tracker:
    """A tracker that nobody has started."""
    return Tracker(postgres_url, redis=redis_url, settings={"namespace": queue_name})


def right(tracker: Tracker, redis_url: str, queue: str, *more: Any, **labels: Any) -> AsyncBroker:
    """A set-up as the pages say, with a task that has *labels*."""
    broker = PriorityStreamBroker(redis_url, queue_name=queue)
    return with_task(broker, tracker, *more, **labels)


def with_task(
    broker: AsyncBroker, tracker: Tracker | None, *more: Any, **labels: Any
) -> AsyncBroker:
    """Give a broker its middlewares and a task."""
    first = [] if tracker is None else [TrackerMiddleware(tracker)]
    broker = broker.with_middlewares(*first, *more)

    @broker.task("shop.work", **labels)
    async def work() -> None:
        pass

    return broker


def codes(found: list[Finding]) -> set[str]:
    """Give what was found."""
    return {one.code for one in found}


async def test_a_right_set_up(tracker: Tracker, redis_url: str, queue_name: str) -> None:
    """Nothing, neither before the first run nor after a day of work."""
    broker = right(tracker, redis_url, queue_name, SimpleRetryMiddleware(), timeout=30)
    broker = broker.with_result_backend(RedisAsyncResultBackend(redis_url))
    assert [] == await examine(broker)

    now = datetime.now(UTC)
    async with tracker:
        await tracker.register("1", "shop.work", created_at=now - timedelta(days=1))
        await tracker.register("2", "aiotrack:roll_up", module="aiotrack", created_at=now)
    assert [] == await examine(broker)


async def test_a_database_without_a_schema(
    empty_database_url: str, redis_url: str, queue_name: str
) -> None:
    """The first start makes it: that is no fault, and the doctor makes none."""
    tracker = Tracker(empty_database_url, redis=redis_url)
    assert [] == await examine(right(tracker, redis_url, queue_name))
    repository = tracker.core().repository
    assert await repository.version() is None
    await tracker.shutdown()


PLANTED: dict[str, Callable[[Tracker, str, str], AsyncBroker]] = {
    "no-tracker": lambda _, redis, queue: with_task(PriorityStreamBroker(redis, queue), None),
    "two-trackers": lambda tracker, redis, queue: right(
        tracker, redis, queue, TrackerMiddleware(tracker)
    ),
    "middleware-order": lambda tracker, redis, queue: with_task(
        PriorityStreamBroker(redis, queue),
        None,
        SimpleRetryMiddleware(),
        TrackerMiddleware(tracker),
    ),
    "retries-without-delay": lambda tracker, redis, queue: right(
        tracker, redis, queue, SmartRetryMiddleware()
    ),
    "in-memory": lambda tracker, _, __: with_task(InMemoryBroker(), tracker),
    "no-acknowledgements": lambda tracker, redis, queue: with_task(
        ListQueueBroker(redis, queue_name=queue, socket_timeout=None), tracker
    ),
    "socket-timeout": lambda tracker, redis, queue: with_task(
        ListQueueBroker(redis, queue_name=queue), tracker
    ),
    "messages-skipped": lambda tracker, redis, queue: with_task(
        RedisStreamBroker(redis, queue_name=queue, maxlen=1000), tracker
    ),
    "unbounded-stream": lambda tracker, redis, queue: with_task(
        RedisStreamBroker(redis, queue_name=queue, consumer_id="0"), tracker
    ),
    "idle-timeout": lambda tracker, redis, queue: with_task(
        RedisStreamBroker(redis, queue_name=queue, consumer_id="0", maxlen=1000),
        tracker,
        timeout=1200,
    ),
    "pickle": lambda tracker, redis, queue: right(tracker, redis, queue).with_serializer(
        PickleSerializer()
    ),
    "early-acknowledgement": lambda tracker, redis, queue: right(
        tracker, redis, queue, ack_type="when_received"
    ),
    "requeue-twice": lambda tracker, redis, queue: right(tracker, redis, queue, on_lost="requeue"),
}
ADVICE = {"middleware-order", "in-memory", "unbounded-stream"}
WITH = {"socket-timeout": {"no-acknowledgements"}}
"""What cannot but come together."""


@pytest.mark.parametrize("code", PLANTED)
async def test_mistakes_of_a_project(
    code: str, tracker: Tracker, redis_url: str, queue_name: str
) -> None:
    """Each is found, and nothing else."""
    found = await examine(PLANTED[code](tracker, redis_url, queue_name))

    assert {code} == codes(found) - WITH.get(code, set())
    (one,) = (one for one in found if one.code == code)
    assert one.is_wrong == (code not in ADVICE)
    assert one.change


@pytest.mark.parametrize("elsewhere", [[], ["busy"]])
async def test_work_that_nobody_does(
    tracker: Tracker, redis_url: str, queue_name: str, elsewhere: list[str]
) -> None:
    """Records, and no sweep for an hour; messages, and for a minute no worker that takes them."""
    broker = right(tracker, redis_url, queue_name)
    now = datetime.now(UTC)
    async with tracker, Redis.from_url(redis_url) as redis:
        await tracker.register("1", "shop.work", created_at=now - timedelta(hours=2))
        for worker in elsewhere:
            await enlist(tracker, worker)
        sent = int((now - timedelta(minutes=5)).timestamp() * 1000)
        await redis.xadd(queue_name, {"data": b"{}"}, id=f"{sent}-0")
    try:
        assert {"no-scheduler", "no-worker"} == codes(await examine(broker))
    finally:
        async with Redis.from_url(redis_url) as redis:
            await redis.delete(queue_name)


NEVER = "0 0 1 1 *"


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, True),
        ({"mark_timeout_crontab": "0 */6 * * *"}, False),
        ({"mark_timeout_enabled": False}, False),  # the clean-up comes once a day
        ({"mark_timeout_crontab": NEVER, "cleanup_crontab": NEVER}, False),
        ({"mark_timeout_enabled": False, "cleanup_crontab": "*/9 * * * *"}, True),
    ],
)
async def test_a_scheduler_is_known_by_what_is_always_recorded(
    postgres_url: str, redis_url: str, queue_name: str, settings: dict[str, Any], found: bool
) -> None:
    """Three due times of the most frequent of these sweeps, and no record of any."""
    tracker = Tracker(postgres_url, redis=redis_url, settings={"namespace": queue_name, **settings})
    broker = right(tracker, redis_url, queue_name)
    old = datetime.now(UTC) - timedelta(hours=2)
    async with tracker:
        await tracker.register("1", "aiotrack:cleanup", module="aiotrack", created_at=old)

    assert ({"no-scheduler"} if found else set()) == codes(await examine(broker))


async def test_a_scheduler_with_nothing_to_add_up(
    tracker: Tracker, redis_url: str, queue_name: str
) -> None:
    """A roll-up that finds nothing new leaves no record, however often it comes."""
    broker = right(tracker, redis_url, queue_name)
    now = datetime.now(UTC)
    async with tracker:
        for task_id, name, hours in (("1", "roll_up", 9), ("2", "mark_timed_out", 0.6)):
            created = now - timedelta(hours=hours)
            await tracker.register(
                task_id, f"aiotrack:{name}", module="aiotrack", created_at=created
            )

    assert [] == await examine(broker)


async def test_runs_that_are_doubled(tracker: Tracker, redis_url: str, queue_name: str) -> None:
    """What took longer than the stock stream broker waits for it was run by another worker, too."""
    broker = with_task(
        RedisStreamBroker(redis_url, queue_name=queue_name, consumer_id="0", maxlen=9), tracker
    )
    now = datetime.now(UTC)
    async with tracker:
        await tracker.register("0", "aiotrack:roll_up", module="aiotrack", created_at=now)
        await tracker.register(
            *("1", "shop.work"),
            created_at=now - timedelta(minutes=30),
            started_at=now - timedelta(minutes=29),
            finished_at=now,
            status="SUCCESS",
        )
    (one,) = await examine(broker)

    assert "runs-twice" == one.code
    assert "1740 s" in one.what


async def test_an_index_that_is_missing(database_url: str, redis_url: str, queue_name: str) -> None:
    """A key of indexed_metadata that the schema was made without."""
    tracker = Tracker(database_url, redis=redis_url, settings={"indexed_metadata": "order_id"})
    (one,) = await examine(right(tracker, redis_url, queue_name))
    assert "missing-index" == one.code
    await tracker.upgrade()
    await tracker.shutdown()
    assert [] == await examine(right(tracker, redis_url, queue_name))


@pytest.mark.parametrize(("version", "change"), [("0000", "db upgrade"), ("9999", "release")])
async def test_a_schema_of_another_release(
    database_url: str, redis_url: str, queue_name: str, version: str, change: str
) -> None:
    """An older one is upgraded; for a newer one it is aiotrack."""
    tracker = Tracker(database_url, redis=redis_url)
    async with tracker, tracker.core().repository.connection() as connection:
        await connection.exec_driver_sql(f"UPDATE aiotrack_version SET version_num = '{version}'")
        await connection.commit()
    (one,) = await examine(right(tracker, redis_url, queue_name))

    assert "schema" == one.code
    assert change in one.change


async def test_servers_that_do_not_answer(
    own_postgres: PostgresServer, own_valkey: ValkeyServer
) -> None:
    """All are told at once."""
    tracker = Tracker(own_postgres.url, redis=own_valkey.url)
    broker = right(tracker, own_valkey.url, "queue")
    assert [] == await examine(broker)
    own_postgres.kill()
    own_valkey.kill()
    assert {"database", "redis", "broker"} == codes(await examine(broker))


async def test_a_queue_that_does_not_answer(tracker: Tracker, queue_name: str) -> None:
    """The Redis of the broker is another one than the tracker's."""
    (one,) = await examine(right(tracker, "redis://127.0.0.1:1", queue_name))

    assert ("broker", True) == (one.code, one.is_wrong)
    assert "127.0.0.1:1" in one.what


@pytest.mark.parametrize(
    ("policy", "gone", "is_wrong"),
    [("allkeys-lru", "queues, locks and schedules", True), ("volatile-ttl", "held locks", False)],
)
async def test_a_server_that_throws_things_away(
    postgres_url: str, own_valkey: ValkeyServer, policy: str, gone: str, is_wrong: bool
) -> None:
    """A policy that may delete queues, or held locks only, which is advice."""
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.config_set("maxmemory", 2**30)
        await redis.config_set("maxmemory-policy", policy)
    tracker = Tracker(postgres_url, redis=own_valkey.url)
    (one,) = await examine(right(tracker, own_valkey.url, "queue"))

    assert ("eviction", is_wrong, "set noeviction") == (one.code, one.is_wrong, one.change)
    assert gone in one.what


async def test_a_clock_that_is_off(
    tracker: Tracker, redis_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's, against the database's."""
    from aiotrack.doctor import servers

    true = servers.time.time
    monkeypatch.setattr(servers.time, "time", lambda: true() - 3600)
    (one,) = await examine(right(tracker, redis_url, queue_name))
    assert "clock-skew" == one.code
    assert "3600 s behind" in one.what


async def test_places_that_are_wrong(
    redis_url: str, queue_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database where one stands, no Redis, and a journal that cannot be written.

    The file of the database is not made by looking for it.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("AIOTRACK_DATABASE_URL", "AIOTRACK_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "journals").touch()
    tracker = Tracker(settings={"journal_dir": str(tmp_path / "journals")})
    found = await examine(right(tracker, redis_url, queue_name))
    assert {"default-database", "no-redis", "journal-folder"} == codes(found)
    assert ["journals"] == await asyncio.to_thread(os.listdir, tmp_path)


PROJECT = """
from aiotrack import Tracker, TrackerMiddleware
from aiotrack.brokers import PriorityStreamBroker
broker = PriorityStreamBroker({redis!r}, {queue!r})
if {tracked}:
    broker.add_middlewares(TrackerMiddleware(Tracker({database!r}, redis={redis!r})))
"""


@pytest.mark.parametrize("tracked", [True, False])
def test_the_verb(
    postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path, tracked: bool
) -> None:
    """Exit code 1 when something is wrong; the words and the JSON say what, and what to do."""
    values = {"redis": redis_url, "queue": queue_name, "database": postgres_url}
    (tmp_path / "shop.py").write_text(PROJECT.format(**values, tracked=tracked))

    def ask(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "aiotrack", "doctor", "shop:broker", *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    told, data = ask(), ask("--json")
    assert int(not tracked) == told.returncode == data.returncode
    items = json.loads(data.stdout)["items"]
    assert ([] if tracked else ["no-tracker"]) == [one["code"] for one in items]
    assert ("nothing to change" if tracked else "with_middlewares") in told.stdout
