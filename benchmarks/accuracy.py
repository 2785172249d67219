"""How true the records are: the same mixed workload at full speed through aiotrack and neighbours.

2,000 tasks (successes, failures, retries that help or not), 50 senders, a real `taskiq worker`
with 100 at a time. When all is acknowledged and nothing has changed for two seconds, the worker is
stopped gently and the records are read. TaskiqAdminMiddleware posts to taskiq-dashboard's server
and to an ideal one that keeps every post in order: what that one does not know was never sent.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from harness import Lab, parser, run_sender, save, show, until
from variants import VARIANTS, Target
from workload import expected

SENDERS = 50
QUIET = 2.0  # seconds without a change, then the records are read
PATIENCE = 30.0  # seconds that a neighbour has to become quiet
UNSEEN = "missing"
FINAL = {"SUCCESS", "FAILURE"}


@dataclass(frozen=True, slots=True)
class Told:
    """What a tracker says of one task: its status and all errors it has ever kept."""

    status: str
    errors: str


Records = dict[str, Told]


# ── readers ─────────────────────────────────────────────────────────────────────────────────────
def read_aiotrack(_: Lab, target: Target) -> Records:
    """Read by the public interface: every page, and every attempt of what did not just succeed."""
    from aiotrack import Tracker

    async def read() -> Records:
        told: Records = {}
        async with Tracker(target.database) as tracker:
            after = None
            while True:
                page = await tracker.list(limit=500, after=after)
                for one in page.items:
                    plain = one.attempt == 1 and one.is_success
                    attempts = [] if plain else await tracker.attempts(one.task_id)
                    errors = "\n".join(attempt.error or "" for attempt in attempts)
                    told[one.task_id] = Told(str(one.status), errors)
                after = page.next
                if after is None:
                    return told

    return asyncio.run(read())


def read_dashboard(lab: Lab, target: Target) -> Records:
    """Read taskiq-dashboard's table."""
    words = {0: "STARTED", 1: "SUCCESS", 2: "FAILURE", 3: "PENDING", 4: "ABANDONED"}
    query = (
        "SELECT coalesce(json_agg(json_build_array(id, status, error)), '[]') "
        "FROM taskiq_dashboard__tasks"
    )
    found = json.loads(lab.postgres.psql(query, target.queue))
    return {
        task_id.replace("-", ""): Told(words[status], error or "")
        for task_id, status, error in found
    }


def read_sink(_: Lab, target: Target) -> Records:
    """Read what the ideal server was told: the last post of a kind counts, errors are all kept."""
    with urllib.request.urlopen(target.sink) as answer:
        found = json.load(answer)
    told = {}
    for task_id, events in found.items():
        ends = [body for event, body in events if event == "executed"]
        started = any(event == "started" for event, _ in events)
        status = "STARTED" if started else "PENDING"
        if ends:
            status = "FAILURE" if ends[-1]["error"] else "SUCCESS"
        told[task_id] = Told(status, "\n".join(body["error"] or "" for body in ends))
    return told


@dataclass(frozen=True, slots=True)
class Way:
    """A middleware and where its reports end up."""

    label: str
    variant: str
    read: Callable[[Lab, Target], Records]
    needs_dashboard: bool = False


WAYS = {
    "postgres": Way("aiotrack, Postgres", "postgres", read_aiotrack),
    "sqlite": Way("aiotrack, SQLite", "sqlite", read_aiotrack),
    "admin-ideal": Way("TaskiqAdminMiddleware, ideal server", "admin", read_sink),
    "admin": Way("TaskiqAdminMiddleware, taskiq-dashboard", "admin", read_dashboard, True),
    "dashboard": Way("taskiq-dashboard's middleware and server", "dashboard", read_dashboard, True),
}


# ── the run ─────────────────────────────────────────────────────────────────────────────────────
def target_of(lab: Lab, way: Way) -> Target:
    """Start what a way posts to."""
    variant = VARIANTS[way.variant]
    if not variant.has_sink:
        return lab.target(variant)
    if not way.needs_dashboard:
        return lab.target(variant, sink=lab.server("sink.py"))
    bare = lab.target(variant, sink="-")
    address = lab.server("dashboard_server.py", lab.postgres.create_database(bare.queue))
    return Target(queue=bare.queue, redis=bare.redis, sink=address)


def run(lab: Lab, way: Way, tasks: int) -> dict[str, Any]:
    """Run the workload through one way, and judge what it knows then."""
    target = target_of(lab, way)
    variant = VARIANTS[way.variant]
    worker = lab.worker(variant, target, 100, BENCH_RETRIES="1")
    begun = time.perf_counter()
    ids = run_sender(variant, target, tasks, SENDERS, "mixed", BENCH_RETRIES="1")["ids"]
    worker.drained(tasks)
    took = time.perf_counter() - begun
    _settle(lambda: way.read(lab, target))
    worker.stop()
    return {"what": "accuracy", "label": way.label, "tasks": tasks, "seconds": took} | judge(
        ids, way.read(lab, target)
    )


def _settle(read: Callable[[], Records]) -> None:
    """Wait until nothing has changed for a while."""
    last, since, begun = read(), time.monotonic(), time.monotonic()
    for _ in until("the records to settle", pause=0.5):
        now = read()
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since >= QUIET or time.monotonic() - begun >= PATIENCE:
            return


def judge(ids: Iterable[str], records: Records) -> dict[str, int]:
    """Count what is not as it was."""
    counts = dict.fromkeys((UNSEEN, "unfinished", "wrong", "retries", "forgotten"), 0)
    for number, task_id in enumerate(ids):
        true = expected(number)
        told = records.get(task_id)
        counts[UNSEEN] += told is None
        if told is not None:
            counts["unfinished"] += told.status not in FINAL
            counts["wrong"] += told.status in FINAL and told.status != true.status
        retried = true.errors if true.status == "SUCCESS" else true.errors[:-1]
        counts["retries"] += len(retried)
        counts["forgotten"] += sum(told is None or words not in told.errors for words in retried)
    return counts


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--tasks", type=int)
    made.add_argument("--ways", default=",".join(WAYS))
    options = made.parse_args()
    tasks = options.tasks or (400 if options.short else 2000)
    results = []
    with Lab() as lab:
        for name in options.ways.split(","):
            way = WAYS[name]
            needed = [VARIANTS[way.variant], *([VARIANTS["dashboard"]] * way.needs_dashboard)]
            if any(variant.missing for variant in needed):
                print(f"without {way.label}: pip install -r benchmarks/requirements.txt")
                continue
            results.append(run(lab, way, tasks))
    rows = [
        [
            one["label"],
            *(f"{one[name]:,}" for name in (UNSEEN, "unfinished", "wrong")),
            f"{one['forgotten']:,} of {one['retries']:,}",
            f"{one['seconds']:.1f}",
        ]
        for one in results
    ]
    print(f"{tasks:,} tasks, {SENDERS} senders")
    head = ["", "rows missing", "unfinished", "wrong status", "retry errors forgotten", "seconds"]
    show(head, rows, markdown=options.markdown)
    save("accuracy", results, options)


if __name__ == "__main__":
    main()
