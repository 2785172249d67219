"""What eyes and screen readers find: names, contrasts, headings, room on a phone."""

from __future__ import annotations

from importlib.resources import files

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.dashboard.conftest import Open, Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")

FOUND = """async (rules) => (await axe.run(document, rules)).violations
  .filter((one) => one.impact === "serious" || one.impact === "critical")
  .map(({id, nodes}) => `${id}: ` + nodes.map((one) => one.html + one.any.map((it) => it.message)))
"""

RULES: dict[str, dict[str, object]] = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}
"""Names and headings are the same in the dark."""

WIDER = """() => [document.documentElement, ...document.querySelectorAll(".panel, .cell")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1)
  .map((one) => `${one.nodeName}.${one.className} by ${one.scrollWidth - one.clientWidth}`)"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pages(site: Site) -> list[str]:
    """Addresses of every page, with something on each."""
    failed = await site.kiq("decline", 1)
    running = await site.kiq("load", "a file with a long name that goes on and on.csv", 300.0)
    await site.kiq("hold", "a-lock", 300.0)
    told = {"progress_percent": 40, "progress_message": "more than a line has room for " * 9}
    await site.tracker.register("l" * 90, "long.name_" * 20, status="STARTED", metadata=told)
    made = await site.tracker.definitions.create(
        name="a schedule", task_type="shop.tidy", schedule_kind="interval", schedule={"seconds": 60}
    )
    await site.tracker.schedules.start(made.id)
    await site.tracker.wait(failed, 20)
    return [
        *("overview", "executions", "executions?since=never", "workers", "schedules"),
        *("queues", "locks", "settings", "audit", "nowhere"),
        *(f"execution/{failed}", f"execution/{running}"),
    ]


async def test_every_page(pages: list[str], open_page: Open) -> None:
    """No serious fault in the light and in the dark; no sideways scrolling on a phone."""
    page = await open_page()
    await page.evaluate(AXE)
    faults: dict[str, object] = {}
    for path in pages:
        await page.evaluate("(hash) => { location.hash = hash }", f"#/{path}")
        shown = page.locator("main :is(table, .empty, [role=alert], p a)").first
        await expect(shown).to_be_visible()
        for theme, rules in RULES.items():
            await page.get_by_label("Colours").select_option(theme)
            if found := await page.evaluate(FOUND, rules):
                faults[f"{path}, {theme}"] = found
        for width in (360, 768, 905, 1105, 1245, 1280):
            await page.set_viewport_size({"width": width, "height": 860})
            if wider := await page.evaluate(WIDER):
                faults[f"{path}, {width} pixels"] = wider

    assert [] == [f"{where}: {what}" for where, what in faults.items()]


async def test_a_dialog(pages: list[str], open_page: Open) -> None:
    """What asks before it acts is named, and found faultless, too."""
    page = await open_page(f"#/{pages[-1]}")
    await page.get_by_role("button", name="Cancel …").click()
    await expect(page.get_by_role("dialog", name="Cancel this execution?")).to_be_visible()
    await page.evaluate(AXE)

    assert [] == await page.evaluate(FOUND, {})


async def test_a_dialog_with_faults(pages: list[str], open_page: Open) -> None:
    """A form whose fields were refused is faultless in both colours, and fits on a phone."""
    page = await open_page("#/schedules", viewport={"width": 360, "height": 800})
    await page.get_by_role("button", name="New definition …").click()
    dialog = page.get_by_role("dialog", name="New definition")
    await dialog.get_by_role("textbox", name="Name").fill("a schedule")
    await dialog.get_by_label("Task").fill("no.such.task")
    await dialog.get_by_role("button", name="Create").click()
    await expect(dialog.locator(".fault")).not_to_have_count(0)
    await page.evaluate(AXE)
    for theme in RULES:
        await page.evaluate("(theme) => { document.documentElement.dataset.theme = theme }", theme)
        assert [] == await page.evaluate(FOUND, {})

    assert 0 >= await dialog.evaluate("(box) => box.scrollWidth - box.clientWidth")


async def test_states_are_told_without_colour(open_page: Open) -> None:
    """Each status has a sign and a word; failures in pictures are hatched."""
    page = await open_page("#/executions")
    badges = await page.locator(".check .badge").all_inner_texts()

    assert 6 == len({text.split()[0] for text in badges})
    assert {"PENDING", "STARTED", "SUCCESS", "FAILURE", "RETRY", "REVOKED"} == {
        text.split()[1] for text in badges
    }
    assert 1 == await page.locator("pattern#hatch").count()
