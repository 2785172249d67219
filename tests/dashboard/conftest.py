"""A live site: a worker, `aiotrack serve` with the dashboard, and a browser that looks at it.

They start once for each process of the test run. The browser is Debian's package ``chromium``:
where there is none the tests fail, and say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from redis.asyncio import Redis

from aiotrack import Tracker
from tests.dashboard.shop import QUEUE_VARIABLE, Shop

ROOT = Path(__file__).parents[2]
APP = "tests.dashboard.shop:broker"
PATIENCE = 30.0
"""Seconds for a process to come up, and for a page to show something."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

expect.set_options(timeout=PATIENCE * 1000)


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where it all is.

    Attributes:
        url: Of the dashboard.
        environment: Of its processes.
        output: What they print.
        broker: Sends to the worker, from the tests' own loop.
    """

    url: str
    environment: dict[str, str]
    output: Path
    broker: Shop

    @property
    def tracker(self) -> Tracker:
        """On the same database."""
        return self.broker.tracker

    async def kiq(self, name: str, *args: Any, **labels: Any) -> str:
        """Send a task of the shop by its name, and give its id."""
        task = self.broker.find_task(f"shop.{name}")
        assert task is not None
        return (await task.kicker().with_labels(**labels).kiq(*args)).task_id


def start(environment: dict[str, str], output: Path, *command: str) -> subprocess.Popen[bytes]:
    """Run Python with *command*."""
    with output.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask them to end; kill what stays."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 10
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def serve(
    environment: dict[str, str], output: Path, *options: str
) -> tuple[subprocess.Popen[bytes], str]:
    """Start ``aiotrack serve``, and give it with the address of its dashboard."""
    process = start(environment, output, "-m", "aiotrack", "serve", APP, "--port", "0", *options)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        said = output.read_text(errors="replace")
        if found := re.search(r"the dashboard is at (\S+)", said):
            return process, found[1]
        time.sleep(0.05)
    stop([process])
    raise AssertionError(f"aiotrack serve did not come up:\n{output.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def site_database(new_database: Callable[..., Any], postgres_template: str) -> Iterator[str]:
    """The PostgreSQL database of the site."""
    with new_database(postgres_template) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site(
    site_database: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """A worker and ``aiotrack serve``, as processes."""
    queue = f"dash-{secrets.token_hex(4)}"
    environment = {
        "AIOTRACK_DATABASE_URL": site_database,
        "AIOTRACK_REDIS_URL": redis_url,
        "AIOTRACK_NAMESPACE": queue,
        "AIOTRACK_HEARTBEAT_SECONDS": "1",
        QUEUE_VARIABLE: queue,
    }
    folder = tmp_path_factory.mktemp("site")
    output = folder / "worker.log"
    worker = start(
        environment,
        output,
        *("-m", "taskiq", "worker", APP, "--workers", "1", "--max-async-tasks", "20"),
        *("--log-level", "INFO", "--wait-tasks-timeout", "1"),
    )
    processes = [worker]
    broker = Shop(site_database, redis_url, queue)
    try:
        server, url = await asyncio.to_thread(serve, environment, folder / "serve.log")
        processes.append(server)
        await broker.startup()
        yield Site(url=url, environment=environment, output=output, broker=broker)
        await broker.shutdown()
    finally:
        await asyncio.to_thread(stop, processes)
        async with Redis.from_url(redis_url) as redis:
            async for key in redis.scan_iter(f"*{queue}*"):
                await redis.delete(key)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail("no browser for the dashboard's tests: apt-get install chromium", pytrace=False)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """A browser without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


Open = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(
    browser: Browser, site: Site, request: pytest.FixtureRequest
) -> AsyncIterator[Open]:
    """Open a page of the dashboard in a browser of its own; its faults fail the test."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    async def open_page(path: str = "", *, url: str | None = None, **options: Any) -> Page:
        options.setdefault("viewport", {"width": 1280, "height": 860})
        options.setdefault("timezone_id", "Europe/Berlin")
        context = await browser.new_context(**options)
        context.set_default_timeout(PATIENCE * 1000)
        contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: note(said, faults))
        page.on("dialog", lambda dialog: faults.append(f"a dialog opened: {dialog.message}"))
        await page.goto(f"{url or site.url}{path}")
        return page

    yield open_page
    for context in contexts:
        await context.close()
    request.node.add_report_section("call", "worker", tail_of(site.output))
    assert [] == faults


def tail_of(output: Path) -> str:
    """Give the end of what a process said."""
    return output.read_text(errors="replace")[-3000:]


def note(said: Any, faults: list[str]) -> None:
    """Keep what the browser complains about, but for answers that are no success."""
    if said.type == "error" and "Failed to load resource" not in said.text:
        faults.append(said.text)
