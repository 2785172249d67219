"""Client CPU and wall time per row of the hot write, in groups: ours and its alternatives.

Ours is `Repository.write` of final reports, with everything that it does (sorting, rendering, the
rules of the merge). The alternatives only insert rows that were made ready before the clock runs.
On SQLite the client is the database: its CPU is in the figure.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import asyncpg
import uvloop
from harness import order, parser, save, show
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aiotrack.clock import Clock, to_datetime
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository import Repository
from aiotrack.repository.fold import plain_row
from aiotrack.repository.tables import ExecutionRow
from aiotrack.testing.servers import PostgresServer

TABLE = ExecutionRow.__table__
TIMES = ("created_at", "started_at", "finished_at")
JSONS = ("args", "kwargs", "result", "metadata")

Write = Callable[[Any], Awaitable[None]]


def reports(count: int) -> list[Report]:
    """Make the reports of *count* finished tasks, as a small task has them."""
    now = int(datetime.now(UTC).timestamp() * 1e6)
    made = []
    for number in range(count):
        origin = Origin(
            task_id=uuid4().hex,
            task_name="billing.send_invoice",
            module="billing",
            created_at=now + number,
            args="[42]",
            kwargs='{"order_id":7}',
            created_by="42",
        )
        report = Report(origin, Witness.ENDED, TaskStatus.SUCCESS, uuid4().hex, worker="host:1:2")
        report.started_at, report.finished_at = now + number, now + number + 1500
        report.duration, report.result = 0.0015, '{"sent":true}'
        made.append(report)
    return made


def rows(count: int) -> list[dict[str, Any]]:
    """Make the same as rows for SQLAlchemy."""
    made = []
    for report in reports(count):
        row = plain_row(report)
        row |= {name: to_datetime(row[name]) for name in TIMES}
        row |= {name: json.loads(row[name]) for name in JSONS}
        made.append(row)
    return made


def columns(count: int) -> list[list[Any]]:
    """Make the same as one array a column, JSON as text, for unnest."""
    made = rows(count)
    for row in made:
        row |= {name: json.dumps(row[name]) for name in JSONS}
    return [[row[name] for row in made] for name in COLUMNS]


COLUMNS = [column.name for column in TABLE.columns if column.name != "id"]
KINDS = {
    "created_at": "timestamptz",
    "started_at": "timestamptz",
    "finished_at": "timestamptz",
    **dict.fromkeys((*JSONS, "stamps"), "jsonb"),
    **dict.fromkeys(("presumed", "exact", "plain"), "boolean"),
    **dict.fromkeys(("attempt", "priority", "runs", "duplicates", "witness"), "integer"),
    "config_id": "bigint",
    "duration": "float8",
}


def multi_values(engine: AsyncEngine) -> Write:
    async def write(batch: list[dict[str, Any]]) -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(TABLE).values(batch))

    return write


def executemany(engine: AsyncEngine) -> Write:
    async def write(batch: list[dict[str, Any]]) -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(TABLE), batch)

    return write


async def unnest(connection: asyncpg.Connection) -> Write:
    listed = ", ".join(COLUMNS)
    arrays = ", ".join(
        f"${at}::{KINDS.get(name, 'text')}[]" for at, name in enumerate(COLUMNS, start=1)
    )
    statement = (
        f"INSERT INTO aiotrack_executions ({listed}) SELECT * FROM unnest({arrays}) "
        "ON CONFLICT (task_id) DO NOTHING"
    )

    async def write(batch: list[list[Any]]) -> None:
        await connection.execute(statement, *batch)

    return write


async def measure(
    ways: dict[str, tuple[Callable[[int], Any], Write]], size: int, groups: int
) -> dict[str, dict[str, list[float]]]:
    """Write a group each way in turn, *groups* times; the first three of each warm up."""
    taken: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"cpu": [], "wall": []})
    for number in range(-3, groups):
        for name in order(list(ways), number):
            make, write = ways[name]
            batch = make(size)
            wall, cpu = time.perf_counter(), time.process_time()
            await write(batch)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if number >= 0:
                taken[name]["cpu"].append(cpu / size * 1e6)
                taken[name]["wall"].append(wall / size * 1e6)
    return taken


async def run(size: int, groups: int) -> list[tuple[str, str, dict[str, list[float]]]]:
    with TemporaryDirectory() as folder, PostgresServer() as postgres:
        places = {
            "Postgres": postgres.url,
            "SQLite": f"sqlite+aiosqlite:///{Path(folder) / 'bench.db'}",
        }
        found = []
        for place, url in places.items():
            repository = Repository(url, clock=Clock())
            await repository.connect()
            engine = create_async_engine(url)
            ways: dict[str, tuple[Callable[[int], Any], Write]] = {
                "Repository.write": (reports, repository.write),
                "SQLAlchemy multi-row values": (rows, multi_values(engine)),
                "SQLAlchemy executemany": (rows, executemany(engine)),
            }
            raw = None
            if place == "Postgres":
                raw = await asyncpg.connect(postgres.dsn)
                ways["asyncpg unnest"] = (columns, await unnest(raw))
            taken = await measure(ways, size, groups)
            found += [(place, name, taken[name]) for name in ways]
            if raw is not None:
                await raw.close()
            await engine.dispose()
            await repository.close()
    return found


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--size", type=int, default=100, help="rows of a group")
    options = made.parse_args()
    found = uvloop.run(run(options.size, 20 if options.short else 200))
    results = [
        {
            "what": "write",
            "database": place,
            "way": name,
            "size": options.size,
            "groups": len(taken["cpu"]),
            "cpu_us": statistics.median(taken["cpu"]),
            "cpu_lowest_us": min(taken["cpu"]),
            "wall_us": statistics.median(taken["wall"]),
        }
        for place, name, taken in found
    ]
    listed = [
        [
            f"{one['database']}, {one['way']}",
            f"{one['cpu_us']:.1f}",
            f"{one['cpu_lowest_us']:.1f}",
            f"{one['wall_us']:.1f}",
        ]
        for one in results
    ]
    head = [f"µs a row, groups of {options.size}", "client CPU", "lowest", "wall"]
    show(head, listed, markdown=options.markdown)
    save("write", results, options)


if __name__ == "__main__":
    main()
