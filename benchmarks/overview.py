"""The dashboard: what it weighs, and how soon it can be used over a million rows.

A real browser (Debian's package chromium) opens pages of `aiotrack serve` over a filled PostgreSQL;
browser, server and database share the machine. A page can be used when its counts, its pictures and
its first rows are there; each time the browser knows nothing of the page before.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filled import fill_postgres
from harness import parser, save, show
from playwright.async_api import Browser, async_playwright

import aiotrack.dashboard
from aiotrack import Tracker
from aiotrack.testing.servers import PostgresServer

STATIC = Path(aiotrack.dashboard.__file__).parent / "static"
GOAL = 1000  # ms

PICTURES = [".tile .value", "svg[aria-label^=Throughput]", "svg[aria-label^=Durations]", "tbody tr"]
PAGES = {
    "overview, 24 hours": ("overview", PICTURES),
    "overview, 30 days": ("overview?range=30d", PICTURES),
    "executions": ("executions", ["tbody tr"]),
    "executions, failed": ("executions?status=FAILURE", ["tbody tr"]),
}


def weight() -> dict[str, int]:
    """Add up all files that the page loads, as they are and as they travel."""
    files = [file.read_bytes() for file in STATIC.rglob("*") if file.is_file()]
    packed = sum(len(gzip.compress(one)) for one in files)
    return {"bytes": sum(map(len, files)), "packed_bytes": packed}


@contextmanager
def served(database: str) -> Iterator[str]:
    """Run ``aiotrack serve``."""
    command = [sys.executable, "-u", "-m", "aiotrack", "serve", "--database", database]
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = None
        while not found:
            found = re.search(r"the dashboard is at (\S+)", process.stdout.readline())
        yield found[1]
    finally:
        process.terminate()
        process.wait(10)


async def opened(browser: Browser, url: str, wanted: list[str]) -> float:
    """Give the seconds from asking for a page until all *wanted* is there."""
    context = await browser.new_context(viewport={"width": 1360, "height": 900})
    page = await context.new_page()
    begun = time.perf_counter()
    await page.goto(url, wait_until="commit")
    for part in wanted:
        await page.wait_for_selector(part)
    took = time.perf_counter() - begun
    await context.close()
    return took


async def measure(url: str, rounds: int) -> dict[str, list[float]]:
    """Open every page several times, in turn."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "apt-get install chromium"
    found: dict[str, list[float]] = {name: [] for name in PAGES}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for number in range(rounds + 1):
            for name, (address, wanted) in PAGES.items():
                took = await opened(browser, f"{url}#/{address}", wanted)
                if number:  # the first warms server and browser up
                    found[name].append(took)
        await browser.close()
    return found


async def run(rows: int, rounds: int) -> list[dict[str, Any]]:
    with PostgresServer() as server:
        async with Tracker(server.url) as tracker:
            await fill_postgres(server.dsn, rows)
            await tracker.roll_up()
        with served(server.url) as url:
            found = await measure(url, rounds)
    return [
        {
            "case": name,
            "rows": rows,
            "ms": statistics.median(took) * 1000,
            "lowest_ms": min(took) * 1000,
            "worst_ms": max(took) * 1000,
            "goal_ms": GOAL,
            **weight(),
        }
        for name, took in found.items()
    ]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=1_000_000)
    options = made.parse_args()
    rows, rounds = (50_000, 2) if options.short else (options.rows, 9)
    os.environ["AIOTRACK_API_TOKENS"] = ""
    results = asyncio.run(run(rows, rounds))
    lines = [
        [one["case"], *(f"{one[name]:.0f}" for name in ("ms", "lowest_ms", "worst_ms", "goal_ms"))]
        for one in results
    ]
    show(["ms until usable", "median", "lowest", "worst", "goal"], lines, markdown=options.markdown)
    print(f"all files: {results[0]['bytes']:,} bytes, {results[0]['packed_bytes']:,} packed")
    save("overview", results, options)


if __name__ == "__main__":
    main()
