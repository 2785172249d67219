"""Every page against a live server and worker, in a real browser."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

import pytest
from playwright.async_api import expect

from aiotrack import TaskStatus
from tests.dashboard.conftest import Open, Site
from tests.waits import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_progress_moves_and_a_cancel_ends_it(site: Site, open_page: Open) -> None:
    """The page of a running task is never loaded again, and shows each step and the end."""
    task_id = await site.kiq("load", "orders.csv")
    page = await open_page(f"#/execution/{task_id}")
    bar = page.get_by_role("progressbar", name="Progress")
    await expect(page.get_by_role("heading", level=1)).to_have_text("shop.load")
    await expect(page.locator(".live")).to_contain_text("Live")
    seen = set()
    for _ in range(3):
        seen.add(now := await bar.get_attribute("value"))
        await expect(bar).not_to_have_attribute("value", now or "")
    await expect(page.locator(".log")).to_contain_text("row 2 of orders.csv")
    await page.get_by_role("button", name="Cancel …").click()
    await page.get_by_label("Reason").fill("the wrong file")
    await page.get_by_role("button", name="Cancel it").click()
    await expect(page.locator(".head .badge")).to_have_text("⊘ REVOKED")
    await expect(page.locator(".facts")).to_contain_text("the wrong file")

    assert len(seen) == 3
    assert TaskStatus.REVOKED is (await site.tracker.get(task_id)).status


async def test_a_log_grows_without_events(site: Site, open_page: Open) -> None:
    """What a task logs that tells no progress is shown within seconds, again and again."""
    task_id = await site.kiq("mutter")
    page = await open_page(f"#/execution/{task_id}")
    await expect(page.locator(".live")).to_contain_text("Live")
    lines = page.locator(".log li")
    for _ in range(4):
        shown = await lines.count()
        await expect(lines.nth(shown)).to_be_visible(timeout=8000)
    await site.tracker.cancel(task_id)


async def test_rerun_leads_to_the_new_one(site: Site, open_page: Open) -> None:
    """What is over is sent once more, and the two are linked."""
    task_id = await site.kiq("add", 2, 3)
    await site.tracker.wait(task_id, 20)
    page = await open_page(f"#/execution/{task_id}")
    await expect(page.locator(".head .badge")).to_have_text("✓ SUCCESS")
    await page.get_by_role("button", name="Rerun …").click()
    await page.get_by_role("button", name="Rerun", exact=True).click()
    await expect(page.get_by_text("Rerun of")).to_be_visible()
    await expect(page.locator(".head .badge")).to_have_text("✓ SUCCESS")

    assert task_id not in page.url
    assert await page.locator(f'a[title="{task_id}"]').count() == 1


async def test_an_error_is_shown_with_its_traceback(site: Site, open_page: Open) -> None:
    """Why it failed is said in words, and where."""
    task_id = await site.kiq("decline", 7)
    await site.tracker.wait(task_id, 20)
    page = await open_page(f"#/execution/{task_id}")

    await expect(page.locator(".error")).to_contain_text("order 7 was declined")
    await expect(page.get_by_label("Traceback", exact=True)).to_contain_text("raise ValueError")
    await expect(page.get_by_role("img", name="Attempts: attempt 1")).to_be_visible()


async def test_what_is_presumed_may_be_cancelled(site: Site, open_page: Open) -> None:
    """A sweep's verdict is no end: it may still run, and all that is done to a run may be done."""
    began = datetime(2020, 1, 1, tzinfo=UTC)
    task_id = "presumed"
    await site.tracker.register(
        task_id, "shop.gone", status="STARTED", created_at=began, started_at=began
    )
    await site.tracker.mark_timed_out(timeout_minutes=60 * 24 * 365)
    page = await open_page(f"#/execution/{task_id}")
    await expect(page.locator(".head")).to_contain_text("presumed")
    await expect(page.get_by_role("button", name="Sync")).to_be_visible()
    await page.get_by_role("button", name="Cancel …").click()
    await expect(page.get_by_role("dialog")).to_contain_text("it may still run")
    await page.get_by_role("button", name="Cancel it").click()

    async def is_done() -> bool:
        deeds = await site.tracker.audit.list(action="execution.cancel")
        return f"execution:{task_id}" in [one.target for one in deeds.items]

    await until("its cancel", is_done)


