"""A worker drains a stream: tasks per second and the worker's CPU per task.

The tasks are sent before, by the variant's own client, so that their PENDING rows are there as in
real life. The worker is up and warm and idle; then all tasks move into its stream at one stroke.
The time runs from that stroke until Valkey has the last acknowledgement: no start-up, no import,
no sending is in it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from harness import Lab, Worker, order, ratio, release, render, spread, stage
from variants import VARIANTS

WARM = 200  # tasks that each worker runs before it is measured
TASKS = {100: 3000, 10: 2000, 1: 400}  # how many tasks, by how many run at once
SHORT = {100: 1000, 10: 500, 1: 100}


def run(
    lab: Lab, names: list[str], at_once: int, *, tasks: int, rounds: int, fleets: int
) -> list[dict[str, Any]]:
    """Measure each variant once a round; a fleet is a new set of worker processes."""
    seconds: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    kept: dict[str, bool] = {}
    for fleet in range(fleets):
        workers = {}
        for name in names:
            target = lab.target(VARIANTS[name])
            stage(lab, VARIANTS[name], target, WARM + tasks * rounds)
            workers[name] = lab.worker(VARIANTS[name], target, at_once)
        for name in names:
            release(lab, workers[name].target, WARM)
            workers[name].drained(WARM)
        for number in range(rounds):
            for name in order(names, number + fleet * rounds):
                took, used = once(lab, workers[name], tasks)
                seconds[name].append(took)
                cpu[name].append(used)
        for name, worker in workers.items():
            if worker.variant.counts and fleet == fleets - 1:
                counted = lab.count(worker.variant, worker.target)
                kept[name] = counted == WARM + tasks * rounds
            worker.stop()
    return [
        {
            "what": "drain",
            "at_once": at_once,
            "variant": name,
            "label": VARIANTS[name].label,
            "tasks": tasks,
            "rounds": rounds * fleets,
            "per_second": tasks / statistics.median(seconds[name]),
            "ratio": ratio(seconds["untracked"], seconds[name]),
            "spread": spread(seconds["untracked"], seconds[name]),
            "cpu_us": statistics.median(cpu[name]) / tasks * 1e6,
            "cpu_added_us": statistics.median(
                one - two for one, two in zip(cpu[name], cpu["untracked"], strict=True)
            )
            / tasks
            * 1e6,
            "all_final": kept.get(name),
        }
        for name in names
    ]


def once(lab: Lab, worker: Worker, tasks: int) -> tuple[float, float]:
    """Drain once; give the seconds and the worker's CPU seconds."""
    before = worker.cpu()
    begun = release(lab, worker.target, tasks)
    took = worker.drained(tasks) - begun
    return took, worker.cpu() - before


def table(results: list[dict[str, Any]], *, markdown: bool) -> str:
    """Give the results of one ``at_once`` as a table."""
    columns = ["", "tasks/s", "of untracked", "lowest-highest", "CPU µs/task", "added"]
    rows = [
        [
            one["label"],
            f"{one['per_second']:,.0f}",
            f"{one['ratio']:.2f}",
            f"{one['spread'][0]:.2f}-{one['spread'][1]:.2f}",
            f"{one['cpu_us']:.0f}",
            f"{one['cpu_added_us']:+.0f}",
        ]
        for one in results
    ]
    return render(columns, rows, markdown=markdown)
