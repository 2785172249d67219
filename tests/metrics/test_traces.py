"""The trace that an execution belongs to, beside TaskIQ's own OpenTelemetry middleware."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from taskiq import InMemoryBroker
from taskiq.middlewares.opentelemetry_middleware import OpenTelemetryMiddleware
from taskiq_redis import RedisStreamBroker

from aiotrack import (
    Execution,
    ExecutionNotFound,
    InvalidSetting,
    Settings,
    Tracker,
    TrackerMiddleware,
)
from aiotrack.api import create_router
from aiotrack.client import shapes
from aiotrack.model import TaskStatus

PROJECT = """
import os
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from taskiq import SimpleRetryMiddleware
from taskiq.middlewares.opentelemetry_middleware import OpenTelemetryMiddleware
from taskiq_redis import RedisStreamBroker
from aiotrack import Tracker, TrackerMiddleware

spans = TracerProvider()
line = lambda span: span.to_json(indent=None) + "\\n"
spans.add_span_processor(
    SimpleSpanProcessor(ConsoleSpanExporter(out=open("spans.jsonl", "a"), formatter=line))
)
ours, theirs = TrackerMiddleware(Tracker()), OpenTelemetryMiddleware(tracer_provider=spans)
both = (ours, theirs) if os.environ["SHOP_ORDER"] == "tracker first" else (theirs, ours)
broker = RedisStreamBroker(
    os.environ["SHOP_REDIS"], queue_name=os.environ["SHOP_QUEUE"], consumer_id="0"
).with_middlewares(*both, SimpleRetryMiddleware(default_retry_count=3))

@broker.task("shop.work")
async def work() -> str:
    return "done"

@broker.task("shop.blocking")
def blocking() -> str:
    return "done"

@broker.task("shop.second_time", retry_on_error=True)
async def second_time() -> None:
    from pathlib import Path
    if not Path("failed").exists():
        Path("failed").touch()
        raise LookupError("first time")

@broker.task("shop.fails")
async def fails() -> None:
    raise LookupError("always")
"""

NAMES = ("shop.work", "shop.blocking", "shop.second_time", "shop.fails")


def traced(*, is_first: bool, tracker: Tracker, spans: TracerProvider) -> list[Any]:
    """Give both middlewares, the tracker's first or last."""
    both = [TrackerMiddleware(tracker), OpenTelemetryMiddleware(tracer_provider=spans)]
    return both if is_first else both[::-1]


def provider() -> tuple[TracerProvider, InMemorySpanExporter]:
    """Give a provider of tracers, and what keeps its spans."""
    kept = InMemorySpanExporter()
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(kept))
    return made, kept