async def test_rows_come_move_and_rest(site: Site, open_page: Open) -> None:
    """A list shows what is sent while it is open; paused it does not, until it goes on."""
    page = await open_page("#/executions?task_name=shop.load")
    await expect(page.locator(".live")).to_contain_text("Live")
    first = await site.kiq("load", "live.csv", 60.0)
    row = page.locator("tbody tr", has=page.locator(f'[title="{first}"]'))
    bar = row.get_by_role("progressbar")
    await expect(row).to_be_visible()
    before = await bar.get_attribute("value")
    await expect(bar).not_to_have_attribute("value", before or "")
    await page.get_by_role("button", name="Pause live changes").click()
    await expect(page.locator(".live")).to_contain_text("Paused")
    second = await site.kiq("load", "more.csv", 60.0)
    rests = await bar.get_attribute("value")
    await asyncio.sleep(1.5)
    assert rests == await bar.get_attribute("value")
    assert await page.locator(f'[title="{second}"]').count() == 0
    await page.get_by_role("button", name="Go on with live changes").click()

    await expect(page.locator(f'tbody [title="{second}"]')).to_be_visible()
    for task_id in (first, second):
        await site.tracker.cancel(task_id)


async def test_what_a_filter_matches_no_more_goes(site: Site, open_page: Open) -> None:
    """A list of what runs lets go at once of what has ended, and takes in what begins."""
    ids = [f"leaver-{number}" for number in range(3)]
    for task_id in ids[:2]:
        await site.tracker.register(task_id, "leave.early", status="STARTED")
    await site.tracker.register(ids[2], "leave.early")
    page = await open_page("#/executions?module=leave&status=STARTED")
    await expect(page.locator("tbody tr")).to_have_count(2)
    await expect(page.locator(".live")).to_contain_text("Live")
    await site.tracker.update(ids[2], "STARTED")
    await expect(page.locator("tbody tr")).to_have_count(3)
    for number, task_id in enumerate(ids):
        await site.tracker.update(task_id, "FAILURE" if number else "SUCCESS")
        await expect(page.locator("tbody tr")).to_have_count(2 - number, timeout=6000)


async def test_filters_are_the_address(site: Site, open_page: Open) -> None:
    """Filters and page survive a reload, and the way back."""
    ids = [await site.kiq("add", number, 1, module="numbered") for number in range(30)]
    await site.tracker.wait(ids[-1], 20)
    page = await open_page("#/executions")
    await page.get_by_label("Task", exact=True).fill("shop.add")
    await page.get_by_role("checkbox", name="SUCCESS").check()
    await page.get_by_text("More filters").click()
    await page.get_by_label("Module").fill("numbered")
    await page.get_by_label("Rows").select_option("25")
    await expect(page.locator(".count")).to_have_text("30 executions")
    await expect(page.locator("tbody tr")).to_have_count(25)
    await page.get_by_role("link", name="Next page").click()
    await expect(page.locator("tbody tr")).to_have_count(5)
    await page.reload()
    await expect(page.locator("tbody tr")).to_have_count(5)

    assert "numbered" == await page.get_by_label("Module").input_value()
    assert await page.get_by_role("checkbox", name="SUCCESS").is_checked()
    assert not await page.get_by_role("checkbox", name="FAILURE").is_checked()
    await page.go_back()
    await expect(page.locator("tbody tr")).to_have_count(25)


async def test_times_are_typed_as_they_are_shown(site: Site, open_page: Open) -> None:
    """Local ones and those in UTC; a time with an offset, and a day in a summer of two o'clock."""
    noon = datetime(2026, 7, 10, 12, tzinfo=UTC)  # 14:00 in Berlin
    late = datetime(2026, 7, 10, 22, 30, tzinfo=UTC)  # the next day in Berlin
    for task_id, at in (("noon", noon), ("late", late)):
        await site.tracker.register(task_id, "typed.at", created_at=at)
    page = await open_page("#/executions?module=typed")
    rows = page.locator("tbody tr")
    since, until = page.get_by_label("Since"), page.get_by_label("Until")
    for typed, local, utc in (
        (("2026-07-10 13:59", "2026-07-10 14:01"), 1, 0),
        (("2026-07-10T11:59", "2026-07-10 12:01"), 0, 1),
        (("2026-07-10T11:59:00Z", "2026-07-10T14:01+02:00"), 1, 1),
        (("2026-07-10", "2026-07-10"), 1, 2),
    ):
        await since.fill(typed[0])
        await until.fill(typed[1])
        for zone, count in (("local", local), ("utc", utc)):
            await page.get_by_label("Times").select_option(zone)
            await expect(page.locator(".count")).to_have_text(re.compile(rf"^{count} execution"))
            await expect(rows).to_have_count(count)
        await page.get_by_label("Times").select_option("local")
    await since.fill("yesterday")
    await expect(page.get_by_role("alert")).to_contain_text("since")


