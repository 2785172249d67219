"""PriorityStreamBroker beside taskiq-redis' RedisStreamBroker, in one run, tracked and not.

    python benchmarks/broker.py            all of it, about fifteen minutes
    python benchmarks/broker.py --short    one minute, to see that it works

Draining is as in overhead.py: the ratios are to the stock broker's untracked run of the same round.
Dispatch is the time from XADD to the first line of the body, at a steady rate, on a worker that has
nothing else to do; the workers run side by side and are sent to in turn. Sustained are the tasks
that go through while their senders work on the same cores, as end to end in overhead.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from typing import Any
from uuid import uuid4

import drain
import sends
from harness import Lab, Worker, order, parser, percentile, render, save
from variants import VARIANTS

NAMES = ["untracked", "control", "ours", "ours-control", "postgres", "ours-postgres"]
RATE = 200  # tasks a second
SLICE = 200  # tasks of one broker before it is the other's turn


def main() -> None:
    options = _options()
    results: list[dict[str, Any]] = []
    with Lab() as lab:
        names = ["untracked", "ours", "postgres", "ours-postgres"]
        results += dispatches(lab, names, turns=options.turns)
        print(f"\nDispatch at {RATE} tasks/s, {results[0]['tasks']:,} of each")
        print(dispatch_table(results, markdown=options.markdown), flush=True)
        for at_once in options.at_once:
            tasks = options.tasks or (drain.SHORT if options.short else drain.TASKS)[at_once]
            found = drain.run(
                lab, NAMES, at_once, tasks=tasks, rounds=options.rounds, fleets=options.fleets
            )
            print(f"\nA worker drains a stream, {at_once} at a time, {tasks:,} tasks")
            print(drain.table(found, markdown=options.markdown), flush=True)
            print(strict(found), flush=True)
            results += found
        tasks = options.tasks or (500 if options.short else 3000)
        found = sends.end_to_end(lab, names, tasks=tasks, rounds=options.rounds * options.fleets)
        print(f"\nSustained: {sends.SENDERS} senders that wait for their PENDING, a worker drains")
        print(sends.table(found, markdown=options.markdown), flush=True)
        results += found
    save("broker", results, options)


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--at-once", default="100,10,1", help="tasks at a time")
    made.add_argument("--tasks", type=int, help="tasks of a round")
    made.add_argument("--rounds", type=int, help="rounds of a fleet")
    made.add_argument("--fleets", type=int, help="sets of worker processes")
    made.add_argument("--turns", type=int, help="turns of each broker, for dispatch")
    options = made.parse_args()
    options.at_once = [int(number) for number in options.at_once.split(",")]
    options.rounds = options.rounds or (3 if options.short else 5)
    options.fleets = options.fleets or (1 if options.short else 2)
    options.turns = options.turns or (2 if options.short else 15)
    return options


def strict(results: list[dict[str, Any]]) -> str:
    """Tell the ratios of this run that have a goal."""
    rate = {one["variant"]: one for one in results}
    ours = rate["ours"]["ratio"]
    return (
        f"untracked {ours:.2f} x stock; tracked {rate['ours-postgres']['ratio']:.2f} x untracked "
        f"stock, {rate['ours-postgres']['ratio'] / ours:.2f} of untracked on the same broker"
    )


# ── dispatch ────────────────────────────────────────────────────────────────────────────────────
def dispatches(lab: Lab, names: list[str], *, turns: int) -> list[dict[str, Any]]:
    """Send at a steady rate, a slice to each in turn; the first turn warms up."""
    workers = {name: lab.worker(VARIANTS[name], lab.target(VARIANTS[name]), 100) for name in names}
    delays: dict[str, list[float]] = defaultdict(list)
    for turn in range(-1, turns):
        for name in order(names, turn):
            found = _slice(lab, workers[name])
            if turn >= 0:
                delays[name] += found
    for worker in workers.values():
        worker.stop()
    return [
        {
            "what": "dispatch",
            "variant": name,
            "label": VARIANTS[name].label,
            "rate": RATE,
            "tasks": len(delays[name]),
            "p50_ms": statistics.median(delays[name]) * 1e3,
            "p99_ms": percentile(delays[name], 99) * 1e3,
            "longest_ms": max(delays[name]) * 1e3,
        }
        for name in names
    ]


def _slice(lab: Lab, worker: Worker) -> list[float]:
    begun = time.monotonic()
    for number in range(SLICE):
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        _send(lab, worker, "bench:late", time.monotonic())
    time.sleep(0.3)
    _send(lab, worker, "bench:tell")
    (_, told) = lab.client.brpop([f"{worker.target.queue}:delays"], timeout=4)
    found: list[float] = json.loads(told)
    if len(found) != SLICE:
        raise SystemExit(f"{worker.variant.name}: {len(found)} of {SLICE} ran in time")
    return found


def _send(lab: Lab, worker: Worker, task: str, *args: float) -> None:
    message = {
        "task_id": uuid4().hex,
        "task_name": task,
        "labels": {},
        "labels_types": {},
        "args": args,
        "kwargs": {},
    }
    lab.client.xadd(worker.target.queue, {"data": json.dumps(message)})


def dispatch_table(results: list[dict[str, Any]], *, markdown: bool) -> str:
    """Give the results as a table."""
    rows = [
        [one["label"], *(f"{one[f'{name}_ms']:.2f}" for name in ("p50", "p99", "longest"))]
        for one in results
        if one["what"] == "dispatch"
    ]
    return render(["", "p50 ms", "p99 ms", "longest ms"], rows, markdown=markdown)


if __name__ == "__main__":
    main()
