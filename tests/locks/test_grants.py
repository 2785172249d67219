"""R01, R02: processes take the same locks by the thousand; every grant is checked afterwards.

Fences are unique and rise in the order in which the lock was entered; two holders at a time are
only where the first one's lease had ended, and it knew.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aiotrack.testing.servers import ValkeyServer

SCRIPT = Path(__file__).with_name("grants.py")
ROOT = SCRIPT.parents[2]


@dataclass
class Verdict:
    """What the lines of a run say.

    ``overlaps`` counts those that are explained, ``violations`` tells the others.
    """

    grants: int = 0
    overlaps: int = 0
    violations: list[str] = field(default_factory=list)


def judge(paths: list[Path]) -> Verdict:
    """Check every grant of a run against its neighbours."""
    grants: dict[str, dict[int, dict]] = defaultdict(dict)
    verdict = Verdict()
    for path in paths:
        for text in path.read_text().splitlines():
            line = json.loads(text)
            known = grants[line["name"]].setdefault(line["fence"], line)
            if "out" not in line and known is not line:
                verdict.violations.append(f"fence {line['fence']} of {line['name']} twice")
            known.update(line)
    for name, by_fence in grants.items():
        before = None
        for fence in sorted(by_fence):
            grant = by_fence[fence]
            verdict.grants += 1
            if before is not None:
                if grant["in"] < before["in"] and not before.get("lost"):
                    verdict.violations.append(f"{name}: {fence} entered before {before['fence']}")
                out = before.get("out")
                if out is not None and out > grant["in"]:
                    if before["lost"]:
                        verdict.overlaps += 1
                    else:
                        verdict.violations.append(
                            f"{name}: {before['fence']} and {fence} for "
                            f"{(out - grant['in']) * 1e3:.1f} ms"
                        )
            before = grant
    return verdict


@dataclass
class Fleet:
    """Processes of holders."""

    url: str
    namespace: str
    folder: Path
    names: int
    holders: int
    seconds: float
    ttl: tuple[float, float]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    def start(self, seconds: float | None = None) -> None:
        """Start one more."""
        path = self.folder / f"{len(self.paths)}.jsonl"
        words = [self.url, self.namespace, str(path), self.names, self.holders]
        words += [self.seconds if seconds is None else seconds, *self.ttl]
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.processes.append(process)
        self.paths.append(path)

    def wait(self) -> Verdict:
        """Wait for the end of all, and judge."""
        for process in self.processes:
            process.wait(timeout=120)
        return judge([path for path in self.paths if path.exists()])


def calm(fleet: Fleet, processes: int) -> Verdict:
    """Let them run undisturbed."""
    for _ in range(processes):
        fleet.start()
    return fleet.wait()


def chaos(fleet: Fleet, processes: int, server: ValkeyServer, *, kills_server: bool) -> Verdict:
    """Pause and kill them, and the server, until their time is over."""
    end = time.monotonic() + fleet.seconds
    for _ in range(processes):
        fleet.start()
    while (left := end - time.monotonic()) > 1:
        time.sleep(random.uniform(0.1, 0.5))
        living = [one for one in fleet.processes if one.poll() is None]
        if not living:
            break
        one, draw = random.choice(living), random.random()
        if draw < 0.6:
            one.send_signal(signal.SIGSTOP)
            time.sleep(random.uniform(0.05, 1.0))
            one.send_signal(signal.SIGCONT)
        elif draw < 0.9 or not kills_server:
            one.kill()
            one.wait()
            fleet.start(left - 0.5)
        else:
            server.kill()
            server.start()
    return fleet.wait()


@pytest.mark.timeout(60)
def test_calm(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    """R01, short: nobody shares a lock, and fences rise."""
    fleet = Fleet(own_valkey.url, "calm", tmp_path, 4, 8, 4.0, (1.0, 5.0))
    verdict = calm(fleet, 3)

    assert [] == verdict.violations
    assert 0 == verdict.overlaps
    assert verdict.grants > 300


@pytest.mark.timeout(90)
def test_pauses_and_kills(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    """R02, short: what is shared was lost before, and its holder knew."""
    fleet = Fleet(own_valkey.url, "chaos", tmp_path, 4, 8, 8.0, (0.1, 0.5))
    verdict = chaos(fleet, 3, own_valkey, kills_server=False)

    assert [] == verdict.violations
    assert verdict.grants > 100


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_two_hundred_thousand_calm_grants(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    """R01: 8 processes, 32 holders each, 16 names."""
    grants = 0
    while grants < 200_000:
        folder = tmp_path / str(grants)
        folder.mkdir()
        verdict = calm(Fleet(own_valkey.url, "calm", folder, 16, 32, 60.0, (5.0, 10.0)), 8)
        assert [] == verdict.violations
        assert 0 == verdict.overlaps
        grants += verdict.grants
        print(f"{grants} calm grants, no violation")


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_fifty_thousand_grants_among_kills(tmp_path: Path) -> None:
    """R02: SIGSTOP, SIGKILL, and a server that is killed and loses its data."""
    grants = overlaps = 0
    with ValkeyServer() as server:
        while grants < 50_000:
            folder = tmp_path / str(grants)
            folder.mkdir()
            fleet = Fleet(server.url, "chaos", folder, 16, 16, 60.0, (0.05, 0.5))
            verdict = chaos(fleet, 4, server, kills_server=True)
            assert [] == verdict.violations
            grants += verdict.grants
            overlaps += verdict.overlaps
            print(f"{grants} grants, {overlaps} overlaps, each explained")


@pytest.mark.parametrize(
    ("lines", "faults", "overlaps"),
    [
        ([(1, 0, 2, False), (2, 2, 3, False)], 0, 0),
        ([(1, 0, 2, False), (2, 1, 3, False)], 1, 0),  # both at once, and nobody knew
        ([(1, 0, 2, True), (2, 1, 3, False)], 0, 1),  # the first had lost it, and knew
        ([(2, 0, 1, False), (1, 2, 3, False)], 2, 0),  # a fence that falls
        ([(1, 0, None, False), (2, 1, 3, False)], 0, 0),  # killed inside
    ],
)
def test_the_judge_sees_faults(
    tmp_path: Path, lines: list[tuple[int, float, float | None, bool]], faults: int, overlaps: int
) -> None:
    """A judge that cannot find fault proves nothing."""
    path = tmp_path / "lines"
    told = []
    for fence, begun, ended, lost in lines:
        told.append({"name": "x", "fence": fence, "in": begun})
        if ended is not None:
            told.append({**told[-1], "out": ended, "lost": lost})
    path.write_text("\n".join(map(json.dumps, told)))
    verdict = judge([path])

    assert (faults, overlaps) == (len(verdict.violations), verdict.overlaps)
