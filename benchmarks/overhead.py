"""What tracking costs a worker and its senders: aiotrack, its neighbours, and nothing, in one run.

    python benchmarks/overhead.py                     all of it, about forty minutes
    python benchmarks/overhead.py --mode drain --at-once 100 --variants postgres,sqlite
    python benchmarks/overhead.py --short             five minutes, to see that it works

Ratios are medians over pairs: each round runs every variant once, and a variant is compared with
the untracked run of the same round. ``control`` is untracked again: what it is off 1.00 is noise.
"""

from __future__ import annotations

import argparse
from typing import Any

import drain
import lone
import sends
from harness import Lab, chosen, parser, save
from variants import VARIANTS

OURS = ["untracked", "control", "postgres", "everything", "sqlite"]


def main() -> None:
    options = _options()
    names = chosen(options.variants)
    results: list[dict[str, Any]] = []
    with Lab(slower=options.slower) as lab:
        if options.mode in {"all", "drain"}:
            for at_once in options.at_once:
                results += _drain(lab, names, at_once, options)
        if options.mode in {"all", "send"}:
            results += _sends(lab, names, options)
        if options.mode in {"all", "lone"}:
            results += _lone(lab, [name for name in names if name in OURS], options)
    save("overhead", results, options)


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--mode", choices=("all", "drain", "send", "lone"), default="all")
    made.add_argument("--variants", default="", help=f"of {', '.join(VARIANTS)}; default: all")
    made.add_argument("--at-once", default="100,10,1", help="tasks at a time, for drain")
    made.add_argument("--tasks", type=int, help="tasks of a round")
    made.add_argument("--rounds", type=int, help="rounds of a fleet")
    made.add_argument(
        "--slower", type=float, default=0, help="milliseconds that a commit takes longer"
    )
    made.add_argument("--fleets", type=int, help="sets of worker processes, for drain")
    options = made.parse_args()
    default = ["untracked", "postgres", "sqlite", "naive", "admin"] if options.short else VARIANTS
    default = [name for name in default if not name.startswith("ours")]  # broker.py has those
    wanted = options.variants.split(",") if options.variants else default
    options.variants = ["untracked", *(name for name in wanted if name != "untracked")]
    options.at_once = [int(number) for number in options.at_once.split(",")]
    options.rounds = options.rounds or (3 if options.short else 7)
    options.fleets = options.fleets or (1 if options.short else 3)
    return options


def _drain(
    lab: Lab, names: list[str], at_once: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    known = drain.SHORT if options.short else drain.TASKS
    tasks = options.tasks or known.get(at_once, known[10])
    rounds, fleets = options.rounds, options.fleets
    results = drain.run(lab, names, at_once, tasks=tasks, rounds=rounds, fleets=fleets)
    title = f"A worker drains a stream, {at_once} at a time, {tasks:,} tasks"
    slower = f", commits {options.slower:g} ms slower" if options.slower else ""
    print(f"\n{title}, {rounds * fleets} rounds{slower}")
    print(drain.table(results, markdown=options.markdown), flush=True)
    for one in results:
        if one["all_final"] is False:
            print(f"{one['label']}: rows were not final when the last task was acknowledged")
    return results


def _sends(lab: Lab, names: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    tasks = options.tasks or (500 if options.short else 3000)
    both = sends.end_to_end(lab, names, tasks=tasks, rounds=options.rounds)
    print(f"\nEnd to end: {sends.SENDERS} senders wait for their PENDING, a worker drains")
    print(sends.table(both, markdown=options.markdown), flush=True)
    tasks = options.tasks or (200 if options.short else 1000)
    alone = sends.loops(lab, names, tasks=tasks, rounds=options.rounds)
    print("\nOne sender in a loop, no worker")
    print(sends.table(alone, markdown=options.markdown), flush=True)
    return both + alone


def _lone(lab: Lab, names: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    tasks = options.tasks or (60 if options.short else 400)
    results = lone.run(lab, names, tasks=tasks)
    print(f"\nA lone task on an idle worker, from send to acknowledgement, {tasks} of each")
    print(lone.table(results, markdown=options.markdown), flush=True)
    return results


if __name__ == "__main__":
    main()