async def test_bulk_says_how_many(site: Site, open_page: Open) -> None:
    """All that a filter matches is cancelled, once the reader has seen how many they are."""
    ids = [await site.kiq("load", f"{number}.csv", 60.0, module="bulk") for number in range(3)]
    page = await open_page("#/executions?module=bulk")
    await expect(page.locator("tbody tr")).to_have_count(3)
    await page.get_by_role("button", name="Cancel all …").click()
    await expect(page.get_by_role("dialog", name="Cancel 3 executions?")).to_be_visible()
    await page.get_by_role("button", name="Do nothing").click()
    assert not (await site.tracker.get(ids[0])).is_completed
    await page.get_by_role("button", name="Cancel all …").click()
    await page.get_by_role("button", name="Cancel 3 executions").click()
    await expect(page.get_by_text("REVOKED", exact=False)).to_have_count(4)  # and the filter's word

    assert {"REVOKED"} == {(await site.tracker.get(task_id)).status for task_id in ids}


async def test_a_wrong_filter_is_told(open_page: Open) -> None:
    """What the API refuses is said with its faults; the page goes on."""
    page = await open_page("#/executions?since=yesterday")

    await expect(page.get_by_role("alert")).to_contain_text("since")
    await page.get_by_role("link", name="Clear filters").click()
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_the_overview(site: Site, open_page: Open) -> None:
    """Counts, pictures, what runs, who works; each range has an address."""
    task_id = await site.kiq("load", "seen.csv", 60.0)
    page = await open_page()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await expect(
        page.get_by_role("img", name=re.compile("^Throughput: .+ failed$"))
    ).to_be_visible()
    await expect(
        page.get_by_role("img", name=re.compile("^Durations of [0-9,]+ executions?: half within "))
    ).to_be_visible()
    running = page.get_by_role("region", name="Running now")
    await expect(running.get_by_role("link", name="shop.load").first).to_be_visible()
    await expect(page.get_by_role("region", name="Workers")).to_contain_text("1 worker alive")
    await page.get_by_role("link", name="7 days").click()
    await expect(page).to_have_url(re.compile(r"#/overview\?range=7d$"))
    await site.tracker.cancel(task_id)


async def test_a_picture_tells_each_bar(site: Site, open_page: Open) -> None:
    """By the pointer and by the arrow keys; what is new in the picture takes neither away."""
    await site.tracker.wait(await site.kiq("add", 1, 1), 20)
    page = await open_page()
    panel = page.get_by_role("region", name="Throughput")
    readout = panel.locator(".readout")
    await expect(readout).to_have_text(re.compile("failed$"))
    whole = await readout.inner_text()
    await panel.locator(".bar").last.hover()
    await expect(readout).to_have_text(re.compile(r"^\d+ \w+ \d+, [\d:]+ .+: \d+ execution"))
    await page.get_by_role("heading", level=1).hover()
    await expect(readout).to_have_text(whole)
    await panel.get_by_role("group").focus()
    await page.keyboard.press("ArrowLeft")
    await expect(readout).to_have_text(re.compile(r": [1-9][\d,]* executions?, \d+ failed$"))
    told = await readout.inner_text()
    for number in range(2):
        await site.tracker.wait(await site.kiq("add", number, 1), 20)
    await expect(readout).not_to_have_text(told)
    await expect(readout).to_have_text(re.compile(r": [1-9][\d,]* executions?, \d+ failed$"))
    await expect(readout).to_have_attribute("aria-live", "polite")
    await page.keyboard.press("Tab")
    await expect(readout).to_have_text(re.compile(r"^[\d,]+ executions"))


