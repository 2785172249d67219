"""The server goes, and comes back: the page says so, and goes on by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from tests.dashboard.conftest import Open, Site, serve, stop

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_server_that_is_restarted(site: Site, open_page: Open, tmp_path: Path) -> None:
    """Away, and live again, without a reload; what came meanwhile is there."""
    first, url = await asyncio.to_thread(serve, site.environment, tmp_path / "first.log")
    overview = await open_page(url=url)
    await expect(overview.get_by_role("region", name="Workers")).to_contain_text("alive")
    page = await open_page("#/executions?module=meanwhile", url=url)
    await expect(page.locator(".live")).to_contain_text("Live")
    await page.evaluate("window.isTheSame = true")
    await asyncio.to_thread(stop, [first])
    await expect(page.locator(".live")).to_contain_text("Away")
    await expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    await expect(overview.get_by_role("alert")).to_have_text("the server cannot be reached")
    await expect(overview.get_by_role("region", name="Workers")).to_contain_text("alive")
    task_id = await site.kiq("add", 1, 1, module="meanwhile")
    port = str(urlsplit(url).port)
    second, _ = await asyncio.to_thread(
        serve, site.environment, tmp_path / "second.log", "--port", port
    )
    try:
        await expect(page.locator(f'tbody [title="{task_id}"]')).to_be_visible()
        await expect(page.locator(".live")).to_contain_text("Live")
        await expect(page.get_by_role("alert")).to_have_count(0)
        assert await page.evaluate("window.isTheSame")
    finally:
        await page.close()
        await overview.close()
        await asyncio.to_thread(stop, [second])
