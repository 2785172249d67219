"""A server that wants a token: the page asks for it, and keeps it for its tab."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.dashboard.conftest import Open, Site, serve, stop

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "a-secret-that-only-we-know"
READER = "a-secret-of-those-who-read"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def closed_url(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The same site, behind tokens."""
    tokens = {"AIOTRACK_API_TOKENS": f"{SECRET},read:{READER}"}
    environment = site.environment | tokens
    log = tmp_path_factory.mktemp("closed") / "serve.log"
    server, url = await asyncio.to_thread(serve, environment, log)
    yield url
    await asyncio.to_thread(stop, [server])


async def test_a_token_opens_it(site: Site, closed_url: str, open_page: Open) -> None:
    """Nobody sees anything before; then everything goes on, live, and over a reload."""
    task_id = await site.kiq("add", 1, 1)
    page = await open_page(f"#/execution/{task_id}", url=closed_url)
    await page.get_by_role("textbox", name="Token").fill("no such token that is known")
    await page.get_by_role("button", name="Open").click()
    await expect(page.get_by_text("Nobody has the token that was sent.")).to_be_visible()
    assert await page.get_by_text("shop.add").count() == 0
    await page.get_by_role("textbox", name="Token").fill(SECRET)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("shop.add")
    await expect(page.locator(".live")).to_contain_text("Live")
    await page.reload()
    await expect(page.get_by_role("heading", level=1)).to_have_text("shop.add")
    await page.get_by_role("button", name="Forget the token").click()
    await expect(page.get_by_role("dialog", name="A token is needed")).to_be_visible()

    assert await page.evaluate("sessionStorage.length") == 0
    assert SECRET not in await page.evaluate("JSON.stringify(localStorage) + document.cookie")


async def test_a_report_is_kept(site: Site, closed_url: str, open_page: Open) -> None:
    """As a page of its own, which a plain link without the token could not get."""
    often = [await site.kiq("add", 1, 1) for _ in range(9)]  # it shows the most frequent tasks only
    for task_id in often:
        await site.tracker.wait(task_id, 20)
    page = await open_page("#/overview?range=7d", url=closed_url)
    await page.get_by_role("textbox", name="Token").fill(READER)
    await page.get_by_role("button", name="Open").click()
    await expect(page.locator(".live")).to_contain_text("Live")
    async with page.expect_download() as kept:
        await page.get_by_role("button", name="Report").click()
    download = await kept.value
    text = await asyncio.to_thread(Path(await download.path()).read_text)

    assert "aiotrack-7d.html" == download.suggested_filename
    assert "<h1>Tasks from " in text
    assert "<td>shop.add</td>" in text


async def test_a_reader_is_told_what_he_may_not(
    site: Site, closed_url: str, open_page: Open
) -> None:
    """What a token does not open is said, and nothing is done."""
    task_id = await site.kiq("load", "kept.csv")
    page = await open_page(f"#/execution/{task_id}", url=closed_url)
    await page.get_by_role("textbox", name="Token").fill(READER)
    await page.get_by_role("button", name="Open").click()
    await page.get_by_role("button", name="Cancel …").click()
    await page.get_by_role("button", name="Cancel it").click()
    await expect(
        page.get_by_role("status").get_by_text("this needs the scope operate")
    ).to_be_visible()

    assert not (await site.tracker.get(task_id)).is_completed
    await site.tracker.cancel(task_id)
