"""What each index costs the write path: PENDING and the end of a task, in groups, on a full table.

Two databases with the same rows: one has all indexes of the schema, the other all but for one. The
same groups are written to both in turn, and the CPU of their backends is compared pair by pair.
`synchronous_commit` is off: a commit takes the same time with any indexes, and would hide
them. Autovacuum is off, too: it would come and go.
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
from aiotrack.repository.rendering import render
from aiotrack.repository.statements import POSTGRES_RUN, POSTGRES_SEND
from aiotrack.testing.servers import PostgresServer

GROUP = 50
WARM = 10  # groups

BEFORE = {
    "ix_aiotrack_executions_created_at_id",
    "ix_aiotrack_executions_task_name_created_at_id",
}
"""What 0001 had."""

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


async def write(connection: asyncpg.Connection, sends: str, runs: str) -> float:
    """Write a group; give the CPU microseconds a task of the backend."""
    backend = connection.get_server_pid()
    begun = cpu_of(backend)
    await connection.fetch(POSTGRES_SEND, sends)
    await connection.fetch(POSTGRES_RUN, runs)
    return (cpu_of(backend) - begun) / GROUP * 1e6


async def cost(
    whole: asyncpg.Connection,
    other: asyncpg.Connection,
    name: str,
    definitions: list[str],
    groups: int,
) -> dict[str, Any]:
    """Write groups to both databases, the other without some indexes."""
    for one in definitions:
        await other.execute(f"DROP INDEX {one.split(' INDEX ')[1].split()[0]}")
    taken: dict[bool, list[float]] = {True: [], False: []}
    for number in range(-WARM, groups):
        texts = group()
        for has in (True, False) if number % 2 else (False, True):
            used = await write(whole if has else other, *texts)
            if number >= 0:
                taken[has].append(used)
    for one in definitions:
        await other.execute(one)
    pairs = list(zip(taken[True], taken[False], strict=True))
    return {
        "what": "index",
        "index": name,
        "with_us": statistics.median(taken[True]),
        "without_us": statistics.median(taken[False]),
        "added_us": statistics.median(one - two for one, two in pairs),
        "ratio": statistics.median(two / one for one, two in pairs),
        "groups": groups,
    }


async def connected(dsn: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(dsn)
    await connection.execute("SET synchronous_commit = off")
    await connection.execute("SET maintenance_work_mem = '512MB'")
    return connection


async def run(rows: int, groups: int) -> list[dict[str, Any]]:
    with PostgresServer(settings={"autovacuum": "off"}) as server:
        async with Tracker(
            server.create_database("whole"), settings={"indexed_metadata": ["order_id"]}
        ):
            pass
        await fill_postgres(server.dsn_of("whole"), rows)
        server.create_database("other", template="whole")
        whole = await connected(server.dsn_of("whole"))
        other = await connected(server.dsn_of("other"))
        indexes = {
            name: definition
            for name, definition in await indexes_of(whole)
            if " UNIQUE " not in definition
        }
        cases = {"none left out: the noise": []} | {name: [one] for name, one in indexes.items()}
        cases["all that 0002 and the setting added"] = [
            one for name, one in indexes.items() if name not in BEFORE
        ]
        cases["all of these"] = [*indexes.values()]
        found = [
            await cost(whole, other, name, left_out, groups) | {"rows": rows}
            for name, left_out in cases.items()
        ]
        await whole.close()
        await other.close()
        return found


def table(results: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            one["index"].removeprefix("ix_aiotrack_").removeprefix("executions_"),
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
    size = (20_000, 20) if options.short else (options.rows, 200)
    results = uvloop.run(run(*size))
    show(HEAD, table(results), markdown=options.markdown)
    save("index_cost", results, options)


if __name__ == "__main__":
    main()
