"""The REST API on a million rows, and how late events come to 200 clients of one execution.

A real uvicorn serves `create_app` from a process of its own. Reads: one connection, one request
after the other; each case also through `tracker.list` and its like in this process, with the same
driver and loop, in turn with the request: the difference is what HTTP, FastAPI and JSON add.
Events: clients in a third process; the time runs from the commit of an update, in the process that
makes it, until a client has read the event's data. Abuse: five hundred injection strings in
every text and path, as the tests ask them (`tests/api/abuse.py`), over the same million rows; a
metadata key without an index is scanned for, here the empty one, and cut off after two seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import uvicorn
import uvloop
from filled import fill_postgres
from harness import Lab, cpu_of, environment, parser, percentile, save, show

from aiotrack import Tracker
from aiotrack.api import create_app
from aiotrack.feature import Feature
from aiotrack.report import Report

KEYS = ["order_id", "customer", "tenant"]

Call = Callable[[Tracker, dict[str, str]], Awaitable[Any]]

CASES: dict[str, tuple[str, Call, float]] = {
    "list": ("executions/", lambda t, _: t.list(), 5),
    "list, 10 rows": ("executions/?page_size=10", lambda t, _: t.list(limit=10), 5),
    "list, 500 rows": ("executions/?page_size=500", lambda t, _: t.list(limit=500), 100),
    "list, status": ("executions/?status=failed", lambda t, _: t.list(status="failed"), 5),
    "list, module": ("executions/?module=billing", lambda t, _: t.list(module="billing"), 5),
    "list, text": ("executions/?text={start}", lambda t, w: t.list(text=w["start"]), 5),
    "list, metadata": (
        "executions/?metadata.customer=42",
        lambda t, _: t.list(metadata={"customer": 42}),
        5,
    ),
    "list, slowest first": (
        "executions/?order=-duration",
        lambda t, _: t.list(order="-duration"),
        5,
    ),
    "list, page 2": ("executions/?page=2", lambda t, _: t.list(), 5),
    "list, page 200": ("executions/?page=200", lambda t, _: t.list(), 100),
    "list with a count": ("executions/?count=true", lambda t, _: t.list(), 100),
    "one, by its id": ("executions/{id}/", lambda t, w: t.get_by_id(int(w["id"])), 5),
    "one, by its task_id": (
        "executions/by-task-id/{task_id}/",
        lambda t, w: t.get(w["task_id"]),
        5,
    ),
    "status": ("executions/status/?task_id={task_id}", lambda t, w: t.sync(w["task_id"]), 5),
    "stats": ("executions/stats/", lambda t, _: t.stats(), 15),
    "stats, 24 h": (
        "executions/stats/?since={day}",
        lambda t, _: t.stats(since=timedelta(days=1)),
        10,
    ),
    "stats, module": ("executions/stats/?module=mail", lambda t, _: t.stats(module="mail"), 15),
}
"""The path, the same by the tracker, and the milliseconds that are the goal."""


# ── the other processes ─────────────────────────────────────────────────────────────────────────
def serve(options: argparse.Namespace) -> None:
    """Serve the API on a free port, and print it."""
    import socket

    settings = {"namespace": options.name, "indexed_metadata": KEYS}
    tracker = Tracker(options.database, redis=options.redis, settings=settings)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1000)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(create_app(tracker), log_level="error", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])


async def listen(options: argparse.Namespace) -> None:
    """Open the streams; print when each number came to each client."""
    seen: list[tuple[int, float]] = []
    path = f"/api/v1/executions/by-task-id/{options.task}/events/"

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", options.port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        while True:
            line = await reader.readline()
            if line.startswith(b"data: "):
                now = time.monotonic()
                data = json.loads(line[6:])
                number = data["metadata"]["number"]
                if data["is_completed"]:
                    writer.close()
                    return
                seen.append((number, now))
                if number == 0:
                    opened.append(number)

    opened: list[int] = []
    clients = [asyncio.create_task(client()) for _ in range(options.clients)]
    while len(opened) < options.clients:  # noqa: ASYNC110 - a benchmark
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    await asyncio.gather(*clients)
    print(json.dumps(seen))


def start(role: str, words: Sequence[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), "--role", role, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# ── reads ───────────────────────────────────────────────────────────────────────────────────────
class Connection:
    """Asks for one thing after the other, on one connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def get(self, path: str) -> bytes:
        status, body = await self.ask(path)
        assert status == 200, (path, body[:300])
        return body

    async def ask(self, path: str) -> tuple[int, bytes]:
        self._writer.write(f"GET /api/v1/{path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        return int(head.split(b" ", 2)[1]), body


async def reads(
    tracker: Tracker, connection: Connection, server: int, calls: int
) -> list[dict[str, Any]]:
    newest = (await tracker.list(status="SUCCESS", limit=1)).items[0]
    day = (newest.created_at - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    words = {"id": str(newest.id), "task_id": newest.task_id, "start": newest.task_id[:6]}
    words["day"] = day
    found = []
    for name, (template, call, goal) in CASES.items():
        asked, told, spent = [], [], 0.0
        path = template.format(**words)
        for number in range(calls + 3):
            begun, cpu = time.perf_counter(), cpu_of(server)
            body = await connection.get(path)
            took, cpu = time.perf_counter() - begun, cpu_of(server) - cpu
            begun = time.perf_counter()
            await call(tracker, words)
            if number >= 3:
                asked.append(took * 1e3)
                told.append((time.perf_counter() - begun) * 1e3)
                spent += cpu * 1e3
        found.append(
            {
                "what": "read",
                "case": name,
                "goal_ms": goal,
                "p50_ms": statistics.median(asked),
                "lowest_ms": min(asked),
                "p99_ms": percentile(sorted(asked), 99),
                "tracker_ms": statistics.median(told),
                "tracker_lowest_ms": min(told),
                "server_cpu_ms": spent / calls,
                "bytes": len(body),
            }
        )
    return found


# ── abuse ───────────────────────────────────────────────────────────────────────────────────────
async def abused(connection: Connection, server: int) -> dict[str, Any]:
    """Ask what nobody should, and tell how long the answers took and what they were."""
    from tests.api.abuse import LISTS, PATHS, TEXTS, encoded, strings

    memory = psutil.Process(server).memory_info().rss
    times, kinds = [], Counter[str]()
    for number, text in enumerate(strings(500)):
        told, name = encoded(text), TEXTS[number % len(TEXTS)]
        name = "metadata.customer" if name == "metadata.a" else name  # one that has an index
        for paths in (LISTS, PATHS):
            path = paths[number % len(paths)].format(name=name, told=told)
            begun = time.perf_counter()
            status, _ = await connection.ask(path.removeprefix("/"))
            times.append((time.perf_counter() - begun) * 1e3)
            kinds[f"{status // 100}xx"] += 1
    times.sort()
    return {
        "what": "abuse",
        "asked": len(times),
        "answers": dict(kinds),
        "p50_ms": statistics.median(times),
        "p99_ms": percentile(times, 99),
        "worst_ms": times[-1],
        "grown_bytes": psutil.Process(server).memory_info().rss - memory,
    }


# ── events ──────────────────────────────────────────────────────────────────────────────────────
class Stamps(Feature):
    """Notes when something was committed last."""

    at = 0.0

    def on_commit(self, _: Sequence[Report]) -> None:
        self.at = time.monotonic()


class Stamped(Tracker):
    """A tracker that notes its commits."""

    features = (*Tracker.features, Stamps)


async def events(
    database: str, redis: str, name: str, port: int, server: int, *, clients: int, updates: int
) -> dict[str, Any]:
    committed: dict[int, float] = {}
    async with Stamped(database, redis=redis, settings={"namespace": name}) as tracker:
        task = f"watched by {clients}"
        await tracker.register(task, "bench:watched", status="started", metadata={"number": 0})
        listener = start("listen", ["--port", port, "--clients", clients, "--task", quote(task)])
        await asyncio.to_thread(line_of, listener)
        begun, cpu = time.monotonic(), cpu_of(server)
        for number in range(1, updates + 1):
            await tracker.update(task, metadata={"number": number})
            committed[number] = tracker.feature(Stamps).at
            await asyncio.sleep(max(0.0, begun + number * 0.1 - time.monotonic()))
        spent, took = cpu_of(server) - cpu, time.monotonic() - begun
        await tracker.update(task, "success")
        text = (await asyncio.to_thread(listener.communicate, timeout=60))[0]
    late = sorted(
        (at - committed[number]) * 1e3 for number, at in json.loads(text) if number in committed
    )
    return {
        "what": "events",
        "clients": clients,
        "updates": updates,
        "seen": len(late),
        "p50_ms": statistics.median(late),
        "p99_ms": percentile(late, 99),
        "worst_ms": late[-1],
        "server_cpu": spent / took,
    }


async def run(lab: Lab, rows: int, calls: int, updates: int) -> list[dict[str, Any]]:
    database = lab.postgres.create_database("api")
    settings = {"namespace": "bench-api", "indexed_metadata": KEYS}
    async with Tracker(database, settings=settings):
        pass
    await fill_postgres(lab.postgres.dsn_of("api"), rows)
    words = ["--database", database, "--redis", lab.valkey.url, "--name", "bench-api"]
    server = start("serve", words)
    try:
        port = int(line_of(server))
        connection = Connection(port)
        for _ in range(100):
            with contextlib.suppress(OSError):
                await connection.open()
                break
            await asyncio.sleep(0.1)
        async with Tracker(database, settings=settings) as tracker:
            await tracker.roll_up()
            found = await reads(tracker, connection, server.pid, calls)
        found.append(await abused(connection, server.pid))
        for clients in (1, 200):
            found.append(
                await events(
                    database,
                    lab.valkey.url,
                    "bench-api",
                    port,
                    server.pid,
                    clients=clients,
                    updates=updates,
                )
            )
    finally:
        server.terminate()
        server.wait(10)
    return [one | {"rows": rows, "calls": calls} for one in found]


HEAD = ["ms", "p50", "lowest", "p99", "by the tracker", "its lowest", "server CPU", "KiB"]
HEAD += ["goal", "met"]
ABUSE = ["abuse", "asked", "p50 ms", "p99 ms", "worst ms", "answers", "grown MiB"]
EVENTS = ["clients", "updates", "seen", "p50 ms", "p99 ms", "worst ms", "share of a core"]


def table(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Give a row for each kind of read."""
    names = ("p50_ms", "lowest_ms", "p99_ms", "tracker_ms", "tracker_lowest_ms", "server_cpu_ms")
    return [
        [
            one["case"],
            *(f"{one[name]:.2f}" for name in names),
            f"{one['bytes'] / 1024:.0f}",
            f"{one['goal_ms']:g}",
            "yes" if one["p50_ms"] <= one["goal_ms"] else "NO",
        ]
        for one in results
        if one["what"] == "read"
    ]


def abuse_table(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Give the one row of what was abused."""
    return [
        [
            "injection strings",
            f"{one['asked']:,}",
            *(f"{one[name]:.1f}" for name in ("p50_ms", "p99_ms", "worst_ms")),
            ", ".join(f"{count} {kind}" for kind, count in sorted(one["answers"].items())),
            f"{one['grown_bytes'] / 2**20:.1f}",
        ]
        for one in results
        if one["what"] == "abuse"
    ]


def events_table(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Give a row for each number of clients."""
    return [
        [
            str(one["clients"]),
            f"{one['updates']:,}",
            f"{one['seen']:,}",
            *(f"{one[name]:.1f}" for name in ("p50_ms", "p99_ms", "worst_ms")),
            f"{one['server_cpu']:.2f}",
        ]
        for one in results
        if one["what"] == "events"
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="rows of Postgres")
    options.add_argument("--role", choices=("serve", "listen"), help=argparse.SUPPRESS)
    for name in ("database", "redis", "name", "task"):
        options.add_argument(f"--{name}", help=argparse.SUPPRESS)
    for name in ("port", "clients"):
        options.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.role == "serve":
        serve(given)
        return
    if given.role == "listen":
        uvloop.run(listen(given))
        return
    rows, calls, updates = (20_000, 5, 10) if given.short else (given.rows, 50, 300)
    with Lab() as lab:
        results = uvloop.run(run(lab, rows, calls, updates))
    show(HEAD, table(results), markdown=given.markdown)
    show(ABUSE, abuse_table(results), markdown=given.markdown)
    show(EVENTS, events_table(results), markdown=given.markdown)
    save("api", results, given)


if __name__ == "__main__":
    main()
