"""One SQLite file, four worker processes, two sending web processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiotrack import TaskStatus
from tests.acceptance.conftest import ROOT, Workers
from tests.acceptance.kinds import time_faults
from tests.waits import until

pytestmark = pytest.mark.timeout(120)

SENDS = 150
PAUSE = 0.01
P99_BOUND = 0.5
"""Seconds; generous, since tests share the machine: benchmarks/sqlite_processes.py measures."""


def start_sender(workers: Workers, first: int) -> subprocess.Popen[str]:
    """Start a web process whose output is one JSON object."""
    with workers.output.open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.sender", str(first), str(SENDS), str(PAUSE)],
            cwd=ROOT,
            env=workers.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


async def test_six_processes_share_one_file(
    start_project: Callable[..., Any], sqlite_url: str, tmp_path: Path
) -> None:
    """Nobody meets 'database is locked', sends stay quick, and every record is right."""
    async with start_project(sqlite_url) as (project, workers):
        workers.worker(4)
        senders = [start_sender(workers, first) for first in (0, 10_000)]
        told = [
            json.loads(output)
            for output, _ in await asyncio.gather(
                *(asyncio.to_thread(sender.communicate) for sender in senders)
            )
        ]

        async def done() -> bool:
            stats = await project.tracker.stats()
            return bool(stats.success == 2 * SENDS)

        await until(f"{2 * SENDS} successes", done, 60)
        wrong = {}
        for first, web in zip((0, 10_000), told, strict=True):
            for number, task_id in enumerate(web["ids"], first):
                record = await project.tracker.get(task_id)
                faults = time_faults(record)
                fields = (record.status, record.args, record.kwargs, record.result)
                result = {"sum": number + 1, "note": "from the web"}
                note = {"note": "from the web"}
                if fields != (TaskStatus.SUCCESS, [number], note, result):
                    faults.append(str(fields))
                if (record.created_by, record.metadata, record.runs, record.attempt) != (
                    *(f"web-{first}", {"order_id": number}, 1, 1),
                ):
                    faults.append(f"{record.created_by} {record.metadata} {record.runs}")
                if faults:
                    wrong[task_id] = faults
        total = (await project.tracker.stats()).total

    took = sorted(second for web in told for second in web["took"])
    p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
    print(
        f"a send: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, worst {took[-1] * 1000:.1f} ms"
    )

    assert {} == dict(list(wrong.items())[:10])
    assert 2 * SENDS == total
    assert [0, 0] == [sender.returncode for sender in senders]
    assert [] == workers.trouble()
    assert p99 < P99_BOUND
