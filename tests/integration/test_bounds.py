"""R21: a database that is away from the start takes bounded memory and disk; losses are counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aiotrack import Tracker
from aiotrack.journal import MAX_BYTES
from aiotrack.recorder import GROUP
from aiotrack.settings import Settings
from aiotrack.testing.servers import PostgresServer
from tests.integration.flood import LIMIT_VARIABLE

ROOT = Path(__file__).parents[2]

MEMORY = 32 * 1024 * 1024
"""Bytes that a process may take more while its database is away."""

SMALL, DISK = 4_000, 256 * 1024
"""Reports that memory takes, and bytes that the full disk does, in the short forms."""

LITTLE = {"AIOTRACK_MAX_BACKLOG": str(SMALL)}

ROWS = """
    SELECT md5(string_agg(told, ',' ORDER BY told)) FROM (
        SELECT execution::text AS told FROM aiotrack_executions execution
        UNION ALL SELECT run::text FROM aiotrack_attempts run
    ) every
"""


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[dict[str, str]]:
    """Mount a disk of so many bytes; where that is forbidden, give the limit of a file instead."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    is_mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield {} if is_mounted else {LIMIT_VARIABLE: str(size)}
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def flooding(url: str, folder: Path, count: int, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that reports so much."""
    environment = os.environ | {"AIOTRACK_DATABASE_URL": url, "AIOTRACK_JOURNAL_DIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.flood", str(count)],
        cwd=ROOT,
        env=environment | more,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for what a process tells."""
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def go_on(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Let the process write what is left; give what it tells then."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    told = hear(process)
    process.wait()
    return told


def wait_empty(folder: Path) -> None:
    """Wait until no journal is left."""
    while list(folder.rglob("*.journal")):
        time.sleep(0.05)


async def replay_again(url: str, journals: Path, copies: Path) -> tuple[str, str]:
    """Replay copies of journals that were replayed; give digests of all rows before and after."""
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg:", "postgresql:", 1))
    before = await connection.fetchval(ROWS)
    shutil.copytree(copies, journals, dirs_exist_ok=True)
    async with Tracker(url, settings={"journal_dir": str(journals)}):
        await asyncio.to_thread(wait_empty, journals)
    after = await connection.fetchval(ROWS)
    await connection.close()
    return before, after


async def recorded(url: str) -> dict[str, list[int]]:
    """Give the numbers of the tasks that are recorded, in order, by what was reported of them."""
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg:", "postgresql:", 1))
    found: dict[str, list[int]] = {"sent": [], "started": [], "ended": []}
    for (task_id,) in await connection.fetch("SELECT task_id FROM aiotrack_executions"):
        kind, _, number = task_id.partition("-")
        found[kind].append(int(number))
    await connection.close()
    return {kind: sorted(numbers) for kind, numbers in found.items()}


async def survive(
    server: PostgresServer, folder: Path, count: int, **more: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[int]], tuple[str, str]]:
    """Flood while the database is away, have it back, and replay twice what the journal had."""
    await asyncio.to_thread(server.kill)
    begun = time.monotonic()
    with flooding(server.url, folder, count, **more) as process:
        away = await asyncio.to_thread(hear, process)
        took = time.monotonic() - begun
        copies = folder.with_name("copies")
        shutil.copytree(folder, copies)
        await asyncio.to_thread(server.start)
        begun = time.monotonic()
        back = await asyncio.to_thread(go_on, process)
        replayed = time.monotonic() - begun
    told = await recorded(server.url)
    digests = await replay_again(server.url, folder, copies)
    print(
        f"{count} reports in {took:.0f} s: memory + {away['memory'] / 2**20:.1f} MB, journal "
        f"{away['journal'] / 2**20:.1f} MB, {away['backlog']} in memory, "
        f"{away['counters'].get('dropped', 0)} dropped; written in {replayed:.0f} s, "
        f"memory + {back['memory'] / 2**20:.1f} MB; {back['counters']}"
    )
    return away, back, told, digests


def check(
    count: int,
    away: dict[str, Any],
    back: dict[str, Any],
    told: dict[str, list[int]],
    backlog: int = SMALL,
) -> None:
    """Check bounds, counts and the order of sacrifice."""
    counters = back["counters"]
    rows = sum(len(numbers) for numbers in told.values())

    assert back["flushed"]
    assert back["memory"] <= MEMORY
    assert away["journal"] <= MAX_BYTES
    assert count + 1 == counters["reports"]
    assert count + 1 == rows + counters["dropped"]
    for kind, numbers in told.items():
        sent = count // 3 + (kind == "sent")
        assert sent == len(numbers) + counters.get(f"dropped_{kind}", 0), kind
    if counters["dropped_ended"]:
        lesser = len(told["sent"]) + len(told["started"])
        assert lesser <= backlog // 20 + 3 * GROUP
        missing = sorted(set(range(count // 3)) - set(told["ended"]))
        holes = missing[-1] - missing[0] + 1 - len(missing)
        assert holes <= GROUP, "not the oldest of memory went first"
        assert missing[-1] < told["ended"][-1]


@pytest.mark.timeout(120)
async def test_a_database_that_is_away_takes_bounded_memory(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """R21: 12,000 reports: final ones in the journal, the newest others in memory, once each."""
    away, back, told, digests = await survive(own_postgres, tmp_path / "journals", 12_000, **LITTLE)

    check(12_000, away, back, told)
    assert 0 == back["counters"]["dropped_ended"]
    assert 0 < back["counters"]["dropped_sent"]
    assert digests[0] == digests[1]


@pytest.mark.timeout(120)
async def test_a_full_disk_costs_starts_before_final_reports(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """R21: the journal's disk is full after 256 KB: memory takes ends, starts are dropped."""
    with small_disk(tmp_path / "journals", DISK) as limit:
        away, back, told, digests = await survive(
            own_postgres, tmp_path / "journals", 9_000, **limit, **LITTLE
        )

    check(9_000, away, back, told)
    assert away["journal"] <= DISK
    assert away["counters"]["journaled"] < 3_000, "the disk was not full"
    assert 0 == back["counters"]["dropped_ended"]
    assert 0 < back["counters"]["dropped_sent"]
    assert digests[0] == digests[1]


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("disk", [None, 16 * 1024 * 1024])
async def test_a_million_reports_without_a_database(
    own_postgres: PostgresServer, tmp_path: Path, disk: int | None
) -> None:
    """R21: 999,999 reports, with a whole disk and with one of 16 MB for the journal."""
    folder = tmp_path / "journals"
    with small_disk(folder, disk) if disk else contextlib.nullcontext({}) as limit:
        away, back, told, digests = await survive(own_postgres, folder, 999_999, **limit)

    check(999_999, away, back, told, Settings().max_backlog)
    assert 0 < back["counters"]["dropped_ended"], "memory and journal were not full"
    assert digests[0] == digests[1]
