"""What the sweeps cost on a large table, and what a recorder beside them notices.

Rows of 40 days, a part of them too old, a thousand not finished. The time-out sweep when nobody is
late, and when all are; then a clean-up, batch by batch, while a recorder in another process commits
an end every few milliseconds: its times before and meanwhile. PostgreSQL is one that this starts.

    python benchmarks/sweeps.py --rows 1000000 --old 200000
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from typing import Any

import asyncpg
from harness import parser, percentile, save, show

from aiotrack import Tracker
from aiotrack.clock import Clock
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository import Repository
from aiotrack.repository.control.retention import Deleted, Retention
from aiotrack.testing.servers import PostgresServer

UNFINISHED = 1000
ALONE = 20.0  # seconds of the recorder alone
PAUSE = 0.004  # seconds between two commits of the recorder

FILL = """
INSERT INTO aiotrack_executions (task_id, task_name, module, created_by, created_at, args, kwargs,
    exact, metadata, run_id, witness, status, attempt, worker, started_at, finished_at, duration,
    result, presumed, runs, duplicates, plain)
SELECT md5(n::text), 'app' || n % 6 || '.jobs:task_' || n % 48, 'app' || n % 6, 'user' || n % 500,
    at, '[1, "two"]', '{"key": "value"}', true, '{"order_id": 7}', md5('r' || n),
    CASE WHEN is_open THEN 1 ELSE 5 END,
    CASE WHEN is_open THEN 'STARTED' WHEN n % 20 = 0 THEN 'FAILURE' ELSE 'SUCCESS' END, 1,
    'host:1:abcdef', at, CASE WHEN NOT is_open THEN at + interval '2 s' END,
    CASE WHEN NOT is_open THEN 2.0 END, '{"done": true}', false, 1, 0, true
FROM (
    SELECT n, n > $1::bigint - $3::bigint AS is_open,
        CASE WHEN n > $1::bigint - $3::bigint THEN now() - interval '5 minutes'
        WHEN n <= $2::bigint THEN now() - interval '40 days' + interval '9 days' * n / $2::bigint
        ELSE now() - interval '29 days' * ($1::bigint - n) / $1::bigint END AS at
    FROM generate_series(1, $1::bigint) n
) made"""

LOGS = """
INSERT INTO aiotrack_logs (task_id, began_at, run_id, seq, attempt, at, level_number, level,
    logger, message)
SELECT md5(n::text), now(), 'r', line, 1, now(), 20, 'INFO', 'app', repeat('what happened ', 5)
FROM generate_series(1, $1::bigint, 10) n, generate_series(1, 20) line"""


async def record(url: str) -> None:
    """Commit ends one after another, and print when each began and how long it took."""
    repository = Repository(url, clock=Clock())
    await repository.connect()
    for number in itertools.count():
        now = time.time_ns() // 1000
        origin = Origin(f"beside {number} {now}", "beside.task", "beside", now)
        report = Report(
            origin, Witness.ENDED, TaskStatus.SUCCESS, "run", started_at=now, finished_at=now
        )
        begun = time.monotonic()
        await repository.write([report])
        print(begun, time.monotonic() - begun, flush=True)
        await asyncio.sleep(PAUSE)


async def fill(url: str, rows: int, old: int) -> None:
    """Fill a database that has the schema."""
    other = await asyncpg.connect(url.replace("+asyncpg", ""))
    await other.execute("SET synchronous_commit = off")
    begun = time.perf_counter()
    await other.execute(FILL, rows, old, UNFINISHED)
    await other.execute(LOGS, old)
    for name in ("executions", "logs"):
        await other.execute(f"VACUUM ANALYZE aiotrack_{name}")
    await other.execute("CHECKPOINT")
    await other.close()
    print(f"{rows:,} rows in {time.perf_counter() - begun:.0f} s")


async def clean(tracker: Tracker, url: str) -> dict[str, Any]:
    """Clean up beside a recorder."""
    batches: list[Deleted] = []
    delete = Retention.delete

    async def timed(self: Retention, kind: Any, found: Any) -> Deleted:
        done = await delete(self, kind, found)
        batches.append(done)
        return done

    Retention.delete = timed
    probe = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--record", url, stdout=asyncio.subprocess.PIPE
    )
    hearing = asyncio.ensure_future(probe.communicate())
    try:
        await asyncio.sleep(ALONE)
        begun = time.monotonic()
        count = await tracker.cleanup()
        ended = time.monotonic()
    finally:
        probe.terminate()
        told, _ = await hearing
        Retention.delete = delete
    times = [tuple(map(float, line.split())) for line in told.decode().splitlines() if " " in line]
    alone = [took * 1000 for at, took in times if at < begun][50:]
    beside = [took * 1000 for at, took in times if begun <= at < ended]
    taken = [one.took * 1000 for one in batches]
    return {
        "deleted": count,
        "seconds": ended - begun,
        "batches": len(batches),
        "largest": max(one.executions for one in batches),
        "batch_p50_ms": statistics.median(taken),
        "batch_p99_ms": percentile(taken, 99),
        "batch_max_ms": max(taken),
        "batch_over_20_ms": sum(took > 20 for took in taken),
        "commit_alone_p50_ms": statistics.median(alone),
        "commit_beside_p50_ms": statistics.median(beside),
        "commit_alone_p99_ms": percentile(alone, 99),
        "commit_beside_p99_ms": percentile(beside, 99),
        "commits_beside": len(beside),
    }


async def run(url: str, rows: int, old: int) -> list[dict[str, Any]]:
    """Fill, time out, clean up."""
    async with Tracker(url) as tracker:
        await fill(url, rows, old)
        for user, days in {"user1": -1, "user2": 90, "user3": 7}.items():
            await tracker.settings.set("retention_days", days, user=user)
        begun = time.perf_counter()
        await tracker.roll_up()
        print(f"rolled up in {time.perf_counter() - begun:.1f} s")
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            assert await tracker.mark_timed_out() == 0
            times.append((time.perf_counter() - begun) * 1000)
        begun = time.perf_counter()
        assert await tracker.mark_timed_out(timeout_minutes=1) == UNFINISHED
        verdicts = (time.perf_counter() - begun) * 1000
        found = await clean(tracker, url)
    looked = {"nobody_late_ms": statistics.median(times), "all_late_ms": verdicts}
    return [{"what": "sweeps", "rows": rows, "old": old, **looked, **found}]


def main() -> None:
    """Read the options."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, help="default: 1,000,000; short: 50,000")
    options.add_argument("--old", type=int, help="of them too old; default: a fifth")
    options.add_argument("--record", metavar="URL", help="be the recorder beside")
    given = options.parse_args()
    if given.record:
        asyncio.run(record(given.record))
        return
    rows = given.rows or (50_000 if given.short else 1_000_000)
    with PostgresServer() as server:
        results = asyncio.run(run(server.url, rows, given.old or rows // 5))
    told = [
        [name, f"{value:,.2f}".removesuffix(".00")]
        for name, value in results[0].items()
        if name != "what"
    ]
    show(["", "value"], told, markdown=given.markdown)
    save("sweeps", results, given)


if __name__ == "__main__":
    main()
