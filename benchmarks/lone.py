"""A lone task on an idle worker: what tracking adds to it, beside one bare commit.

The time runs from XADD until the worker has acknowledged and said so through a list: nothing is
polled. The commit is one row into a table with a primary key, by the same driver, from here.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import statistics
import time
from collections import defaultdict
from typing import Any
from uuid import uuid4

import asyncpg
from harness import Lab, order, percentile, render
from variants import VARIANTS

WARM = 20
PAUSE = (0.06, 0.12)  # seconds between two tasks: all timers of the last one are over


def run(lab: Lab, names: list[str], *, tasks: int) -> list[dict[str, Any]]:
    """Measure one task of each variant in turn, *tasks* times."""
    workers = {
        name: lab.worker(VARIANTS[name], lab.target(VARIANTS[name]), 100, BENCH_SIGNALS="1")
        for name in names
    }
    times: dict[str, list[float]] = defaultdict(list)
    commits = Commits(lab)
    for number in range(-WARM, tasks):
        for name in order(names, number):
            time.sleep(random.uniform(*PAUSE))
            took = _once(lab, workers[name].target.queue)
            if number >= 0:
                times[name].append(took)
        for name, took in commits.measure().items():
            if number >= 0:
                times[name].append(took)
    commits.close()
    for worker in workers.values():
        worker.stop()
    return [_result(name, times) for name in [*names, *Commits.names]]


def _once(lab: Lab, queue: str) -> float:
    message = {
        "task_id": uuid4().hex,
        "task_name": "bench:noop",
        "labels": {},
        "labels_types": {},
        "args": [],
        "kwargs": {},
    }
    text = json.dumps(message)
    begun = time.perf_counter()
    lab.client.xadd(queue, {"data": text})
    lab.client.brpop([f"{queue}:acks"], timeout=4)
    return time.perf_counter() - begun


class Commits:
    """One bare commit of this machine, on each database."""

    names = ("commit postgres", "commit sqlite")

    def __init__(self, lab: Lab) -> None:
        self._loop = asyncio.new_event_loop()
        self._postgres = self._loop.run_until_complete(asyncpg.connect(lab.postgres.dsn))
        make = "CREATE TABLE bare (id bigint PRIMARY KEY, words text)"
        self._loop.run_until_complete(self._postgres.execute(make))
        self._sqlite = sqlite3.connect(lab.folder / "bare.db", isolation_level=None)
        for line in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", make):
            self._sqlite.execute(line)
        self._number = 0

    def measure(self) -> dict[str, float]:
        """Commit one row on each, after a pause as the tasks have it."""
        self._number += 1
        time.sleep(random.uniform(*PAUSE))
        postgres = self._loop.run_until_complete(self._postgres_once())
        time.sleep(random.uniform(*PAUSE))
        begun = time.perf_counter()
        self._sqlite.execute("INSERT INTO bare VALUES (?, ?)", (self._number, "x" * 500))
        return dict(zip(self.names, (postgres, time.perf_counter() - begun), strict=True))

    async def _postgres_once(self) -> float:
        begun = time.perf_counter()
        await self._postgres.execute("INSERT INTO bare VALUES ($1, $2)", self._number, "x" * 500)
        return time.perf_counter() - begun

    def close(self) -> None:
        self._loop.run_until_complete(self._postgres.close())
        self._loop.close()
        self._sqlite.close()


def _result(name: str, times: dict[str, list[float]]) -> dict[str, Any]:
    base = times["untracked"]
    added = None
    if name in VARIANTS:
        added = {
            "p50": (statistics.median(times[name]) - statistics.median(base)) * 1e3,
            "p99": (percentile(times[name], 99) - percentile(base, 99)) * 1e3,
        }
    return {
        "what": "lone",
        "variant": name,
        "label": VARIANTS[name].label if name in VARIANTS else f"one bare {name}",
        "tasks": len(times[name]),
        "p50_ms": statistics.median(times[name]) * 1e3,
        "p99_ms": percentile(times[name], 99) * 1e3,
        "added_ms": added,
    }


def table(results: list[dict[str, Any]], *, markdown: bool) -> str:
    """Give the results as a table."""
    rows = []
    for one in results:
        added = one["added_ms"]
        told = [f"{added['p50']:+.2f}", f"{added['p99']:+.2f}"] if added else ["", ""]
        rows.append([one["label"], f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}", *told])
    columns = ["", "p50 ms", "p99 ms", "added p50", "added p99"]
    return render(columns, rows, markdown=markdown)
