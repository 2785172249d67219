"""R10: waiters of many processes: woken and not polling, in order, also when some are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from aiotrack import Tracker
from aiotrack.testing.servers import ValkeyServer

SCRIPT = Path(__file__).with_name("waiters.py")
ROOT = SCRIPT.parents[2]


async def commands(client: Any) -> int:
    """Count what the server was asked, without what scripts ask and we do to look."""
    stats = await client.info("commandstats")
    return sum(stats[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "ping") if
               f"cmdstat_{name}" in stats)  # fmt: skip


async def wait_in_processes(folder: Path, processes: int, each: int) -> dict[str, float]:
    """Let them wait in turn, kill a fifth of the processes, and judge who got it when."""
    paths = [folder / f"{number}.jsonl" for number in range(processes)]
    with ValkeyServer() as server:
        tracker = Tracker("sqlite+aiosqlite://", redis=server.url)
        async with Redis.from_url(server.url) as client, tracker.lock("x", ttl=60) as lock:
            running = [
                subprocess.Popen(  # noqa: ASYNC220 - it does not block
                    [sys.executable, str(SCRIPT), server.url, "aiotrack", str(path)],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    text=True,
                )
                for path in paths
            ]
            for number in range(each * processes):
                stdin = running[number % processes].stdin
                assert stdin is not None
                stdin.write(f"{number}\n")
                stdin.flush()
                async with asyncio.timeout(30):
                    while await client.zcard("{aiotrack:locks}:x|queue") <= number:  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
            for one in running:
                assert one.stdin is not None
                one.stdin.close()
            killed = set(random.sample(range(processes), max(1, processes // 5)))
            links = (
                len(await client.client_list()) - 5
            )  # ours: a look, a lock, its messages, a renewer's, its INFO
            before = await commands(client)
            await asyncio.sleep(3)
            rate = (await commands(client) - before) / 3 / (each * processes)
            for number in killed:
                running[number].kill()
            fence = lock.fence
        assert fence
        for one in running:
            await asyncio.to_thread(one.wait, 60)
        await tracker.shutdown()
    lines = [
        json.loads(line)
        for path in paths
        if path.exists()
        for line in path.read_text().splitlines()
    ]
    got = sorted((line["at"], int(line["who"])) for line in lines if "at" in line)
    freed = sorted(line["freed"] for line in lines if "freed" in line)
    living = [n for n in range(each * processes) if n % processes not in killed]
    late = sorted((at - end) * 1000 for (at, _), end in zip(got[1:], freed, strict=False))
    assert living == [who for _, who in got]
    return {
        "rate": rate,
        "links": links / processes,
        "p50": late[len(late) // 2],
        "p99": late[int(len(late) * 0.99)],
    }


@pytest.mark.timeout(60)
async def test_waiters_of_three_processes(tmp_path: Path) -> None:
    """The short form: thirty of them, a process killed."""
    found = await wait_in_processes(tmp_path, 3, 10)

    assert found["rate"] <= 1.3
    assert found["links"] <= 3


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_two_hundred_waiters(tmp_path: Path) -> None:
    """R10 in full: 200 of them in five processes."""
    found = await wait_in_processes(tmp_path, 5, 40)
    print(
        f"200 waiters: in order, {found['rate']:.2f} commands a second each, "
        f"{found['links']:.1f} connections a process, hand-over p50 {found['p50']:.2f} ms, "
        f"p99 {found['p99']:.2f} ms"
    )

    assert found["rate"] <= 1.2
    assert found["links"] <= 3
