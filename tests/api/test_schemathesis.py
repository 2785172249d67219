"""R37: the OpenAPI document is true, and nothing that anybody sends is an error of the server's.

schemathesis reads the document of a live server on PostgreSQL and sends what it allows and what it
forbids, alone and in sequences, with all its checks but what the file beside this one says: no
status that is not documented, no answer that is not as its model says, nothing open to whoever has
no token, no 5xx.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from aiotrack import Tracker
from tests.client.site import Apart

SECRET = "y" * 24
HERE = Path(__file__).parent
LEAST = 100
"""Requests of a run; fewer say nothing."""
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.mark.no_cover
@pytest.mark.timeout(120)
async def test_the_document_is_true(
    postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """For some seconds, the same requests each time."""
    await fuzz(postgres_url, redis_url, queue_name, tmp_path, 12, "--seed", "7")


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_the_document_is_true_for_long(
    postgres_url: str, redis_url: str, queue_name: str, tmp_path: Path
) -> None:
    """For minutes, other requests each time."""
    await fuzz(postgres_url, redis_url, queue_name, tmp_path, 300)


async def fuzz(
    database: str, redis: str, namespace: str, folder: Path, seconds: int, *options: str
) -> None:
    """Ask a server with some executions for so many seconds."""
    async with Tracker(database) as tracker:
        for number, status in enumerate(("queued", "started", "done", "failed")):
            await tracker.register(f"a/{number}", "shop.tasks:bill", status=status)
    server = Apart(
        database,
        redis,
        *("tests.api.fuzzed:broker", "--token", f"me:admin:{SECRET}"),
        AIOTRACK_NAMESPACE=namespace,
    )
    await server.start()
    try:
        code, asked, told = await asyncio.to_thread(ask, server.url, folder, seconds, *options)
        if code == 0 and asked <= LEAST:  # a busy machine needs longer for as many
            long = 4 * seconds
            code, asked, told = await asyncio.to_thread(ask, server.url, folder, long, *options)
        headers = {"authorization": f"Bearer {SECRET}"}
        async with httpx.AsyncClient(headers=headers) as client:
            assert 200 == (await client.get(f"{server.url}/api/v1/health/ready")).status_code
    finally:
        await server.kill()
    assert 0 == code, told
    assert asked > LEAST, told


def ask(url: str, folder: Path, seconds: int, *options: str) -> tuple[int, int, str]:
    """Give how it ended, how many requests were made, and what was said."""
    done = subprocess.run(
        [
            *(str(SCHEMATHESIS), "--config-file", str(HERE / "schemathesis.toml")),
            *("run", f"{url}/api/v1/openapi.json"),
            *("-H", f"Authorization: Bearer {SECRET}"),
            *("--exclude-path-regex", "events/$"),  # they never end
            *("--max-time", str(seconds), "--continue-on-failure", "--request-timeout", "20"),
            *("--no-color", "--warnings", "off", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout + done.stderr
    asked = re.search(r"(\d+) generated", told)
    return done.returncode, int(asked[1]) if asked else 0, told
