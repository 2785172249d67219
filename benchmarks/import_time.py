"""What `from aiotrack import Tracker, TrackerMiddleware, tracking` costs on top of `import taskiq`.

Each sample is a fresh interpreter that imports taskiq first and then takes the time of our import
alone. It also says which modules that import loaded, and fails when a database
driver is among them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import Counter
from tempfile import TemporaryDirectory

import harness
from harness import parser, percentile, save, show

LINE = "from aiotrack import Tracker, TrackerMiddleware, tracking"
FORBIDDEN = ("sqlalchemy", "redis", "alembic", "asyncpg", "aiosqlite")
SAMPLE = f"""
import json, sys, time
begun = time.perf_counter()
import taskiq
middle = time.perf_counter()
before = set(sys.modules)
start, cpu = time.perf_counter(), time.process_time()
{LINE}
done, used = time.perf_counter(), time.process_time()
print(json.dumps([middle - begun, done - start, used - cpu, sorted(set(sys.modules) - before)]))
"""
TRACE = f"import taskiq, sys\nsys.stderr.write('#\\n')\n{LINE}"


def environment(cache: str) -> dict[str, str]:
    """Give an environment with byte code, as an installed package has it, whatever ours says."""
    every = harness.environment(PYTHONPYCACHEPREFIX=cache)
    every.pop("PYTHONDONTWRITEBYTECODE", None)
    return every


def sample(cache: str) -> tuple[float, float, float, list[str]]:
    """Give the wall time of taskiq's import and of ours, the CPU time of ours, and its modules."""
    done = subprocess.run(
        [sys.executable, "-c", SAMPLE],
        check=True,
        capture_output=True,
        text=True,
        env=environment(cache),
    )
    taskiq, ours, cpu, modules = json.loads(done.stdout)
    return taskiq, ours, cpu, modules


def by_module(cache: str) -> list[tuple[str, float]]:
    """Give what each module of our import costs by itself, in ms, the dearest first."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", TRACE],
        check=True,
        capture_output=True,
        text=True,
        env=environment(cache),
    )
    lines = done.stderr.split("#\n", 1)[1].splitlines()
    costs: Counter[str] = Counter()
    for line in lines:
        own, _, name = line.removeprefix("import time:").split("|")
        costs[name.strip()] += float(own) / 1e3
    return costs.most_common()


def p95(values: list[float]) -> float:
    return percentile(values, 95)


def main() -> None:
    options = parser(__doc__).parse_args()
    count = 15 if options.short else 60
    with TemporaryDirectory() as cache:
        for _ in range(2):  # the first writes the byte code
            sample(cache)
        samples = [sample(cache) for _ in range(count)]
        costs = by_module(cache)
    every = {
        name: [one[at] * 1e3 for one in samples]
        for at, name in enumerate(("import taskiq", f"+ {LINE}", "  its CPU time"))
    }
    loaded = samples[0][3]
    extra = sorted({name for name in loaded if name.split(".")[0] in FORBIDDEN})
    rows = [
        [name, *(f"{figure(taken):.1f}" for figure in (statistics.median, min, p95))]
        for name, taken in every.items()
    ]
    show(["", "median ms", "lowest", "p95"], rows, markdown=options.markdown)
    print()
    dearest = [[name, f"{cost:.2f}"] for name, cost in costs[:15]]
    show([f"of {len(loaded)} modules, the dearest", "own ms"], dearest, markdown=options.markdown)
    taskiq, ours, cpu = every.values()
    result = {
        "what": "import",
        "samples": count,
        "taskiq_ms": statistics.median(taskiq),
        "ours_ms": statistics.median(ours),
        "ours_lowest_ms": min(ours),
        "ours_cpu_ms": statistics.median(cpu),
        "drivers_loaded": extra,
    }
    save("import_time", [result], options)
    if extra:
        raise SystemExit(f"drivers are loaded: {', '.join(extra)}")


if __name__ == "__main__":
    main()