async def over(tracker: Tracker, task_id: str) -> Execution:
    """Wait for the end of what nobody may have recorded yet: its sender does not know us."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await tracker.wait(task_id)
            except ExecutionNotFound:
                await asyncio.sleep(0.05)


@contextmanager
def worker(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a worker of the project in *folder*."""
    (folder / "shop.py").write_text(PROJECT)
    command = (sys.executable, "-m", "taskiq", "worker", "shop:broker", "--workers", "1")
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | environment, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("order", ["tracker first", "tracker last"])
async def test_a_worker_tells_both(
    order: str, postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """Spans and records of the same runs, also of retries; each execution knows its trace."""
    environment = {
        "AIOTRACK_DATABASE_URL": postgres_url,
        "SHOP_ORDER": order,
        "SHOP_REDIS": redis_url,
        "SHOP_QUEUE": queue_name,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    spans, kept = provider()
    with worker(tmp_path, environment):
        async with Tracker(postgres_url) as tracker:
            is_first = order == "tracker first"
            broker: Any = RedisStreamBroker(redis_url, queue_name=queue_name, consumer_id="0")
            broker = broker.with_middlewares(
                *traced(is_first=is_first, tracker=tracker, spans=spans)
            )
            plain: Any = RedisStreamBroker(redis_url, queue_name=queue_name, consumer_id="0")
            sent = {}
            for sender in (broker, plain):
                await sender.startup()
                for name in NAMES:
                    task = sender.register_task(lambda: None, name, retry_on_error=True)
                    label = {"retry_on_error": name == "shop.second_time"}
                    made = await task.kicker().with_labels(**label).kiq()
                    sent[made.task_id] = (name, sender is broker)
                    ended = await over(tracker, made.task_id)
                    assert ended.status is (
                        TaskStatus.FAILURE if name == "shop.fails" else TaskStatus.SUCCESS
                    )
                (tmp_path / "failed").unlink()
                await sender.shutdown()
            executions = {key: await tracker.get(key) for key in sent}
            tries = {key: await tracker.attempts(key) for key in sent}

    lines = (tmp_path / "spans.jsonl").read_text().splitlines()
    ran: dict[str, list[str]] = {name: [] for name in NAMES}
    for span in map(json.loads, lines):
        if span["name"].startswith("execute/"):
            ran[span["name"].removeprefix("execute/")].append(span["context"]["trace_id"][2:])
    began = [span for span in kept.get_finished_spans() if span.name.startswith("send/")]
    from_sender = {f"{span.context.trace_id:032x}" for span in began if span.context}
    for key, (name, is_traced) in sent.items():
        trace = executions[key].trace_id
        runs = 2 if name == "shop.second_time" else 1
        assert runs == len(tries[key])
        assert trace is not None
        assert ran[name].count(trace) == runs, (name, is_traced)
        assert (trace in from_sender) is is_traced
    assert len({execution.trace_id for execution in executions.values()}) == len(sent)


@pytest.mark.parametrize("is_first", [True, False])
async def test_what_waits_has_the_trace_of_its_sender(tracker: Tracker, *, is_first: bool) -> None:
    """Before any worker has seen it; also where only the sender's own span is open."""
    spans, kept = provider()
    broker = InMemoryBroker(await_inplace=False)
    broker.add_middlewares(*traced(is_first=is_first, tracker=tracker, spans=spans))
    gate = asyncio.Event()

    @broker.task("shop.waits")
    async def waits() -> None:
        await gate.wait()

    await broker.startup()
    sent = await waits.kiq()
    before = await tracker.get(sent.task_id)
    gate.set()
    after = await tracker.wait(sent.task_id, timeout=30)
    await broker.shutdown()

    (one,) = [span for span in kept.get_finished_spans() if span.name == "send/shop.waits"]
    assert one.context is not None
    assert f"{one.context.trace_id:032x}" == before.trace_id == after.trace_id


async def test_a_span_around_plain_code_is_its_trace(tracker: Tracker) -> None:
    """A tracked block, and a task of a broker that has no middleware for traces."""
    spans, _ = provider()
    broker = InMemoryBroker(await_inplace=True).with_middlewares(TrackerMiddleware(tracker))

    @broker.task("shop.work")
    async def work() -> None: ...

    await broker.startup()
    with spans.get_tracer("app").start_as_current_span("request") as span:
        trace = f"{span.get_span_context().trace_id:032x}"
        sent = await work.kiq()
        async with tracker.track("shop.block") as inside:
            pass
    async with tracker.track("shop.block") as outside:
        pass
    assert trace == (await tracker.get(sent.task_id)).trace_id
    assert trace == (await tracker.get(inside.task_id)).trace_id
    assert (await tracker.get(outside.task_id)).trace_id is None
    await broker.shutdown()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "<script>",
        "\x00",
        None,
        17,
    ],
)
async def test_a_label_that_is_no_trace_is_none(tracker: Tracker, header: Any) -> None:
    """Whatever anybody sends; it is no reason to miss the record."""
    broker = InMemoryBroker(await_inplace=True).with_middlewares(TrackerMiddleware(tracker))

    @broker.task("shop.work")
    async def work() -> None: ...

    await broker.startup()
    sent = await work.kicker().with_labels(traceparent=header).kiq()
    found = await tracker.get(sent.task_id)
    assert (found.status, found.trace_id) == (TaskStatus.SUCCESS, None)
    await broker.shutdown()


async def test_the_api_links_to_it(database_url: str) -> None:
    """Where the setting says where traces are looked at; the client reads the rest."""
    spans, _ = provider()
    url = "https://traces.example.com/{trace_id}?x=1"
    async with Tracker(database_url, settings={"trace_url": url}) as tracker:
        with spans.get_tracer("app").start_as_current_span("request"):
            async with tracker.track("shop.block") as traced_one:
                pass
        async with tracker.track("shop.block") as other:
            pass
        app = FastAPI()
        app.include_router(create_router(tracker))
        transport = ASGITransport(app)
        async with AsyncClient(transport=transport, base_url="http://test") as api:
            path = "/executions/by-task-id/{}/"
            one = (await api.get(path.format(traced_one.task_id))).json()
            none = (await api.get(path.format(other.task_id))).json()
    assert shapes.execution(one).trace_id == one["trace_id"]
    assert one["trace_url"] == f"https://traces.example.com/{one['trace_id']}?x=1"
    assert none["trace_id"] is none["trace_url"] is None


def test_the_address_of_traces() -> None:
    """It becomes a link: http, and one place for the id."""
    good = "https://jaeger.example.com/trace/{trace_id}?uiEmbed=v0"
    assert Settings(trace_url=good).trace_url == good
    for bad in (
        "",
        "https://jaeger.example.com/",
        "javascript:alert({trace_id})",
        "https://x/{trace_id}/{trace_id}",
        "https://x/{span_id}/{trace_id}",
        'https://x/"{trace_id}',
        17,
    ):
        with pytest.raises(InvalidSetting, match="trace_url"):
            Settings(trace_url=bad)  # type: ignore[arg-type]
