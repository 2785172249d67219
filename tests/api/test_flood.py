"""R39: more clients than there are places, some of which read nothing, and a flood of changes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from aiotrack import Tracker
from tests.api.listening import Stream, stream

ROOT = Path(__file__).parents[2]
MEBIBYTE = 2**20

ID = re.compile(rb"\nid: (\d+)\n")
RETRY = re.compile(rb"retry: (\d+)\n")


@dataclass
class Flood:
    """A server that shows what a writer makes."""

    url: str
    server: psutil.Process
    settings: tuple[str, str, str]
    first: int = 0
    grown: int = 0

    async def write(self, rate: float, seconds: float) -> int:
        """Let another process make changes; give how many executions there were."""
        told = await run("write", *self.settings, str(rate), str(seconds))
        assert told.stdout is not None
        number = int(await told.stdout.read())
        await told.wait()
        return number

    async def grow(self) -> None:
        """Note by how many bytes the server's memory grew, at most."""
        while True:
            self.grown = max(self.grown, self.server.memory_info().rss - self.first)
            await asyncio.sleep(0.1)


async def run(*arguments: str) -> asyncio.subprocess.Process:
    """Start one of the processes."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.api.flooded", *arguments), cwd=ROOT, stdout=subprocess.PIPE
    )


@contextlib.asynccontextmanager
async def flood(database: str, redis: str, namespace: str, patience: float) -> AsyncIterator[Flood]:
    """Start the server, warm."""
    settings = (database, redis, namespace)
    process = await run("serve", *settings, str(patience))
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        url = f"http://127.0.0.1:{port}/api/v1"
        made = Flood(url, psutil.Process(process.pid), settings)
        async with httpx.AsyncClient() as client:
            for _ in range(100):
                await client.get(f"{url}/executions/")
        for _ in range(20):
            async with stream(f"{url}/executions/events/?module=flood") as told:
                await told.next()
        made.first = made.server.memory_info().rss
        yield made
    finally:
        process.terminate()
        await process.wait()


@dataclass
class Viewer:
    """Reads as fast as it can, and comes back when it is told to."""

    url: str
    events: int = 0
    resets: int = 0
    returns: int = 0
    last_id: str = ""
    wait: float = 1.0
    has_last: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self, first: Stream) -> None:
        """Read from the stream that is open, and then from others."""
        await self._read(first)
        while True:
            self.returns += 1
            await asyncio.sleep(self.wait)
            async with stream(self.url, {"last-event-id": self.last_id}) as again:
                if again.status == 200:
                    await self._read(again)

    async def _read(self, opened: Stream) -> None:
        left = b"\n"
        while piece := await opened._reader.read(2**16):
            self.events += piece.count(b"\nevent: execution\n")
            self.resets += piece.count(b"\nevent: reset\n")
            left += piece
            if b'"task_id":"the-last"' in left:
                self.has_last.set()
            for match in ID.finditer(left):
                self.last_id = match[1].decode()
            for match in RETRY.finditer(left):
                self.wait = int(match[1]) / 1000
            left = left[-4096:]


async def test_a_flood_of_events(postgres_url: str, redis_url: str, queue_name: str) -> None:
    """The short form: few clients, some of which read nothing."""
    async with flood(postgres_url, redis_url, queue_name, 0.5) as made:
        told = await flooded(made, clients=24, stalled=6, rate=900, seconds=2, patience=0.5)

    assert told["closed"] == 6
    assert told["grown"] <= 64 * MEBIBYTE
    assert told["answers"] == {200}


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_flood_of_events_for_long(
    postgres_url: str, redis_url: str, queue_name: str
) -> None:
    """500 clients for 200 places, 50 that read nothing, as many changes as this machine makes."""
    async with flood(postgres_url, redis_url, queue_name, 10.0) as made:
        told = await flooded(made, clients=500, stalled=50, rate=5000, seconds=60, patience=10.0)

    print(told)
    assert told["refused"] == 300
    assert told["closed"] == 50
    assert told["grown"] <= 64 * MEBIBYTE
    assert told["answers"] == {200}


async def flooded(
    made: Flood, *, clients: int, stalled: int, rate: float, seconds: float, patience: float
) -> dict[str, Any]:
    """Open streams, let changes come, and tell what became of it all."""
    url = f"{made.url}/executions/events/?module=flood"
    answers: set[int] = set()
    async with contextlib.AsyncExitStack() as stack:

        async def enter(buffer: int | None = None) -> Stream:
            return await stack.enter_async_context(stream(url, buffer=buffer))

        idle = [await enter(4096) for _ in range(stalled)]
        readers = [await enter() for _ in range(clients - stalled)]
        refused = [one for one in readers if one.status != 200]
        assert all((503, "5") == (one.status, one.headers["retry-after"]) for one in refused)
        viewers = [Viewer(url) for one in readers if one.status == 200]
        open_ones = [one for one in readers if one.status == 200]
        watching = [
            asyncio.create_task(viewer.watch(one))
            for viewer, one in zip(viewers, open_ones, strict=True)
        ]
        writing = asyncio.create_task(made.write(rate, seconds))
        growing = asyncio.create_task(made.grow())
        slowest = 0.0
        async with httpx.AsyncClient(timeout=30) as client:
            while not writing.done():
                begun = time.monotonic()
                answers.add((await client.get(f"{made.url}/executions/?limit=5")).status_code)
                slowest = max(slowest, time.monotonic() - begun)
                await asyncio.sleep(0.2)
        written = await writing
        closed = await ended(idle, 2 * patience + 3)
        async with Tracker(
            made.settings[0], redis=made.settings[1], settings={"namespace": made.settings[2]}
        ) as tracker:
            await tracker.register("the-last", "flood:noop", status="success")
            async with asyncio.timeout(60):
                while not all(viewer.has_last.is_set() for viewer in viewers):
                    # Who was told to read anew, and had not come back, missed it: he would list.
                    await asyncio.sleep(1)
                    await tracker.update("the-last", metadata={"again": time.time()})
        for task in (*watching, growing):
            task.cancel()
        await asyncio.gather(*watching, growing, return_exceptions=True)
    return {
        "refused": len(refused),
        "closed": closed,
        "written": written,
        "events": sum(viewer.events for viewer in viewers),
        "fewest": min(viewer.events for viewer in viewers),
        "returns": sum(viewer.returns for viewer in viewers),
        "resets": sum(viewer.resets for viewer in viewers),
        "grown": made.grown,
        "answers": answers,
        "slowest": round(slowest, 2),
    }


async def ended(idle: list[Stream], seconds: float) -> int:
    """Read at last: give how many of those streams had been closed within so many seconds."""

    async def drained(one: Stream) -> bool:
        with contextlib.suppress(ConnectionError):
            while await one._reader.read(2**16):
                pass
        return True

    await asyncio.sleep(seconds / 3)
    done, _ = await asyncio.wait(
        [asyncio.create_task(drained(one)) for one in idle], timeout=seconds * 2 / 3
    )
    return len(done)
