"""What Prometheus is told: of a process by prometheus_client, of the fleet over the API."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from taskiq import InMemoryBroker
from taskiq_redis import RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.brokers import PriorityStreamBroker
from aiotrack.metrics import exposition
from aiotrack.testing.servers import ValkeyServer


def told(text: str) -> dict[tuple[str, ...], float]:
    """Give every value by its name and its labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


PROJECT = """
import os
from pathlib import Path
from taskiq import PrometheusMiddleware
from taskiq_redis import RedisStreamBroker
from aiotrack import Tracker, TrackerMiddleware

folder = Path(os.environ["SHOP_FOLDER"])
broker = RedisStreamBroker(
    os.environ["SHOP_REDIS"], queue_name=os.environ["SHOP_QUEUE"], consumer_id="0"
).with_middlewares(
    TrackerMiddleware(Tracker()),
    PrometheusMiddleware(folder / "metrics", int(os.environ["SHOP_PORT"]), "127.0.0.1"),
)

@broker.task("shop.work")
async def work() -> None:
    pass
"""


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.mark.timeout(90)
async def test_workers_tell_beside_the_metrics_of_taskiq(
    postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """Two processes, one address: what TaskIQ counts, and what their recorders counted together."""
    (tmp_path / "shop.py").write_text(PROJECT)
    port = free_port()
    environment = os.environ | {
        "AIOTRACK_DATABASE_URL": postgres_url,
        "AIOTRACK_METRICS": "true",
        "SHOP_FOLDER": str(tmp_path),
        "SHOP_REDIS": redis_url,
        "SHOP_QUEUE": queue_name,
        "SHOP_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = (sys.executable, "-m", "taskiq", "worker", "shop:broker", "--workers", "2")
    process = await asyncio.to_thread(
        subprocess.Popen, command, cwd=tmp_path, env=environment, start_new_session=True
    )
    try:
        async with Tracker(postgres_url) as tracker:
            broker: Any = RedisStreamBroker(redis_url, queue_name=queue_name, consumer_id="0")
            broker = broker.with_middlewares(TrackerMiddleware(tracker))
            task = broker.register_task(lambda: None, "shop.work")
            await broker.startup()
            for sent in [await task.kiq() for _ in range(20)]:
                await tracker.wait(sent.task_id, timeout=60)
            await broker.shutdown()
        end = time.monotonic() + 30
        found: dict[tuple[str, ...], float] = {}
        while found.get(("aiotrack_reports_flushed_total",), 0) < 20:
            assert time.monotonic() < end, found
            found = told(await asyncio.to_thread(scrape, port))
            await asyncio.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        await asyncio.to_thread(process.wait, 30)

    assert 20 == found[("success_tasks_total", "shop.work")]
    assert 0 == found[("aiotrack_reports_buffered",)]
    assert 0 == found[("aiotrack_recording_stalled",)]
    assert 0 < found[("aiotrack_commits_total",)] <= 40
    assert 0 == found.get(("aiotrack_reports_dropped_total",), 0)


def scrape(port: int) -> str:
    """Ask for the metrics as Prometheus does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


async def test_the_fleet_is_told(
    database_url: str, redis_url: str, queue_name: str, own_valkey: ValkeyServer
) -> None:
    """Open executions, queues, locks, schedules; without Redis the rest of it, and what is not."""
    settings = {"namespace": queue_name}
    async with Tracker(database_url, redis=own_valkey.url, settings=settings) as tracker:
        broker = PriorityStreamBroker(own_valkey.url, queue_name=queue_name)
        broker.add_middlewares(TrackerMiddleware(tracker))
        task = broker.register_task(lambda: None, "shop.work")
        await broker.startup()
        for _ in range(3):
            await task.kiq()
        await tracker.register("x", "shop.other", status="STARTED")
        made = await tracker.definitions.create(
            name="n", task_type="shop.work", schedule_kind="interval", schedule={"seconds": 3600}
        )
        await tracker.schedules.start(made.id)
        async with tracker.lock("rows"):
            text = (await exposition(tracker)).decode()
        await broker.shutdown()
        own_valkey.kill()
        without = told((await exposition(tracker)).decode())
    found = told(text)

    assert (
        "# HELP aiotrack_queue_depth Messages that wait.\n# TYPE aiotrack_queue_depth gauge" in text
    )
    assert 3 == found[("aiotrack_executions_open", "pending")]
    assert 1 == found[("aiotrack_executions_open", "started")]
    assert 3 == found[("aiotrack_queue_depth", queue_name)]
    assert 0 <= found[("aiotrack_queue_oldest_age_seconds", queue_name)] < 60
    assert 1 == found[("aiotrack_locks_held",)]
    assert (1, 0) == tuple(found["aiotrack_schedules", one] for one in ("active", "paused"))
    assert 0 == found[("aiotrack_workers", "alive")]
    parts = ("executions", "workers", "queues", "locks", "schedules")
    assert [0, 0, 0, 0, 0] == [found["aiotrack_scrape_failed", one] for one in parts]
    failed = [without["aiotrack_scrape_failed", one] for one in parts]
    assert [0, 0, 1, 1] == [failed[0], failed[1], *failed[3:]]
    assert 3 == without[("aiotrack_executions_open", "pending")]


async def test_nothing_is_told_unless_it_is_asked_for(made_sqlite_url: str) -> None:
    """In a process that never loads prometheus_client."""
    script = (
        "import asyncio, sys\n"
        "from aiotrack import Tracker\n"
        "async def main():\n"
        "    async with Tracker(sys.argv[1]) as tracker:\n"
        "        await tracker.register('x', 'shop.work')\n"
        "asyncio.run(main())\n"
        "assert 'prometheus_client' not in sys.modules\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, made_sqlite_url)
    assert 0 == await process.wait()


async def test_a_process_that_has_no_prometheus_client(
    made_sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once, with what to install, and records."""
    monkeypatch.delitem(sys.modules, "aiotrack.metrics.meter", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with Tracker(made_sqlite_url, settings={"metrics": True}) as tracker:
        broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
        task = broker.register_task(lambda: 1, "shop.work")
        await broker.startup()
        execution = await tracker.wait((await task.kiq()).task_id, timeout=20)
        await broker.shutdown()

    assert 1 == execution.result
    assert any("aiotrack[metrics]" in line for line in caplog.messages)
