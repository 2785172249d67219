"""`tracker.report`: what it counts is what was recorded, also when the rows are gone."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from aiotrack import InvalidQuery, InvalidValue, TaskStatus, Tracker
from aiotrack.cli.app import app
from aiotrack.clock import to_datetime
from aiotrack.paper import FORMS, data, write
from tests.contract.test_rollups import ended, settle

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
VAGUE: dict[str, Any] = {
    **dict.fromkeys(("p50_duration", "p95_duration", "p50_wait", "p95_wait")),
    "is_approximate": False,
}
"""What rollups tell within 5 %."""

NAMES = ("shop.bill", "shop.mail", "crm.sync", "=cmd|' /C calc'!A0", "<script>alert(1)</script>|x")


def midnight() -> datetime:
    """Give the begin of today."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def fill(tracker: Tracker, count: int = 120) -> list[dict[str, Any]]:
    """Record executions of the last twenty days, and give what they are."""
    random = Random(7)
    made = []
    for number in range(count):
        created = midnight() - timedelta(days=random.uniform(0.1, 20))
        begun = created + timedelta(seconds=random.uniform(0.1, 5))
        one = {
            "task_name": random.choice(NAMES),
            "created_at": created,
            "started_at": begun,
            "finished_at": begun + timedelta(seconds=random.uniform(0.1, 60)),
            "status": random.choice(["SUCCESS", "SUCCESS", "SUCCESS", "FAILURE", "REVOKED"]),
        }
        await tracker.register(
            str(number), **one, error="no" if one["status"] == "FAILURE" else None
        )
        made.append(one)
    return made


def counted(made: list[dict[str, Any]], since: datetime, until: datetime) -> dict[str, list[int]]:
    """Count by hand: all and failed, by task."""
    found: dict[str, list[int]] = {}
    for one in made:
        if since <= one["created_at"] <= until:
            each = found.setdefault(one["task_name"], [0, 0])
            each[0] += 1
            each[1] += one["status"] == "FAILURE"
    return found


def shown(summary: Any, part: str) -> dict[str, list[int]]:
    """Give what a report counts."""
    found = {one.task_name: getattr(one, part) for one in summary.tasks}
    return {name: [one.total, one.failure] for name, one in found.items() if one.total}


async def test_it_counts_what_was_recorded(tracker: Tracker) -> None:
    """Before and after rolling up, and after the rows were deleted."""
    made = await fill(tracker)
    until = midnight()
    expected = counted(made, until - 7 * DAY, until)
    earlier = counted(made, until - 14 * DAY, until - 7 * DAY)
    first = await tracker.report(until - 7 * DAY, until)
    await settle(tracker.core().repository)
    await tracker.roll_up()
    second = await tracker.report(until - 7 * DAY, until)
    deleted = await tracker.cleanup(retention_days=1)
    third = await tracker.report(until - 7 * DAY, until)
    other = await tracker.report(until - 7 * DAY, until, module="crm")

    assert 0 < deleted
    for one in (first, second, third):
        assert (until - 7 * DAY, until) == (one.since, one.until)
        assert expected == shown(one, "now")
        assert earlier == shown(one, "before")
        assert sum(total for total, _ in expected.values()) == one.now.total
        assert sorted((-of[0], name) for name, of in expected.items()) == [
            (-task.now.total, task.task_name) for task in one.tasks if task.now.total
        ]
    most = max(failed for _, failed in expected.values())
    assert most == first.failing[0].now.failure
    durations = [one.duration for one in first.slowest]
    assert 10 == len(durations)
    assert sorted(durations, reverse=True) == durations
    assert len(third.slowest) < 10
    assert expected["crm.sync"] == [other.now.total, other.now.failure]


