"""The kept results as Markdown: prints the tables, or puts them into README.md with ``--write``.

A result is one JSON line in results/; scripts keep them unless they run short.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import api as rest
import broker as brokers
import drain
import index_cost as cost
import live as watching
import lone
import read as reads
import sends
import stats as rollups
from harness import HERE, RESULTS, render

BEGIN, END = "<!-- results: made by report.py --write -->", "<!-- end of results -->"

Results = list[dict[str, Any]]


def overhead(results: Results) -> Iterator[str]:
    drains = [one for one in results if one["what"] == "drain"]
    for at_once, found in groupby(drains, key=lambda one: one["at_once"]):
        group = list(found)
        yield f"A worker drains a stream, {at_once} at a time, {_size(group[0])}:"
        yield drain.table(group, markdown=True)
    others = [one for one in results if one["what"] not in {"drain", "lone"}]
    for what, found in groupby(others, key=lambda one: one["what"]):
        group = list(found)
        yield f"{what[0].upper()}{what[1:]}, {_size(group[0])}:"
        yield sends.table(group, markdown=True)
    alone = [one for one in results if one["what"] == "lone"]
    if alone:
        yield f"A lone task on an idle worker, {alone[0]['tasks']} of each:"
        yield lone.table(alone, markdown=True)


def broker(results: Results) -> Iterator[str]:
    found = [one for one in results if one["what"] == "dispatch"]
    yield f"From XADD to the body, at {found[0]['rate']} tasks/s, {found[0]['tasks']:,} of each:"
    yield brokers.dispatch_table(found, markdown=True)
    drains = [one for one in results if one["what"] == "drain"]
    for at_once, group in groupby(drains, key=lambda one: one["at_once"]):
        rows = list(group)
        yield f"A worker drains a stream, {at_once} at a time, {_size(rows[0])}:"
        yield drain.table(rows, markdown=True)
        yield f"{brokers.strict(rows).capitalize()}."
    sustained = [one for one in results if one["what"].startswith("end to end")]
    if sustained:
        yield f"Sustained, {sends.SENDERS} senders on the same cores, {_size(sustained[0])}:"
        yield sends.table(sustained, markdown=True)


def accuracy(results: Results) -> Iterator[str]:
    yield f"What is known in the end of {results[0]['tasks']:,} mixed tasks:"
    columns = ["", "rows missing", "unfinished", "wrong status", "retry errors forgotten"]
    names = ("missing", "unfinished", "wrong")
    rows = [
        [
            one["label"],
            *(f"{one[name]:,}" for name in names),
            f"{one['forgotten']:,} of {one['retries']:,}",
        ]
        for one in results
    ]
    yield render(columns, rows, markdown=True)


def import_time(results: Results) -> Iterator[str]:
    (one,) = results
    yield (
        f"`from aiotrack import Tracker, TrackerMiddleware, tracking` adds {one['ours_ms']:.1f} ms "
        f"to the {one['taskiq_ms']:.0f} ms of `import taskiq` (median of {one['samples']} fresh "
        f"interpreters); database drivers loaded: {', '.join(one['drivers_loaded']) or 'none'}."
    )


def write(results: Results) -> Iterator[str]:
    yield f"The hot write, µs a row in groups of {results[0]['size']}:"
    rows = [
        [f"{one['database']}, {one['way']}", f"{one['cpu_us']:.1f}", f"{one['wall_us']:.1f}"]
        for one in results
    ]
    yield render(["", "client CPU", "wall"], rows, markdown=True)


def progress(results: Results) -> Iterator[str]:
    told = ", ".join(f"{one['us']:.1f} µs ({one['call']})" for one in results)
    yield f"`await tracker.progress(…)` in a loop, a call: {told}."


def read(results: Results) -> Iterator[str]:
    one = results[0]
    yield (
        f"Milliseconds of a call of the tracker on {one['rows']:,} rows in Postgres, "
        f"{one['calls']} calls each (load {one['load']}); `lowest` under `met`: only the quickest "
        "call met the goal. The last columns are medians elsewhere:"
    )
    head, lines = reads.table(results)
    yield render(["", *head[1:]], lines, markdown=True)


def overview(results: Results) -> Iterator[str]:
    one = results[0]
    yield (
        f"Milliseconds from asking for a page of the dashboard until it can be used, in a browser "
        f"that knows nothing of it yet, on {one['rows']:,} rows in Postgres; all files are "
        f"{one['bytes']:,} bytes, {one['packed_bytes']:,} as they travel (load {one['load']}):"
    )
    names = ("ms", "lowest_ms", "worst_ms", "goal_ms")
    rows = [[one["case"], *(f"{one[name]:.0f}" for name in names)] for one in results]
    yield render(["", "median", "lowest", "worst", "goal"], rows, markdown=True)


def api(results: Results) -> Iterator[str]:
    one = results[0]
    yield (
        f"Milliseconds of a request to a uvicorn of its own on {one['rows']:,} rows in Postgres, "
        f"{one['calls']} of each (load {one['load']}), beside the same call of the tracker:"
    )
    yield render(["", *rest.HEAD[1:]], rest.table(results), markdown=True)
    yield "Injection strings, each in a text of a query and in a path, on the same rows:"
    yield render(["", *rest.ABUSE[1:]], rest.abuse_table(results), markdown=True)
    yield (
        "Server-sent events of one execution that changes ten times a second; milliseconds from "
        "the commit of a change until a client in another process has read the event:"
    )
    yield render(rest.EVENTS, rest.events_table(results), markdown=True)


def index_cost(results: Results) -> Iterator[str]:
    one = results[0]
    yield (
        f"CPU of PostgreSQL's backend for the send and the end of a task, in groups of 50, on "
        f"{one['rows']:,} rows, with all indexes and without one of them:"
    )
    yield render(["", *cost.HEAD[1:]], cost.table(results), markdown=True)


def stats(results: Results) -> Iterator[str]:
    one = results[0]
    yield (
        f"Milliseconds of `tracker.stats` on {one['rows']:,} rows of 30 days in Postgres, before "
        f"and after `tracker.roll_up()` (load {one['load']}):"
    )
    yield render(rollups.HEAD, rollups.table(results), markdown=True)


def live(results: Results) -> Iterator[str]:
    yield (
        f"{results[0]['rate']:,} updates a second; milliseconds from an update's commit until "
        f"`watch` in another process gives it, and CPU of the process that works (load "
        f"{results[0]['load']}):"
    )
    yield render(watching.HEAD, watching.table(results), markdown=True)


def cancel(results: Results) -> Iterator[str]:
    yield (
        f"{results[0]['cancels']} cancels each of a sleeping body in another process (load "
        f"{results[0]['load']}); milliseconds from the call until it returned, the body got its "
        "CancelledError, and the record had its end, each p50 and p99:"
    )
    names = [f"{name}_p{percent}_ms" for name in ("call", "body", "record") for percent in (50, 99)]
    rows = [
        [f"{one['database']}, by {one['hears']}", *(f"{one[name]:.0f}" for name in names)]
        for one in results
    ]
    yield render(["", *(name[:-3].replace("_", " ") for name in names)], rows, markdown=True)


def lock(results: Results) -> Iterator[str]:
    pairs, *queues = results
    us = pairs["us"]
    yield f"An acquire and a release, µs (the machine's load was {pairs['load']}):"
    rows = [
        [name, f"{us[name]:.0f}", f"{us[f'{name} x50']:.0f}"] for name in us if "x50" not in name
    ]
    yield render(["", "alone", "50 keys at once"], rows, markdown=True)
    yield "; ".join(f"{name} {one:.2f}" for name, one in pairs["ratios"].items()) + "."
    yield (
        "Both bare round trips are there because our connection multiplexes: one of its trips "
        "costs about half of redis-py's, which raises the bar for the share. What is above it "
        "is the scripts (some 10 µs each on the server), and a lease with its thread and timer."
    )
    yield "50 waiters on one key, each holds it for 1 ms:"
    rows = [
        [one["lock"], f"{one['per_second']:.0f}", f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}"]
        for one in queues
    ]
    yield render(["", "acquisitions/s", "hand-over p50 ms", "p99 ms"], rows, markdown=True)


SECTIONS = {
    "overhead": overhead,
    "broker": broker,
    "accuracy": accuracy,
    "live": live,
    "cancel": cancel,
    "read": read,
    "stats": stats,
    "overview": overview,
    "api": api,
    "index_cost": index_cost,
    "write": write,
    "progress": progress,
    "lock": lock,
    "import_time": import_time,
}


def _size(one: dict[str, Any]) -> str:
    return f"{one['tasks']:,} tasks, {one['rounds']} rounds"


def _machine(one: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in one["packages"].items())
    return f"{one['python']}, {one['kernel']}, {one['machine']}, {one['cores']} cores; {packages}."


def report() -> str:
    parts = []
    for name, section in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        results = [json.loads(line) for line in path.read_text().splitlines()]
        parts += [f"### {name}.py", f"`{results[0]['command']}`", *section(results)]
        parts.append(_machine(results[0]))
    return "\n\n".join(parts) or "No results are kept yet."


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--write", action="store_true", help="put the tables into README.md")
    made.add_argument("--short", action="store_true", help="changes nothing; make bench says it")
    text = report()
    if not made.parse_args().write:
        print(text)
        return
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
