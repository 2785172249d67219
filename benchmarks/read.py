"""Reads from a million rows: every filter and order of a list, first and deepest page, get, stats.

The rows are 30 days of a busy project (see filled.py). Each figure is the median of repeated calls
of the tracker, with the quickest and the slowest of them: on a shared machine the quickest is what
it takes, the others what they met. First pages and deepest ones are called in turn.
CPU is that of the client and of PostgreSQL's backends together, a call.

`--rows 10000000` measures that many beside a million, for the growth. SQLite has the newest 200,000
of the same rows, or as many as `--sqlite-rows` says.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from filled import fill_postgres, fill_sqlite
from harness import cpu_of, parser, save, show

from aiotrack import Tracker
from aiotrack.clock import to_micros
from aiotrack.errors import QueryTimeout
from aiotrack.repository.cursor import Order, Position, write_cursor
from aiotrack.repository.filters import Filters
from aiotrack.testing.servers import PostgresServer

KEYS = {"indexed_metadata": ["order_id", "customer", "tenant"]}

CASES: dict[str, dict[str, Any]] = {
    "no filter": {},
    "order=created_at": {"order": "created_at"},
    "order=-finished_at": {"order": "-finished_at"},
    "order=finished_at": {"order": "finished_at"},
    "order=-duration": {"order": "-duration"},
    "order=duration": {"order": "duration"},
    "since 24 h": {"since": timedelta(days=1)},
    "until 29 days ago": {"until": timedelta(days=29)},
    "module, common": {"module": "billing"},
    "module, only in the oldest rows": {"module": "legacy"},
    "module, absent": {"module": "nobody"},
    "module, three values": {"module": ["mail", "media", "legacy"]},
    "task_name, common": {"task_name": "billing.sync"},
    "task_name, three rows": {"task_name": "media.repair"},
    "task_name, oldest": {"task_name": "legacy.import_1"},
    "status SUCCESS, 92 %": {"status": "SUCCESS"},
    "status FAILURE, 8 %": {"status": "FAILURE"},
    "status REVOKED, 0.05 %": {"status": "REVOKED"},
    "status RETRY": {"status": "RETRY"},
    "status PENDING": {"status": "PENDING"},
    "status FAILURE or REVOKED": {"status": ["FAILURE", "REVOKED"]},
    "created_by, 5 %": {"created_by": "admin"},
    "created_by, 100 rows": {"created_by": "1234"},
    "created_by, oldest": {"created_by": "former"},
    "created_by, absent": {"created_by": "nobody"},
    "worker, newest": {"worker": "{new_worker}"},
    "worker, oldest": {"worker": "{old_worker}"},
    "error_class, common": {"error_class": "timeout"},
    "error_class, oldest": {"error_class": "poison"},
    "config_id": {"config_id": 7},
    "config_id, absent": {"config_id": 4711},
    "schedule_id": {"schedule_id": "task_7"},
    "text, a whole task_id": {"text": "{task_id}"},
    "text, 6 letters of a task_id": {"text": "{start}"},
    "text, a letter: 6 % of the task_ids": {"text": "a"},
    "text, half of the names": {"text": "billing."},
    "text, names in the oldest rows": {"text": "legacy."},
    "text, absent": {"text": "zzz"},
    "metadata order_id, 4 rows": {"metadata": {"order_id": 77}},
    "metadata customer, 1 in 2,000": {"metadata": {"customer": 42}},
    "metadata tenant, a quarter": {"metadata": {"tenant": "acme"}},
    "metadata tenant, oldest": {"metadata": {"tenant": "closed"}},
    "metadata tenant, absent": {"metadata": {"tenant": "nobody"}},
}
"""The goal for each of these is 5 ms, and for its deepest page twice its first."""

TOGETHER: dict[str, dict[str, Any]] = {
    "module and status": {"module": "media", "status": "REVOKED"},
    "task_name and created_by": {"task_name": "mail.send", "created_by": "admin"},
    "worker and status FAILURE": {"worker": "{old_worker}", "status": "FAILURE"},
    "since 24 h, order=-duration": {"since": timedelta(days=1), "order": "-duration"},
    "module, order=-duration": {"module": "media", "order": "-duration"},
    "status FAILURE, order=-finished_at": {"status": "FAILURE", "order": "-finished_at"},
    "text and status": {"text": "billing.", "status": "REVOKED"},
    "metadata customer and status": {"metadata": {"customer": 42}, "status": "FAILURE"},
    "metadata without an index": {"metadata": {"nothing": 1}},
}
"""No goal but the two seconds after which a query ends."""

OTHERS: dict[str, Callable[[Tracker, str], Awaitable[Any]]] = {
    "get": lambda tracker, task_id: tracker.get(task_id),
    "count, no filter": lambda tracker, _: tracker.count(),
    "count, status FAILURE": lambda tracker, _: tracker.count(status="FAILURE"),
    "stats, all time": lambda tracker, _: tracker.stats(),
    "stats, since 24 h": lambda tracker, _: tracker.stats(since=timedelta(days=1)),
    "stats, a module": lambda tracker, _: tracker.stats(module="mail"),
}
GOALS = {
    "get": 5.0,
    "stats, all time": 15.0,
    "stats, since 24 h": 10.0,
    "stats, a module": 15.0,
}


@dataclass
class Place:
    """A database that is filled, and what is in it."""

    name: str
    rows: int
    tracker: Tracker
    words: dict[str, str]
    backends: Callable[[], list[int]] = list


async def timed(place: Place, call: Callable[[], Awaitable[Any]], calls: int) -> dict[str, Any]:
    """Call it, once to warm up; give milliseconds, or that it was too slow."""
    taken: list[float] = []
    pids: list[int] = []
    begun_cpu = 0.0
    for number in range(calls + 1):
        if number == 1:
            pids = place.backends()
            begun_cpu = used(pids)
        begun = time.perf_counter()
        try:
            await call()
        except QueryTimeout:
            return {"ms": None, "lowest_ms": None, "worst_ms": None}
        taken.append((time.perf_counter() - begun) * 1e3)
    return told(taken[1:]) | {"cpu_ms": (used(pids) - begun_cpu) / calls * 1e3}


def used(backends: list[int]) -> float:
    """Give the CPU seconds of this process and of the database's."""
    return time.process_time() + sum(map(cpu_of, backends))