async def test_a_clean_up_takes_no_time_outs_and_none_lost(tracker: Tracker) -> None:
    """They are told by task, and beside those of the time before, as if the rows were there."""
    now = tracker.clock.now()
    day = 86_400_000_000
    birth = {"task_name": "shop.bill"}
    made = [
        ended(
            f"{error_class} {number}",
            now - int((number + 1.1) * day),
            status=TaskStatus.FAILURE,
            error_class=error_class,
            birth=birth if number % 2 else {},
        )
        for error_class, count in (("timeout", 12), ("lost", 9), ("permanent", 5), (None, 3))
        for number in range(count)
    ]
    repository = tracker.core().repository
    await repository.write(made)
    await settle(repository)
    until = to_datetime(now - day // 2)
    first = await tracker.report(until - 7 * DAY, until)
    deleted = await tracker.cleanup(retention_days=1)
    second = await tracker.report(until - 7 * DAY, until)

    assert len(made) == deleted
    assert (7, 7) == (first.timed_out, first.lost)
    assert (5, 2) == (first.before.timed_out, first.before.lost)
    by_name = {one.task_name: (one.now.timed_out, one.now.lost) for one in second.tasks}
    assert {"pay": (4, 4), "shop.bill": (3, 3)} == by_name
    for part in ("now", "before"):
        assert replace(getattr(first, part), **VAGUE) == replace(getattr(second, part), **VAGUE)
    assert [] == second.slowest
    assert "| ran longer than they may | 7 | 5 |" in write(second, "md")
    assert ["7", "4", "3"] == [
        row["timed_out"] for row in csv.DictReader(io.StringIO(write(second, "csv")))
    ]


async def test_our_own_sweeps_are_no_slow_tasks(tracker: Tracker) -> None:
    """As in the sums; who asks for them sees them. What did not run for a time is not slow."""
    at = datetime.now(UTC) - timedelta(hours=1)

    async def ran(task_id: str, task_name: str, module: str, seconds: float) -> None:
        times = {"created_at": at, "started_at": at, "finished_at": at + seconds * SECOND}
        await tracker.register(task_id, task_name, module=module, status="SUCCESS", **times)

    for number in range(20):
        await ran(f"sweep {number}", "aiotrack:cleanup", "aiotrack", 100 + number)
    for number in range(3):
        await ran(f"bill {number}", "shop.bill", "shop", 1 + number)
    await tracker.register("waits", "shop.bill")
    every, ours = await tracker.report(DAY), await tracker.report(DAY, module="aiotrack")
    mails = await tracker.report(DAY, task_name="shop.mail")

    assert (4, 20, 0) == (every.now.total, ours.now.total, mails.now.total)
    assert ["bill 2", "bill 1", "bill 0"] == [one.task_id for one in every.slowest]
    assert [f"sweep {number}" for number in range(19, 9, -1)] == [
        one.task_id for one in ours.slowest
    ]
    assert [] == mails.slowest


async def test_sweeps_are_counted_when_they_are_asked_for(tracker: Tracker) -> None:
    """By module, name, or how name or id begin; live, from rollups and in reports alike."""
    at = datetime.now(UTC) - 3 * DAY
    for task_id, name in (("aiotrack:cleanup:1", "aiotrack:cleanup"), ("bill", "shop.bill")):
        module, times = name.split(":")[0].split(".")[0], {"created_at": at, "started_at": at}
        await tracker.register(
            task_id, name, module=module, status="SUCCESS", finished_at=at + SECOND, **times
        )
    asked: list[dict[str, Any]] = [
        {"module": "aiotrack"},
        {"task_name": "aiotrack:cleanup"},
        {"text": "aiotrack:clean"},
        {"text": "aiotrack:cleanup:1"},
        {"task_name": "aiotrack:cleanup", "status": "SUCCESS"},
    ]
    for _ in range(2):
        for one in asked:
            assert 1 == (await tracker.stats(**one)).total, one
            summary = await tracker.report(**one)
            assert (1, 1) == (summary.now.total, len(summary.slowest)), one
        both = await tracker.stats(task_name=["aiotrack:cleanup", "shop.bill"])
        assert (2, 1) == (both.total, (await tracker.stats()).total)
        assert 1 == (await tracker.stats(status="SUCCESS")).total
        await settle(tracker.core().repository)
        await tracker.roll_up()


async def test_days_that_were_cleaned_long_ago(tracker: Tracker) -> None:
    """Also one or two of them, of which no hours are kept: their days tell what was there."""
    first = midnight() - 40 * DAY
    for number in range(36):
        at = first + number * DAY / 6 + timedelta(minutes=5)
        await tracker.register(
            str(number), "shop.bill", status="SUCCESS", created_at=at, finished_at=at
        )
    await settle(tracker.core().repository)
    await tracker.roll_up()
    moment = timedelta(microseconds=1)

    async def told() -> list[tuple[int, int]]:
        found = []
        for days in (1, 2, 3):
            one = await tracker.report(first + DAY, first + (1 + days) * DAY - moment)
            found.append((one.now.total, one.before.total))
        return found

    before = await told()
    deleted = await tracker.cleanup()

    assert 36 == deleted
    assert [(6, 6), (12, 6), (18, 6)] == before
    assert before == await told()


async def test_every_form_says_the_same(tracker: Tracker) -> None:
    """And names that are code in a page, a table or a spreadsheet stay names."""
    await fill(tracker)
    summary = await tracker.report(10 * DAY, midnight())
    texts = {form: write(summary, form) for form in FORMS}

    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert ["", *(one.task_name.replace("=cmd", "'=cmd") for one in summary.tasks)] == [
        row["task_name"] for row in rows
    ]
    assert [str(summary.now.total), str(summary.tasks[0].now.total)] == [
        row["total"] for row in rows[:2]
    ]
    assert json.loads(texts["json"]) == json.loads(json.dumps(data(summary), default=str))
    assert "<script>" not in texts["html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in texts["html"]
    assert "\\<script\\>alert(1)\\</script\\>\\|x" in texts["md"]
    for form in ("md", "html"):
        assert f"{summary.now.total:,}" in texts[form]
    assert all(line.count("|") > 1 for line in texts["md"].splitlines() if line.startswith("|"))


async def test_stretches_that_are_none(tracker: Tracker) -> None:
    """Each is told by what is wrong with it."""
    now = datetime.now(UTC)
    none = timedelta()  # ago by the database's clock, which may be behind ours
    for since, until in ((now, now - DAY), (none, now - DAY), (timedelta(days=99_999), None)):
        with pytest.raises(InvalidQuery):
            await tracker.report(since, until)
    with pytest.raises(InvalidValue, match="offset"):
        await tracker.report(DAY, now.replace(tzinfo=None))
    empty = await tracker.report(DAY)
    assert (0, []) == (empty.now.total, empty.tasks)
    assert all(write(empty, form) for form in FORMS)


async def test_a_timedelta_is_ago_for_both_ends(tracker: Tracker) -> None:
    """As in lists and sums; unless told it begins a week before it ends."""
    now = datetime.now(UTC)
    for days in (4, 6, 8, 9):
        await tracker.register(str(days), "shop.bill", created_at=now - days * DAY)
    narrow = {"since": 7 * DAY, "until": 3 * DAY}
    summary, week = await tracker.report(**narrow), await tracker.report(until=3 * DAY)
    point = await tracker.report(until=now - 3 * DAY)

    assert 4 * DAY == summary.until - summary.since
    assert abs(now - 7 * DAY - summary.since) < timedelta(minutes=1)
    assert (2, 2) == (summary.now.total, (await tracker.stats(**narrow)).total)
    assert (4, 4) == (week.now.total, point.now.total)
    for since, until in ((3 * DAY, 7 * DAY), (-DAY, None), (3 * DAY, now - 7 * DAY)):
        with pytest.raises(InvalidQuery, match="before it ends"):
            await tracker.report(since, until)


def test_the_verb(made_sqlite_url: str) -> None:
    """In each form, of any stretch; a wrong one is wrong usage."""

    def run(*arguments: str) -> Any:
        environment = {"AIOTRACK_DATABASE_URL": made_sqlite_url}
        return CliRunner().invoke(app, ["report", *arguments], env=environment)

    assert run().stdout.startswith("# Tasks from ")
    assert "<!doctype html>" in run("--format", "html").stdout
    assert (
        0 == json.loads(run("-f", "json", "--since", "30d", "--until", "1d").stdout)["now"]["total"]
    )
    assert run("-f", "csv").stdout.startswith("since,until,task_name,total,")
    assert 2 == run("--since", "2026-02-01", "--until", "2026-01-01").exit_code
    assert 2 == run("--format", "pdf").exit_code
    assert 2 == run("--since", "3d", "--until", "7d").exit_code
    for arguments, days in ((("--since", "7d", "--until", "3d"), 4), (("--until", "3d"), 7)):
        told = json.loads(run("--json", *arguments).stdout)
        begin, end = (datetime.fromisoformat(told[name]) for name in ("since", "until"))
        assert abs(end - begin - days * DAY) < timedelta(minutes=1)
