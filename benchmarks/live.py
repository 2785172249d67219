"""How long after its commit an update is seen by `watch` in another process, and what that costs.

One process runs tasks (two updates each: sent, ended) at a steady rate, another follows them all by
a filter. Then the follower is stopped (SIGSTOP), so that it reads nothing any more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from harness import Lab, environment, parser, percentile, save, show
from taskiq import InMemoryBroker
from variants import VARIANTS

from aiotrack import TaskStatus, Tracker, TrackerMiddleware
from aiotrack.feature import Feature
from aiotrack.report import Report

AT_ONCE = 5.0
"""Milliseconds between two bursts of sends."""


class Stamps(Feature):
    """Notes when each update was committed, on the clock that all processes of a host share."""

    seen: dict[str, float] = {}  # noqa: RUF012 - one process, one benchmark

    def on_commit(self, reports: Sequence[Report]) -> None:
        now = time.monotonic()
        for report in reports:
            self.seen[f"{report.origin.task_id} {report.status.is_final:d}"] = now


class Stamped(Tracker):
    """A tracker that notes its commits."""

    features = (*Tracker.features, Stamps)


# ── the two processes ───────────────────────────────────────────────────────────────────────────
async def write(options: argparse.Namespace) -> None:
    """Run tasks at a steady rate, and print when their updates were committed."""
    tracker = Stamped(options.database, redis=options.redis, settings={"namespace": options.name})
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))

    @broker.task("bench:noop")
    async def noop() -> None:
        return None

    await broker.startup()
    await (await noop.kiq()).wait_result()
    cpu, begun = time.process_time(), time.monotonic()
    sent: set[asyncio.Task[Any]] = set()
    number = 0
    while (passed := time.monotonic() - begun) < options.seconds:
        while number < passed * options.rate / 2:
            sent.add(asyncio.create_task(noop.kiq()))
            number += 1
        await asyncio.sleep(AT_ONCE / 1000)
    await asyncio.gather(*sent)
    await tracker.flush()
    spent = time.process_time() - cpu
    await broker.shutdown()
    print(json.dumps({"committed": Stamps.seen, "cpu": spent, "tasks": number}))


async def follow(options: argparse.Namespace) -> None:
    """Print when each update was seen."""
    seen: dict[str, float] = {}

    async def collect() -> None:
        async with Tracker(
            options.database, redis=options.redis, settings={"namespace": options.name}
        ) as tracker:
            async for execution in tracker.watch(task_name="bench:noop"):
                now = time.monotonic()
                seen.setdefault(f"{execution.task_id} 0", now)
                if execution.status is TaskStatus.SUCCESS:
                    seen.setdefault(f"{execution.task_id} 1", now)

    collecting = asyncio.create_task(collect())
    await asyncio.sleep(1)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    collecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await collecting
    print(json.dumps(seen))


def start(role: str, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), "--role", role, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def run(lab: Lab, kind: str, *, rate: int, seconds: float) -> dict[str, Any]:
    """Give latencies in milliseconds and the writer's CPU for one kind of follower."""
    target = lab.target(VARIANTS["postgres"])
    words = ["--database", target.database, "--redis", target.redis, "--name", target.queue]
    words += ["--rate", str(rate), "--seconds", str(seconds)]
    asyncio.run(_schema(target.database))
    follower = None if kind == "nobody" else start("follow", words)
    if follower is not None:
        assert follower.stdout is not None
        follower.stdout.readline()
        if kind == "stopped":
            follower.send_signal(signal.SIGSTOP)
    writer = start("write", words)
    told = json.loads(writer.communicate(timeout=seconds + 60)[0])
    seen: dict[str, float] = {}
    if follower is not None:
        time.sleep(0.5)
        follower.send_signal(signal.SIGCONT)
        text = follower.communicate(timeout=60)[0]
        seen = json.loads(text)
    committed: dict[str, float] = told["committed"]
    late = sorted((seen[key] - at) * 1000 for key, at in committed.items() if key in seen)
    return {
        "follower": kind,
        "updates": len(committed),
        "seen": len(late),
        "ms": late,
        "cpu_us": told["cpu"] / max(1, told["tasks"]) * 1e6,
    }


async def _schema(database: str) -> None:
    async with Tracker(database):
        pass


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rate", type=int, default=1000, help="updates a second")
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument("--role", choices=("write", "follow"), help=argparse.SUPPRESS)
    for name in ("database", "redis", "name"):
        options.add_argument(f"--{name}", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.role:
        uvloop.run(write(given) if given.role == "write" else follow(given))
        return
    seconds = 3.0 if given.short else given.seconds
    with Lab() as lab:
        results = [
            run(lab, kind, rate=given.rate, seconds=seconds)
            for kind in ("nobody", "reads", "stopped")
        ]
    for one in results:
        late = one.pop("ms")
        one |= {"rate": given.rate, "p50_ms": None, "p99_ms": None}
        if one["follower"] == "reads":
            one |= {"p50_ms": statistics.median(late), "p99_ms": percentile(late, 99)}
    show(HEAD, table(results), markdown=given.markdown)
    save("live", results, given)


HEAD = ["follower", "updates", "seen", "p50 ms", "p99 ms", "CPU µs a task"]


def table(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Give a row for each kind of follower."""
    return [
        [
            one["follower"],
            f"{one['updates']:,}",
            f"{one['seen']:,}",
            *(f"{one[name]:.1f}" if one[name] else "-" for name in ("p50_ms", "p99_ms")),
            f"{one['cpu_us']:.0f}",
        ]
        for one in results
    ]


if __name__ == "__main__":
    main()
