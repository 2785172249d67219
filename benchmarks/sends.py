"""Senders: end to end beside a busy worker, and one sender alone in a loop."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from harness import Lab, Worker, order, ratio, render, run_sender, spread
from variants import VARIANTS

SENDERS = 50


def end_to_end(lab: Lab, names: list[str], *, tasks: int, rounds: int) -> list[dict[str, Any]]:
    """Let 50 senders send while a worker drains; the time ends with the last acknowledgement.

    The senders run in a process of their own, and it starts anew for each round; its start and
    its first tasks do not count.
    """
    workers = {name: lab.worker(VARIANTS[name], lab.target(VARIANTS[name]), 100) for name in names}
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(-1, rounds):  # the first round warms up
        for name in order(names, number):
            took = _once(workers[name], tasks)
            if number >= 0:
                seconds[name].append(took)
    for worker in workers.values():
        worker.stop()
    return [_result("end to end, 50 senders", name, seconds, tasks) for name in names]


def _once(worker: Worker, tasks: int) -> float:
    told = run_sender(worker.variant, worker.target, tasks, SENDERS, BENCH_DRAIN="1")
    return told["seconds"]


def loops(lab: Lab, names: list[str], *, tasks: int, rounds: int) -> list[dict[str, Any]]:
    """Let one sender send in a loop, no worker beside it; aiotrack also with durability async."""
    durable = {name: (name, "") for name in names}
    for name in names:
        if name in {"postgres", "sqlite"}:
            durable[f"{name} async"] = (name, "async")
    targets = {key: lab.target(VARIANTS[name]) for key, (name, _) in durable.items()}
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for key in order(list(durable), number):
            name, word = durable[key]
            extra = {"BENCH_DURABILITY": word} if word else {}
            told = run_sender(VARIANTS[name], targets[key], tasks, 1, **extra)
            seconds[key].append(told["seconds"])
    results = []
    for key, (name, word) in durable.items():
        result = _result("one sender in a loop", key, seconds, tasks, name)
        if word:
            result["label"] += ', durability="async"'
        results.append(result)
    return results


def _result(
    what: str, key: str, seconds: dict[str, list[float]], tasks: int, name: str = ""
) -> dict[str, Any]:
    return {
        "what": what,
        "variant": key,
        "label": VARIANTS[name or key].label,
        "tasks": tasks,
        "rounds": len(seconds[key]),
        "per_second": tasks / statistics.median(seconds[key]),
        "ratio": ratio(seconds["untracked"], seconds[key]),
        "spread": spread(seconds["untracked"], seconds[key]),
    }


def table(results: list[dict[str, Any]], *, markdown: bool) -> str:
    """Give the results of one measure as a table."""
    rows = [
        [
            one["label"],
            f"{one['per_second']:,.0f}",
            f"{one['ratio']:.2f}",
            f"{one['spread'][0]:.2f}-{one['spread'][1]:.2f}",
        ]
        for one in results
    ]
    return render(["", "tasks/s", "of untracked", "lowest-highest"], rows, markdown=markdown)