def told(taken: list[float]) -> dict[str, Any]:
    return {"ms": statistics.median(taken), "lowest_ms": min(taken), "worst_ms": max(taken)}


async def in_turn(
    tracker: Tracker, query: dict[str, Any], after: str | None, calls: int
) -> dict[str, Any]:
    """Call for the first page and for the deepest, in turn: what disturbs one disturbs both."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(calls):
        for cursor, times in zip((None, after), taken, strict=True):
            begun = time.perf_counter()
            await tracker.list(**query, after=cursor)
            times.append((time.perf_counter() - begun) * 1e3)
    last = {f"deepest_{key}": value for key, value in told(taken[1]).items()}
    return told(taken[0]) | last


async def deepest(tracker: Tracker, query: dict[str, Any]) -> str | None:
    """Give the cursor of the last page, from the first page of the list in the other direction."""
    order = Order.parse(query.get("order", "-created_at"))
    filters = {key: value for key, value in query.items() if key != "order"}
    turned = str(Order(order.column, not order.descending))
    items = (await tracker.list(**filters, order=turned, limit=51)).items
    if len(items) < 51:
        return None
    value = getattr(items[-1], order.column)
    if order.column != "duration":
        value = to_micros(value)
    digest = Filters.of(**filters).digest()
    return write_cursor(Position(value, items[-1].id), order, digest)


async def measure(place: Place, calls: int) -> list[dict[str, Any]]:
    """Measure every case in one database."""
    tracker, found = place.tracker, []
    about = {"database": place.name, "rows": place.rows, "calls": calls}
    for cases, goal in ((CASES, 5.0), (TOGETHER, 2000.0)):
        for name, template in cases.items():
            query = {
                key: value.format(**place.words) if isinstance(value, str) else value
                for key, value in template.items()
            }
            after = await deepest(tracker, query) if cases is CASES else None
            one = await timed(place, lambda query=query: tracker.list(**query), calls)
            if after is not None:
                one |= await in_turn(tracker, query, after, calls)
            found.append(one | {"what": "list", "case": name, "goal_ms": goal} | about)
    for name, call in OTHERS.items():
        one = await timed(place, lambda call=call: call(tracker, place.words["task_id"]), calls)
        goal = GOALS.get(name, 5.0)
        found.append(
            {"what": "other", "case": name, "goal_ms": goal, "deepest_ms": None, **about} | one
        )
    return found


async def words_of(tracker: Tracker) -> dict[str, str]:
    """Give values that are in the rows."""
    newest = (await tracker.list(status="SUCCESS", limit=1)).items[0]
    oldest = (await tracker.list(status="SUCCESS", order="created_at", limit=1)).items[0]
    return {
        "new_worker": newest.worker or "",
        "old_worker": oldest.worker or "",
        "task_id": newest.task_id,
        "start": newest.task_id[:6],
    }


async def postgres(
    server: PostgresServer, rows: int, calls: int, sqlite: tuple[Path, int] | None = None
) -> list[dict[str, Any]]:
    """Fill a database and measure; and a file of SQLite with the newest of the rows."""
    url = server.create_database(f"rows{rows}")
    async with Tracker(url, settings=KEYS):
        pass
    begun = time.monotonic()
    await fill_postgres(server.dsn_of(f"rows{rows}"), rows)
    print(f"{rows:,} rows in {time.monotonic() - begun:.0f} s", flush=True)

    def backends() -> list[int]:
        asked = f"SELECT pid FROM pg_stat_activity WHERE datname = 'rows{rows}'"
        return list(map(int, server.psql(asked).split()))

    async with Tracker(url, settings=KEYS) as tracker:
        if hasattr(tracker, "roll_up"):
            await tracker.roll_up()
        place = Place("Postgres", rows, tracker, await words_of(tracker), backends)
        found = await measure(place, calls)
    if sqlite is not None:
        path, some = sqlite[0], min(sqlite[1], rows)
        async with Tracker(f"sqlite+aiosqlite:///{path}", settings=KEYS):
            pass
        await fill_sqlite(path, server.dsn_of(f"rows{rows}"), some)
        async with Tracker(f"sqlite+aiosqlite:///{path}", settings=KEYS) as tracker:
            if hasattr(tracker, "roll_up"):
                await tracker.roll_up()
            place = Place("SQLite", some, tracker, await words_of(tracker))
            found += await measure(place, calls)
    return found


async def run(sizes: list[int], calls: int, sqlite_rows: int) -> list[dict[str, Any]]:
    found = []
    with TemporaryDirectory() as folder, PostgresServer() as server:
        for rows in sizes:
            sqlite = (Path(folder) / "bench.db", sqlite_rows) if rows == sizes[0] else None
            found += await postgres(server, rows, calls, sqlite)
            if rows != sizes[-1]:
                server.drop_database(f"rows{rows}")
    return found


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def verdict(one: dict[str, Any]) -> str:
    if one["ms"] is None:
        return "ended after 2 s"
    if one["ms"] <= one["goal_ms"]:
        return "yes"
    return "lowest" if one["lowest_ms"] <= one["goal_ms"] else "NO"


def table(results: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A line for each case, a column for each database."""
    first = (results[0]["database"], results[0]["rows"])
    places = list(dict.fromkeys((one["database"], one["rows"]) for one in results))
    by_place = {
        place: {one["case"]: one for one in results if (one["database"], one["rows"]) == place}
        for place in places
    }
    head = ["ms", "median", "lowest", "worst", "CPU", "deepest page", "its lowest", "goal", "met"]
    head += [f"{name}, {rows:,}" for name, rows in places[1:]]
    lines = [
        [
            case,
            shown(one["ms"]),
            shown(one["lowest_ms"]),
            shown(one["worst_ms"]),
            shown(one.get("cpu_ms")),
            shown(one.get("deepest_ms")),
            shown(one.get("deepest_lowest_ms")),
            f"{one['goal_ms']:g}",
            verdict(one),
            *(shown(by_place[place][case]["ms"]) for place in places[1:]),
        ]
        for case, one in by_place[first].items()
    ]
    return head, lines


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=1_000_000, help="rows of Postgres")
    made.add_argument("--sqlite-rows", type=int, default=200_000, help="rows of SQLite, at most")
    options = made.parse_args()
    sizes = [1_000_000, options.rows] if options.rows > 1_000_000 else [options.rows]
    calls = 31
    if options.short:
        sizes, calls = [50_000], 3
    results = uvloop.run(run(sizes, calls, options.sqlite_rows))
    show(*table(results), markdown=options.markdown)
    save("read", results, options)


if __name__ == "__main__":
    main()
