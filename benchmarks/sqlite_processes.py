"""What a send costs a web process while four worker processes write the same SQLite file.

Four processes of a real ``taskiq worker`` and two sending processes share one file; the queue is a
stream on a Valkey of its own. Printed is how long ``await task.kiq()`` took, which includes the
commit of the PENDING record, beside the same sends without a tracker.

    python benchmarks/sqlite_processes.py [--sends 1000] [--pause 0.01] [--short]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from taskiq_redis import RedisStreamBroker

from aiotrack import Tracker, TrackerMiddleware
from aiotrack.testing import ValkeyServer

WORKERS, SENDERS = 4, 2
REDIS, DATABASE = "BENCHMARK_REDIS_URL", "BENCHMARK_DATABASE_URL"
HERE = Path(__file__).resolve()

broker = RedisStreamBroker(
    os.environ.get(REDIS, "redis://localhost"), consumer_id="0", xread_count=10, xread_block=500
)
if DATABASE in os.environ:
    broker.add_middlewares(TrackerMiddleware(Tracker(os.environ[DATABASE])))


@broker.task("benchmark:work")
async def work(number: int) -> int:
    """Do what a quick task does: wait a little for something else."""
    await asyncio.sleep(0.005)
    return number


async def send(count: int, pause: float) -> None:
    """Be a web process: send at a modest rate, and print what each send took in seconds."""
    await broker.startup()
    took = []
    for number in range(count):
        begun = time.perf_counter()
        await work.kiq(number)
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(pause)
    await broker.shutdown()
    print(json.dumps(took))


def measure(folder: Path, *, tracked: bool, sends: int, pause: float) -> tuple[list[float], int]:
    """Run workers and senders once; give the sorted times, and how often a lock was met."""
    log = folder / f"tracked-{tracked}.log"
    with ValkeyServer() as valkey, log.open("ab") as out:
        environment = {**os.environ, REDIS: valkey.url}
        if tracked:
            environment[DATABASE] = f"sqlite+aiosqlite:///{folder / 'benchmark.db'}"
        module = f"{HERE.stem}:broker"
        command = ["-m", "taskiq", "worker", module, "-w", str(WORKERS), "--log-level", "WARNING"]
        worker = subprocess.Popen(
            [sys.executable, *command], cwd=HERE.parent, env=environment, stdout=out, stderr=out
        )
        try:
            time.sleep(3)  # workers load
            senders = [
                subprocess.Popen(
                    [sys.executable, str(HERE), "--send", str(sends), "--pause", str(pause)],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=out,
                    text=True,
                )
                for _ in range(SENDERS)
            ]
            took = [second for one in senders for second in json.loads(one.communicate()[0])]
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(30)
    return sorted(took), log.read_text().count("database is locked")


def row(name: str, took: list[float], locked: int) -> str:
    """Write one line of the table, times in milliseconds."""
    shares = [took[int((len(took) - 1) * share)] * 1000 for share in (0.5, 0.95, 0.99, 1)]
    return f"| {name} | " + " | ".join(f"{ms:.1f}" for ms in shares) + f" | {locked} |"


def main() -> None:
    """Measure untracked and tracked in one run, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sends", type=int, default=1000, help="sends of each web process")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between two sends")
    parser.add_argument("--short", action="store_true", help="200 sends each")
    parser.add_argument("--send", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        asyncio.run(send(options.send, options.pause))
        return
    sends = 200 if options.short else options.sends
    print(f"{WORKERS} worker processes, {SENDERS} senders, {sends} sends each, one SQLite file\n")
    print("| a send, ms | p50 | p95 | p99 | worst | 'database is locked' |")
    print("|---|---|---|---|---|---|")
    for name, tracked in (("untracked", False), ("tracked", True)):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), tracked=tracked, sends=sends, pause=options.pause)
        print(row(name, *found), flush=True)


if __name__ == "__main__":
    main()
