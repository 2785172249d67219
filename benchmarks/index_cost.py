"""What each index costs the write path: PENDING and the end of a task, in groups, on a full table.

All indexes of the schema are there, but for one at a time; the time of the statements is compared
with that of the same groups beside it. `synchronous_commit` is off here: a commit takes
the same time with any indexes, and would hide them. Autovacuum is off: it would come and go.
"""

from __future__ import annotations

import random
import statistics
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import uvloop
from filled import fill_postgres, indexes_of
from harness import cpu_of, parser, save, show

from aiotrack import Tracker
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository.postgres import render
from aiotrack.repository.statements import POSTGRES_RUN, POSTGRES_SEND
from aiotrack.testing.servers import PostgresServer

GROUP = 50

TASKS = [f"{one}.{two}" for one in ("billing", "shop", "mail") for two in ("send", "sync", "check")]


def group() -> tuple[str, str]:
    """Give the parameters of the statements that send and end a group of tasks."""
    sends, runs = [], []
    for _ in range(GROUP):
        now = int(datetime.now(UTC).timestamp() * 1e6)
        name = random.choice(TASKS)
        origin = Origin(
            task_id=uuid4().hex,
            task_name=name,
            module=name.split(".")[0],
            created_at=now,
            args="[42]",
            kwargs='{"order_id":7}',
            metadata=f'{{"order_id":{random.randrange(10**6)}}}',
            created_by=str(random.randrange(5000)),
        )
        if random.random() < 0.1:
            origin.config_id = random.randrange(50)
            origin.schedule_id = f"task_{origin.config_id}"
        status = TaskStatus.FAILURE if random.random() < 0.08 else TaskStatus.SUCCESS
        run = Report(origin, Witness.ENDED, status, uuid4().hex, worker="host-1:4711:8a5f12c0")
        run.duration = random.lognormvariate(0, 2)
        run.started_at, run.finished_at = now, now + int(run.duration * 1e6)
        if status is TaskStatus.SUCCESS:
            run.result = '{"sent":true}'
        else:
            run.error, run.error_class = "the other side did not answer", "transient"
        sends.append(Report(origin, Witness.SENT, TaskStatus.PENDING))
        runs.append(run)
    return tuple(  # type: ignore[return-value]
        "[" + ",".join(map(render, sorted(some, key=lambda one: one.origin.task_id))) + "]"
        for some in (sends, runs)
    )


async def write(connection: asyncpg.Connection, groups: int) -> list[float]:
    """Write groups; give the CPU microseconds a task of the backend, of each group."""
    taken, backend = [], connection.get_server_pid()
    for _ in range(groups):
        sends, runs = group()
        begun = cpu_of(backend)
        await connection.fetch(POSTGRES_SEND, sends)
        await connection.fetch(POSTGRES_RUN, runs)
        taken.append((cpu_of(backend) - begun) / GROUP * 1e6)
    return taken


async def cost(
    connection: asyncpg.Connection, name: str, definitions: list[str], rounds: int, groups: int
) -> dict[str, Any]:
    """Write with and without some indexes, in turn."""
    beside: dict[bool, list[float]] = {True: [], False: []}
    pairs = []
    names = [one.split(" INDEX ")[1].split()[0] for one in definitions]
    for _ in range(rounds):
        medians = {}
        for has in (True, False):
            if not has:
                for one in names:
                    await connection.execute(f"DROP INDEX {one}")
            await write(connection, groups // 4)
            found = await write(connection, groups)
            medians[has] = statistics.median(found)
            beside[has] += found
        for one in definitions:
            await connection.execute(one)
        pairs.append(medians[True] - medians[False])
    with_it, without = (statistics.median(beside[has]) for has in (True, False))
    return {
        "what": "index",
        "index": name,
        "with_us": with_it,
        "without_us": without,
        "added_us": statistics.median(pairs),
        "ratio": without / with_it,
        "rounds": rounds,
        "groups": groups,
    }


async def run(rows: int, rounds: int, groups: int) -> list[dict[str, Any]]:
    with PostgresServer(settings={"autovacuum": "off"}) as server:
        async with Tracker(server.url, settings={"indexed_metadata": ["order_id"]}):
            pass
        await fill_postgres(server.dsn, rows)
        connection = await asyncpg.connect(server.dsn)
        await connection.execute("SET synchronous_commit = off")
        await connection.execute("SET maintenance_work_mem = '512MB'")
        indexes = {
            name: definition
            for name, definition in await indexes_of(connection)
            if " UNIQUE " not in definition
        }
        await write(connection, groups)
        found = []
        for name, definition in indexes.items():
            found.append(await cost(connection, name, [definition], rounds, groups))
        found.append(await cost(connection, "all of these", [*indexes.values()], rounds, groups))
        for one in found:
            one["rows"] = rows
        await connection.close()
        return found


def table(results: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            one["index"].removeprefix("ix_aiotrack_executions_"),
            f"{one['with_us']:.1f}",
            f"{one['without_us']:.1f}",
            f"{one['added_us']:+.1f}",
            f"{one['ratio']:.2f}",
        ]
        for one in results
    ]


HEAD = ["index", "µs a task", "without it", "added", "rate with / without"]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=1_000_000, help="rows of the table")
    options = made.parse_args()
    size = (20_000, 1, 20) if options.short else (options.rows, 3, 100)
    results = uvloop.run(run(*size))
    show(HEAD, table(results), markdown=options.markdown)
    save("index_cost", results, options)


if __name__ == "__main__":
    main()
