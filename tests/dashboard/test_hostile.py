"""R36: whatever stands in a record, the page shows it as text."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect

from aiotrack import Execution
from tests.dashboard.conftest import Open, Site
from tests.dashboard.hostile import TEXTS

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOWN = "() => [...document.querySelectorAll('bdi')].map((one) => one.textContent)"

FOREIGN = """() => {
  const made = "script, img, iframe, object, embed, video, style, base, form[action], math";
  return [...document.body.querySelectorAll(made)].map((one) => one.outerHTML)
    .concat([...document.querySelectorAll("a[href]")].map((one) => one.getAttribute("href"))
      .filter((href) => !href.startsWith("#")))
    .concat([...document.querySelectorAll("*")].flatMap((one) => one.getAttributeNames())
      .filter((name) => name.startsWith("on") || name === "style"))
    .concat(window.pwned ? [`${window.pwned} scripts ran`] : []);
}"""


async def check(page: Page, site: Site, texts: list[str]) -> None:
    """See that all these stand on the page, and nothing was made of them."""
    shown = await page.evaluate(SHOWN)

    assert [] == await page.evaluate(FOREIGN)
    assert [] == [text for text in texts if not any(text in one for one in shown)]
    assert page.url.startswith(site.url)


@pytest.fixture
async def records(site: Site) -> list[Execution]:
    """An execution for each text, which has it in every field that anybody can fill."""

    async def record(number: int, text: str) -> Execution:
        key = f"{number}{text}"
        await site.tracker.register(
            key,
            text,
            module="hostile",
            args=[text, {text: text}],
            kwargs={text: text},
            created_by=text,
            metadata={text: text, "progress_message": text, "progress_step": text},
            status="STARTED",
        )
        return await site.tracker.update(key, "FAILURE", error=text, traceback=text)

    return await asyncio.gather(*(record(*one) for one in enumerate(TEXTS)))


async def test_lists(site: Site, open_page: Open, records: list[Execution]) -> None:
    """Names, ids and people are text in a list, on a screen and on a phone."""
    page = await open_page("#/executions?module=hostile&page_size=200")
    assert len(set(TEXTS)) >= 60
    await expect(page.locator("tbody tr")).to_have_count(len(TEXTS))
    await check(page, site, [one.task_name for one in records])
    await check(page, site, [str(one.created_by) for one in records])
    await page.set_viewport_size({"width": 360, "height": 800})

    assert 0 >= await page.evaluate("document.body.scrollWidth - window.innerWidth")


async def test_one_execution(site: Site, open_page: Open, records: list[Execution]) -> None:
    """Every field of a record is text, whatever its task_id is."""
    page = await open_page()
    for record in records[::8] + records[-12::2]:
        await page.evaluate("(hash) => { location.hash = hash }", address(record))
        await expect(page.locator(".head .badge")).to_have_text("✕ FAILURE")
        title = page.get_by_role("heading", level=1)
        await expect(title).to_have_text(record.task_name, use_inner_text=False)
        await check(page, site, [record.task_id, record.task_name, str(record.error)])


def address(record: Execution) -> str:
    """Give the address of an execution's page."""
    return f"#/execution/{quote(record.task_id, safe='')}"


async def test_ids_that_no_address_has(site: Site, open_page: Open) -> None:
    """Half a character, and dots that browsers resolve: they are opened by their number."""
    ids = {"odd.half": "\ud800x", "odd.dot": ".", "odd.dots": ".."}
    for name, task_id in ids.items():
        status = "STARTED" if name == "odd.half" else "PENDING"
        await site.tracker.register(task_id, name, status=status)
    page = await open_page("#/overview")
    running = page.get_by_role("region", name="Running now")
    await expect(running.get_by_role("link", name="odd.half")).to_be_visible()
    for name in ids:
        await page.goto(f"{site.url}#/executions?module=odd")
        await expect(page.locator("tbody tr")).to_have_count(3)
        await page.get_by_role("link", name=name, exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
        await expect(page).to_have_url(re.compile(r"#/execution\?number=\d+$"))
        await expect(page.locator(".live")).to_contain_text("Live")
        await page.get_by_label("Level").select_option("ERROR")
        await expect(page).to_have_url(re.compile(r"level=ERROR&number=\d+$"))
    await page.get_by_role("button", name="Cancel …").click()
    await page.get_by_role("button", name="Cancel it").click()
    await expect(page.locator(".head .badge")).to_have_text("⊘ REVOKED")
    await site.tracker.update(ids["odd.half"], "SUCCESS")

    assert (await site.tracker.get("..")).is_completed
    assert [] == await page.evaluate(FOREIGN)


async def test_separators_in_an_event(site: Site, open_page: Open) -> None:
    """U+2028 ends a line for a regular expression, and none of a stream of events."""
    await site.tracker.register("separated", "odd.lines", module="separated", status="STARTED")
    page = await open_page("#/executions?module=separated")
    await expect(page.locator(".live")).to_contain_text("Live")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.route("**/executions/?*", lambda route: route.abort())  # it has events alone
    told = {"progress_percent": 10, "progress_message": "one\u2028two\u2029three"}
    await site.tracker.update("separated", metadata=told)
    await expect(page.locator("tbody tr")).to_contain_text("three")
    await site.tracker.update("separated", "SUCCESS")


async def test_what_a_worker_says(site: Site, open_page: Open) -> None:
    """Logs, results and errors of real runs are text."""
    ids = [await site.kiq("echo", TEXTS, text) for text in TEXTS[:2]]
    for task_id in ids:
        await site.tracker.wait(task_id, 20)
        page = await open_page(f"#/execution/{task_id}")
        await expect(page.locator(".log li")).to_have_count(1)
        await check(page, site, [TEXTS[ids.index(task_id)]])


async def test_definitions_locks_and_reasons(site: Site, open_page: Open) -> None:
    """So it is on every other page."""
    texts = [text for text in TEXTS[::6] if len(text) < 150]
    names = [f"{number} {text}" for number, text in enumerate(texts)]
    for name in names:
        made = await site.tracker.definitions.create(
            name=name.replace("\n", " "), task_type="shop.tidy", description=name, by=name
        )
        await site.tracker.definitions.delete(made.id, by=name)
        await site.tracker.definitions.create(
            name=name.replace("\n", " "), task_type="shop.tidy", description=name
        )
    holder = await site.kiq("hold", "hostile", 60.0, texts[3])
    page = await open_page("#/schedules")
    await expect(page.locator("tbody tr", has_text=names[-1])).to_be_visible()
    await check(page, site, names)
    await page.goto(f"{site.url}#/audit")
    await expect(page.locator("tbody tr").first).to_be_visible()
    await check(page, site, names)
    await page.goto(f"{site.url}#/locks")
    await expect(page.locator("tbody tr", has_text="hostile/")).to_be_visible()
    await check(page, site, [texts[3]])
    await site.tracker.cancel(holder)


async def test_addresses(site: Site, open_page: Open) -> None:
    """What stands in the address is text, too, also where it is wrong."""
    page = await open_page()
    told: list[Any] = []
    for text in TEXTS[::7]:
        given = quote(text[:300], safe="")
        for hash_ in (
            f"#/execution/{given}",
            f"#/executions?text={given}&since={given}&metadata.{given}={given}",
            f"#/{given}",
        ):
            await page.evaluate("(hash) => { location.hash = hash }", hash_)
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            told += await page.evaluate(FOREIGN)

    assert [] == told