async def test_alerts_stand_first(site: Site, open_page: Open) -> None:
    """What somebody ought to see to is told on the overview, and leads to what it is about."""
    now = datetime.now(UTC)
    for number in range(20):
        facts = {"status": "FAILURE", "created_at": now, "started_at": now, "finished_at": now}
        await site.tracker.register(f"pay-{number}", "shop.pay", **facts)
    await site.tracker.alerts.check()
    page = await open_page()
    alerts = page.get_by_role("region", name="To be looked at")
    await expect(alerts).to_contain_text("shop.pay: ")
    await alerts.get_by_role("link", name="shop.pay").click()
    await expect(page.locator("tbody tr")).to_have_count(20)


async def test_workers_and_queues(site: Site, open_page: Open) -> None:
    """Who works, with what load; where messages wait."""
    page = await open_page("#/workers")
    row = page.get_by_role("table", name="Workers that are alive").locator("tbody tr")
    await expect(row).to_have_count(1)
    await expect(row.get_by_role("img", name=re.compile("^Load of"))).to_be_visible()
    await row.get_by_text("tasks").click()
    await expect(row.get_by_text("shop.echo")).to_be_visible()
    await page.get_by_role("link", name="Queues").click()
    await expect(page.get_by_role("rowheader")).to_have_text(site.broker.queue_name)


async def test_a_schedule_is_paused_and_run(site: Site, open_page: Open) -> None:
    """The verbs of a schedule act, and the row shows its state and its next run."""
    made = await site.tracker.definitions.create(
        name="every hour",
        task_type="shop.add",
        schedule_kind="cron",
        schedule={"cron": "0 * * * *"},
        parameters={"one": 1, "other": 2},
    )
    await site.tracker.schedules.start(made.id)
    page = await open_page("#/schedules")
    row = page.locator("tbody tr", has_text="every hour")
    await expect(row.locator(".badge")).to_have_text("● active")
    await row.get_by_role("button", name="Pause: every hour").click()
    await expect(row.locator(".badge")).to_have_text("‖ paused")
    await row.get_by_role("button", name="Resume: every hour").click()
    await expect(row.locator(".badge")).to_have_text("● active")
    await row.get_by_role("button", name="Run now: every hour").click()
    await expect(page.get_by_role("status").get_by_text("Sent: every hour")).to_be_visible()
    await site.tracker.schedules.stop(made.id)

    assert 1 == len((await site.tracker.list(config_id=made.id)).items)


async def test_a_definition_is_made(site: Site, open_page: Open) -> None:
    """What the server finds wrong stands beside its fields, until all of it is right."""
    taken = await site.tracker.definitions.create(name="taken", task_type="shop.tidy")
    page = await open_page("#/schedules")
    opener = page.get_by_role("button", name="New definition …")
    await opener.click()
    dialog = page.get_by_role("dialog", name="New definition")
    await dialog.get_by_label("Name").fill("taken")
    await dialog.get_by_label("Task").fill("shop.add")
    await expect(dialog.get_by_text("It takes: one, other.")).to_be_visible()
    await dialog.get_by_label("Arguments").fill("{")
    await dialog.get_by_role("textbox", name="Crontab").fill("every day")
    await dialog.get_by_label("Time zone").fill("Nowhere")
    await dialog.get_by_role("button", name="Create").click()
    await expect(dialog.locator(".fault")).to_contain_text("is no JSON")
    await dialog.get_by_label("Arguments").fill('{"one": 1, "others": 2}')
    await dialog.get_by_role("button", name="Create").click()
    for label, fault in {
        "Name": "'taken' is taken",
        "Arguments": "has no parameter 'others'; known are: one, other",
        "Crontab": "cron 'every day' needs five fields, not 2",
        "Time zone": "tz 'Nowhere' is no time zone",
    }.items():
        field = (
            dialog.locator("label", has=page.get_by_role("textbox", name=label))
            .locator(".fault")
            .first
        )
        await expect(field).to_contain_text(fault)
    await expect(dialog.get_by_label("Name")).to_be_focused()
    await dialog.get_by_label("Name").fill("made in a browser")
    await dialog.get_by_label("Arguments").fill('{"one": 1, "other": 2}')
    await dialog.get_by_label("Runs").select_option("interval")
    await expect(dialog.get_by_role("textbox", name="Crontab")).to_be_hidden()
    await dialog.get_by_role("spinbutton", name="Every").fill("90")
    await dialog.get_by_label("Priority").fill("9")
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
    await expect(opener).to_be_focused()
    row = page.locator("tbody tr", has_text="made in a browser")
    await expect(row).to_contain_text("every 1 min 30 s")
    await expect(row.locator(".badge")).to_have_text("● active")
    found = await site.tracker.definitions.get("made in a browser")
    await site.tracker.definitions.delete(found.id)
    await site.tracker.definitions.delete(taken.id)

    assert {"one": 1, "other": 2} == found.parameters
    assert (9, None) == (found.priority, found.queue)


