"""What `tracker.stats` costs on a large table: before and after `tracker.roll_up()`.

Rows of 30 days, 6 modules, 48 task names, some of them failed, a few hundred not finished; the
median (and least) of many calls of the public interface, on a PostgreSQL that this starts itself.

    python benchmarks/stats.py --rows 1000000
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
from harness import parser, save, show

from aiotrack import Tracker
from aiotrack.errors import QueryTimeout, StoreUnavailable
from aiotrack.testing.servers import PostgresServer

FILL = """
INSERT INTO aiotrack_executions (task_id, task_name, module, created_at, args, kwargs, exact,
    metadata, run_id, witness, status, attempt, worker, started_at, finished_at, duration, result,
    presumed, runs, duplicates, plain)
SELECT md5(n::text), 'app' || n % 6 || '.jobs:task_' || n % 48, 'app' || n % 6, at, '[1, "two"]',
    '{"key": "value"}', true, CASE WHEN n % 100 = 0 THEN '{"skipped_by": "x"}'
    ELSE '{"order_id": 7}' END::jsonb, 'r', CASE WHEN n <= 300 THEN 1 ELSE 4 END,
    CASE WHEN n <= 300 THEN 'STARTED' WHEN n % 20 = 0 THEN 'FAILURE' ELSE 'SUCCESS' END, 1,
    'host:1:abcdef', at + waited, CASE WHEN n > 300 THEN at + waited + interval '1 s' * ran END,
    CASE WHEN n > 300 THEN ran END, '{"done": true}', false, 1, 0, true
FROM (SELECT n, now() - interval '30 days' * ((n - 0.5) / $1::bigint) AS at,
    exp(random() * 8 - 5) AS ran, interval '1 s' * exp(random() * 6 - 5) AS waited
    FROM generate_series(1, $1::bigint) n ORDER BY n DESC) made"""

REPORT = "a report of 30 days"
"""Not stats, but `tracker.report`: 48 tasks, and the 30 days before."""

QUESTIONS = {
    REPORT: {},
    "all time": {},
    "by module": {"module": "app3"},
    "by task_name": {"task_name": "app3.jobs:task_3"},
    "last 24 h": {"since": timedelta(hours=24)},
    "last 24 h by task_name": {"since": timedelta(hours=24), "task_name": "app3.jobs:task_3"},
    "last 7 days": {"since": timedelta(days=7)},
    "last 30 minutes": {"since": timedelta(minutes=30)},
    "status=failure (live)": {"status": "failure"},
}


async def ask(tracker: Tracker, repeats: int) -> dict[str, list[float] | None]:
    """Give the milliseconds of each question; None when it ended with QueryTimeout."""
    found: dict[str, list[float] | None] = {}
    for name, filters in QUESTIONS.items():
        times = []
        try:
            for _ in range(repeats):
                begun = time.perf_counter()
                if name == REPORT:
                    await tracker.report(timedelta(days=30))
                else:
                    await tracker.stats(**filters)
                times.append((time.perf_counter() - begun) * 1000)
                if sum(times) > 5000:
                    break
            found[name] = times
        except QueryTimeout:
            found[name] = None
    return found


HEAD = ["", "before ms", "after ms", "quickest", "goal"]

GOALS = {REPORT: 2000, "all time": 15, "by module": 15, "by task_name": 15, "last 24 h": 10}


def table(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Give a row for each question."""

    def told(value: float | None) -> str:
        return "time-out" if value is None else f"{value:.1f}"

    return [
        [
            one["question"],
            told(one["before_ms"]),
            told(one["ms"]),
            told(one["lowest_ms"]),
            str(GOALS.get(one["question"], "")),
        ]
        for one in results
    ]


async def run(url: str, rows: int, repeats: int) -> list[dict[str, Any]]:
    """Fill, ask, roll up, ask again."""
    async with Tracker(url) as tracker:
        other = await asyncpg.connect(url.replace("+asyncpg", ""))
        await other.execute("SET synchronous_commit = off")
        begun = time.perf_counter()
        await other.execute(FILL, rows)
        await other.execute("VACUUM ANALYZE aiotrack_executions")
        print(f"{rows:,} rows in {time.perf_counter() - begun:.0f} s")
        before = await ask(tracker, 3)
        begun = time.perf_counter()
        periods = 0
        for _ in range(20):
            try:
                periods = await tracker.roll_up()
                break
            except StoreUnavailable as error:
                print("again:", error)
        print(f"rolled up {periods} periods in {time.perf_counter() - begun:.1f} s")
        await other.execute("VACUUM ANALYZE aiotrack_rollups")
        sizes = await other.fetchrow(
            "SELECT pg_total_relation_size('aiotrack_executions') / 1e6,"
            " pg_total_relation_size('aiotrack_rollups') / 1e6,"
            " (SELECT count(*) FROM aiotrack_rollups)"
        )
        print(f"executions {sizes[0]:.0f} MB, rollups {sizes[1]:.0f} MB in {sizes[2]:,} rows")
        after = await ask(tracker, repeats)
        await other.close()
    return [
        {
            "what": "stats",
            "question": name,
            "rows": rows,
            "before_ms": _median(before[name]),
            "ms": _median(after[name]),
            "lowest_ms": None if after[name] is None else min(after[name] or [0.0]),
        }
        for name in QUESTIONS
    ]


def _median(times: list[float] | None) -> float | None:
    return None if times is None else statistics.median(times)


def main() -> None:
    """Read the options."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, help="default: 1,000,000; short: 50,000")
    options.add_argument("--repeats", type=int, default=40)
    given = options.parse_args()
    rows = given.rows or (50_000 if given.short else 1_000_000)
    with PostgresServer() as server:
        results = asyncio.run(run(server.url, rows, given.repeats))
    show(HEAD, table(results), markdown=given.markdown)
    save("stats", results, given)


if __name__ == "__main__":
    main()