async def test_a_lock_is_released_by_force(site: Site, open_page: Open) -> None:
    """Who holds a lock is seen, and it can be taken away after a warning."""
    task_id = await site.kiq("hold", "stock")
    page = await open_page("#/locks")
    row = page.locator("tbody tr", has_text="stock")
    await expect(row.get_by_role("link", name="shop.hold")).to_be_visible()
    await row.get_by_role("button", name="Release stock").click()
    await page.get_by_role("button", name="Release it").click()
    await expect(row).to_have_count(0)
    await site.tracker.wait(task_id, 40)


async def test_a_setting_is_changed_and_unset(site: Site, open_page: Open) -> None:
    """What has rows is changed here; the page says which layer won."""
    page = await open_page("#/settings")
    row = page.locator("tbody tr", has=page.get_by_text("retention_days", exact=True))
    await row.get_by_role("button", name="Change retention_days").click()
    await page.get_by_label("Value").fill("7")
    await page.get_by_role("button", name="Change", exact=True).click()
    await expect(row.locator("td").nth(1)).to_contain_text("global")
    assert 7 == await site.tracker.settings.get("retention_days")
    await row.get_by_role("button", name="Unset retention_days").click()
    await expect(row.locator("td").nth(1)).to_contain_text("default")
    await page.get_by_role("link", name="Audit").click()
    await expect(page.get_by_text("setting.set").first).to_be_visible()


async def test_by_keyboard_alone(site: Site, open_page: Open) -> None:
    """The skip link, the pages and a dialog are reached and left by keys."""
    task_id = await site.kiq("add", 1, 1)
    await site.tracker.wait(task_id, 20)
    page = await open_page("#/workers")
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.get_by_role("link", name="Executions").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_be_focused()
    await page.goto(f"{site.url}#/execution/{task_id}")
    rerun = page.get_by_role("button", name="Rerun …")
    await rerun.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(rerun).to_be_focused()


async def test_what_a_reader_chose_is_kept(site: Site, open_page: Open) -> None:
    """Times in UTC and the dark colours survive a reload."""
    task_id = await site.kiq("add", 1, 1)
    at = (await site.tracker.wait(task_id, 20)).created_at
    page = await open_page("#/executions?task_name=shop.add")
    cell = page.locator("tbody tr").first.locator("time")
    await expect(cell).not_to_contain_text(f"{at:%H:%M}")
    await page.get_by_label("Times").select_option("utc")
    await page.get_by_label("Colours").select_option("dark")
    await page.reload()
    await expect(cell).to_contain_text(f"{at:%H:%M}")

    assert "rgb(14, 17, 22)" == await page.evaluate(
        "getComputedStyle(document.body).backgroundColor"
    )


async def test_ids_are_copied(site: Site, open_page: Open) -> None:
    """A button puts the whole id where it can be pasted from."""
    task_id = await site.kiq("add", 1, 1)
    page = await open_page(
        f"#/execution/{task_id}", permissions=["clipboard-read", "clipboard-write"]
    )
    await page.get_by_role("button", name="Copy the id").click()
    await expect(page.get_by_role("status").get_by_text("the id copied")).to_be_visible()

    assert task_id == await page.evaluate("navigator.clipboard.readText()")


async def test_what_a_reader_opened_stays(site: Site, open_page: Open) -> None:
    """Live changes neither open what was closed, nor close what was opened, nor take the focus."""
    task_id = await site.kiq("load", "open.csv", 60.0)
    page = await open_page(f"#/execution/{task_id}")
    arguments = page.locator("details.block", has_text="Arguments")
    metadata = page.locator("details.block", has_text="Metadata")
    await arguments.locator("summary").click()
    copy = metadata.get_by_role("button", name="Copy Metadata")
    await copy.focus()
    before = await metadata.inner_text()
    await expect(metadata).not_to_have_text(before)
    await expect(page.locator(".log")).to_contain_text("row 8 of open.csv")

    assert await arguments.get_attribute("open") is None
    assert await metadata.get_attribute("open") is not None
    await expect(copy).to_be_focused()
    await site.tracker.cancel(task_id)
