"""What is deleted of recent days counts in reports, whenever it goes and whatever comes later."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import bindparam, insert, select, text

from aiotrack import StoreUnavailable, Tracker
from aiotrack.clock import Clock, to_datetime
from aiotrack.counts import Stats
from aiotrack.repository import Repository
from aiotrack.repository.read import Reader
from aiotrack.repository.statistics import gone
from aiotrack.repository.statistics.periods import DAY, HOUR, Coverage, day_of, hour_of
from aiotrack.repository.statistics.rollups import Rollups
from aiotrack.repository.tables import DirtyRow, RollupRow
from aiotrack.repository.transaction import transaction
from tests.contract.test_rollups import (
    CLASSES,
    ENDS,
    LASTED,
    MODULES,
    NAMES,
    drop,
    ended,
    same,
    sent,
    settle,
)

pytestmark = pytest.mark.usefixtures("patience")

DAYS = timedelta(days=1)


@pytest.fixture
async def repository(database_url: str) -> AsyncIterator[Repository]:
    """An open repository."""
    async with opened(database_url) as repository:
        yield repository


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Repository]:
    """Give a repository for a while."""
    repository = Repository(url, clock=Clock())
    await repository.connect()
    try:
        yield repository
    finally:
        await repository.close()


async def kept(repository: Repository) -> tuple[int, int]:
    """Count marks of days that are accounted for, and executions that are kept as sums."""
    rollups, dirty = RollupRow.__table__, DirtyRow.__table__
    async with repository.connection() as connection:
        marks = (await connection.execute(select(dirty).where(dirty.c.span == "gone"))).all()
        query = select(rollups).where(rollups.c.span == "gone")
        rows = (await connection.execute(query)).mappings().all()
    return len(marks), sum(row["success"] + row["failure"] + row["revoked"] for row in rows)


async def unmark(repository: Repository) -> None:
    """Take marks away, as if all had ended in the hour of its creation."""
    async with repository.engine.begin() as connection:
        await connection.execute(text("DELETE FROM aiotrack_rollups_dirty WHERE span = 'hour'"))


def some(now: int, count: int = 120, *, ago: int = 7 * DAY) -> list[Any]:
    """Give executions of all kinds that ended, from the running hour back."""
    random = Random(3)
    return [
        ended(
            f"t{number}",
            now - (random.randrange(ago) if number % 3 else random.randrange(60_000_000)),
            wait=0.003 * number,
            duration=random.choice(LASTED),
            status=ENDS[number % 3],
            error_class=CLASSES[number % 4],
            birth={
                "module": MODULES[number % 4],
                "task_name": NAMES[number % 3],
                "metadata": '{"skipped_by":"x"}' if number % 5 == 0 else "{}",
            },
        )
        for number in range(count)
    ]


def questions(now: int) -> list[dict[str, Any]]:
    """Give what reports ask: by hours, by days, of one module, of one task."""
    whole = {"since": to_datetime(day_of(now) - 9 * DAY), "until": to_datetime(now + HOUR)}
    fine = {"since": to_datetime(hour_of(now) - 30 * HOUR), "until": to_datetime(now + HOUR)}
    narrow: list[dict[str, Any]] = [
        *({}, {"module": "shop"}, {"module": ["crm", "aiotrack"]}),
        *({"task_name": "pay"}, {"task_name": ["pay", ""], "module": ""}),
    ]
    past = {"since": to_datetime(day_of(now) - 3 * DAY), "until": to_datetime(day_of(now) - 1)}
    return [{**when, **one} for when in (whole, fine, past) for one in narrow]


async def told(repository: Repository, now: int) -> list[Stats]:
    """Give what reports are made of."""
    reader = Reader(repository)
    return [await reader.history(**one) for one in questions(now)]


# ── the verbs that people use ───────────────────────────────────────────────────────────────────
async def test_a_report_tells_of_the_running_hour_after_all_of_it_went(tracker: Tracker) -> None:
    """By task, by module, with durations, at once and after a roll-up; stats count rows."""
    for number in range(3):
        async with tracker.track("job.x"):
            pass
        at = datetime.now(UTC)
        await tracker.register(
            f"y{number}",
            "crm.y",
            status="FAILURE" if number else "SUCCESS",
            created_at=at,
            started_at=at,
            finished_at=at + timedelta(seconds=3),
            error="no" if number else None,
        )
    before = await tracker.report(DAYS)
    await tracker.roll_up()
    deleted = await tracker.cleanup(retention_days=0, only_completed=True)
    await asyncio.sleep(0)
    later = [await tracker.report(DAYS), await tracker.report(7 * DAYS)]
    await tracker.roll_up()
    later.append(await tracker.report(DAYS))
    crm = await tracker.report(DAYS, module="crm")

    assert 3 <= deleted <= 6  # what ends in the future stays
    assert 6 == before.now.total
    for one in later:
        assert (6, 4, 2) == (one.now.total, one.now.success, one.now.failure)
        assert {"job.x": 3, "crm.y": 3} == {task.task_name: task.now.total for task in one.tasks}
        assert before.now.by_module == one.now.by_module
        assert 6 == sum(bucket.count for bucket in one.now.durations)
        assert [3] == [bucket.count for bucket in one.now.durations if bucket.up_to == 5.0]
        assert 6 == sum(bucket.total for bucket in one.now.timeline)
        assert abs(before.now.mean_duration - one.now.mean_duration) < 1e-9
        (y,) = [task for task in one.tasks if task.task_name == "crm.y"]
        assert 2 == y.now.failure
        assert abs(3 - y.now.p50_duration) < 0.16
    assert (3, 3) == (crm.now.total, crm.now.by_task_name["crm.y"].total)
    assert 6 - deleted == (await tracker.stats()).total == len((await tracker.list()).items)


async def test_what_ends_after_its_day_was_cleaned_is_told(tracker: Tracker) -> None:
    """It was created on a day of which others are gone."""
    at = datetime.now(UTC) - 5 * DAYS
    facts = {"created_at": at, "started_at": at}
    await tracker.register("old", "job.a", status="SUCCESS", finished_at=at, **facts)
    await tracker.register("open", "job.a", status="STARTED", **facts)
    await tracker.roll_up()
    deleted = await tracker.cleanup(retention_days=3)
    counts = [(await tracker.report(7 * DAYS)).now]
    await tracker.update("open", "FAILURE", error="x")
    counts.append((await tracker.report(7 * DAYS)).now)
    await settle(tracker.core().repository)
    await tracker.roll_up()
    counts.append((await tracker.report(7 * DAYS)).now)
    deleted += await tracker.cleanup(retention_days=0)
    counts.append((await tracker.report(7 * DAYS)).now)

    assert 2 == deleted
    assert [(2, 1, 0)] + 3 * [(2, 1, 1)] == [(s.total, s.success, s.failure) for s in counts]
    assert 0 == (await tracker.stats()).total


async def test_one_user_has_theirs_cleaned_and_others_go_on(tracker: Tracker) -> None:
    """Of the running hour and of one that is rolled up."""
    await tracker.settings.set("retention_days", 0, user=7)
    hour = to_datetime(hour_of(tracker.clock.now()))
    for number, (who, ago) in enumerate([(7, 0), (8, 0), (8, 0), (7, 2), (8, 2), (8, 2)]):
        at = hour - timedelta(hours=ago) + timedelta(milliseconds=5)
        is_over = number not in {2, 5}
        await tracker.register(
            f"c{number}",
            "job.c",
            created_by=str(who),
            created_at=at,
            status="SUCCESS" if is_over else "STARTED",
            **({"started_at": at, "finished_at": at} if is_over else {}),
        )
    await settle(tracker.core().repository)
    deleted = await tracker.cleanup()
    first = (await tracker.report(2 * DAYS)).now
    for number in (2, 5):
        await tracker.update(f"c{number}", "SUCCESS")
    second = (await tracker.report(2 * DAYS)).now
    await settle(tracker.core().repository)
    await tracker.roll_up()
    third = (await tracker.report(2 * DAYS)).now

    assert 2 == deleted
    assert (6, 4) == (first.total, first.success)
    assert [(6, 6), (6, 6)] == [(one.total, one.success) for one in (second, third)]
    assert 4 == (await tracker.stats()).total


# ── sums that go and hours that are rolled up ───────────────────────────────────────────────────
async def test_an_hour_is_rolled_up_after_its_rows_went(repository: Repository) -> None:
    """In one go or bit by bit: every figure is what it was, before and after the roll-up."""
    now = repository._clock.now()
    reports = some(now)
    await repository.write(reports)
    before = await told(repository, now)
    names = [report.origin.task_id for report in reports]
    for piece in (names[:7], names[7:60], names[60:]):
        await drop(repository, *piece)
    after = await told(repository, now)
    await settle(repository)
    done = await Rollups(repository).roll_up()
    last = await told(repository, now)

    assert done > 20
    assert 0 == (await Reader(repository).stats()).total
    assert len(reports) == (await kept(repository))[1]
    for one, two, three in zip(before, after, last, strict=True):
        same(one, two)
        same(one, three)


async def test_a_day_of_which_nothing_is_left_is_rolled_up(repository: Repository) -> None:
    """Although the next one has rows: where nothing is, nothing would be rolled up."""
    now = repository._clock.now()
    await repository.write([ended("a", now - 3 * DAY), ended("b", now - 2 * DAY)])
    await unmark(repository)
    await drop(repository, "a")
    first = await Rollups(repository).is_due()
    await Rollups(repository).roll_up()

    assert first
    assert (1, 1) == await kept(repository)
    assert 2 == (await Reader(repository).history()).total
    assert 1 == (await Reader(repository).stats()).total


async def test_what_is_gone_is_due(repository: Repository) -> None:
    """Also when no row of an hour is left; those of our own sweeps are no reason."""
    now = repository._clock.now()
    await repository.write([ended("a", now - 2 * HOUR), ended("b", now - 4 * HOUR)])
    await repository.write([ended("c", now - 2 * HOUR, birth={"module": "aiotrack"})])
    await unmark(repository)
    await drop(repository)

    assert await Rollups(repository).is_due()
    await Rollups(repository).roll_up()
    assert not await Rollups(repository).is_due()
    assert 2 == (await Reader(repository).history()).total


async def test_a_failure_leaves_neither_half(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and sums change together, or not at all."""
    now = repository._clock.now()
    await repository.write(some(now, 30))
    before = await told(repository, now)
    keep = gone.keep

    async def broken(*given: Any) -> int:
        await keep(*given)
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(gone, "keep", broken)
        with pytest.raises(StoreUnavailable):
            await drop(repository)
    rows = await Reader(repository).stats(module=list(MODULES))

    assert (30, 0) == (rows.total, (await kept(repository))[1])
    assert 30 == await drop(repository)
    assert 30 == (await kept(repository))[1]
    for one, two in zip(before, await told(repository, now), strict=True):
        same(one, two)


async def test_days_that_were_cleaned_before_stay_as_they_are(repository: Repository) -> None:
    """Nobody kept what went: to count them anew would lose it."""
    now = repository._clock.now()
    day = day_of(now) - 2 * DAY
    await repository.write([ended(f"t{n}", day + n * HOUR) for n in range(5)])
    await repository.write([sent("open", day + HOUR)])
    await settle(repository)
    await Rollups(repository).roll_up()
    async with repository.engine.begin() as connection:  # as a release did that kept nothing
        mark = {"span": "day", "start": to_datetime(day), "marked_at": to_datetime(now)}
        await connection.execute(insert(DirtyRow).values(**mark, cleaned=True))
        await connection.execute(text("DELETE FROM aiotrack_executions WHERE task_id < 'o'"))
        await connection.execute(text("DELETE FROM aiotrack_executions WHERE task_id = 't1'"))
    await repository.write([ended("open", day + HOUR)])
    deleted = await drop(repository)
    first = (await Reader(repository).history()).total
    await settle(repository)
    await Rollups(repository).roll_up()

    assert 5 == deleted
    assert (0, 0) == await kept(repository)
    assert 5 == first == (await Reader(repository).history()).total


async def test_of_old_days_nothing_is_kept(repository: Repository) -> None:
    """They are rolled up, so the usual clean-up does no more than before; others are forgotten."""
    now = repository._clock.now()
    old, lately = day_of(now) - 9 * DAY, day_of(now) - 8 * DAY
    await repository.write([ended(f"t{n}", old - n * DAY) for n in range(30)])
    await repository.write([ended("recent", lately)])
    await settle(repository)
    await Rollups(repository).roll_up()
    await drop(repository)
    first = await kept(repository)
    async with repository.engine.begin() as connection:  # three days go by
        for table in ("rollups", "rollups_dirty"):
            statement = f"UPDATE aiotrack_{table} SET start = :start WHERE span = 'gone'"
            query = text(statement).bindparams(bindparam("start", type_=DirtyRow.start.type))
            await connection.execute(query, {"start": to_datetime(lately - 3 * DAY)})
    await repository.write([ended("b", now - 5 * HOUR)])
    await settle(repository)
    await Rollups(repository).roll_up()

    assert (1, 1) == first
    assert (0, 0) == await kept(repository)
    assert 32 == (await Reader(repository).history()).total


# ── several at once ─────────────────────────────────────────────────────────────────────────────
async def test_a_roll_up_that_a_clean_up_overtakes_throws_away_what_it_read(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read rows, or sums, and these change before it has written: nothing counts twice."""
    now = repository._clock.now()
    at = now - 2 * HOUR
    await repository.write([ended("a", at), ended("b", at), ended("c", at)])
    await settle(repository)
    await Rollups(repository).clean(at, at + 1)
    read, counts = Rollups._read, []

    async def before(self: Rollups, hours: set[int]) -> Any:
        await drop(repository, "a", days=False)
        return await read(self, hours)

    async def after(self: Rollups, hours: set[int]) -> Any:
        found = await read(self, hours)
        await drop(repository, "b", days=False)
        return found

    for meanwhile in (before, after):
        with monkeypatch.context() as patch:
            patch.setattr(Rollups, "_read", meanwhile)
            counts.append(await Rollups(repository).roll_up())
        counts.append((await Reader(repository).history()).total)
    await settle(repository)
    done = await Rollups(repository).roll_up()

    assert [0, 3, 0, 3] == counts
    assert done
    assert 3 == (await Reader(repository).history()).total


async def test_cleaners_roll_ups_and_readers_at_once(
    repository: Repository, database_url: str
) -> None:
    """Whoever asks at whatever moment is told the same."""
    now = repository._clock.now()
    reports = some(now, 240, ago=20 * HOUR)
    await repository.write(reports)
    await settle(repository)
    await Rollups(repository).clean(now - DAY, now + 1)
    modules = list(MODULES)
    totals: set[int] = set()
    is_over = asyncio.Event()
    random = Random(5)

    async def clean(own: Repository, task_ids: list[str]) -> None:
        for start in range(0, len(task_ids), 12):
            await drop(own, *task_ids[start : start + 12], days=False)

    async def roll(own: Repository) -> None:
        while not is_over.is_set():
            await Rollups(own).roll_up()
            async with own.engine.connect() as connection, transaction(connection, own.path):
                # As if it had changed long ago; in turn, as every writer to a file.
                for start in {hour_of(now - random.randrange(20 * HOUR)) for _ in range(3)}:
                    values = {"start": to_datetime(start), "marked_at": to_datetime(now - DAY)}
                    mark = text(
                        "INSERT INTO aiotrack_rollups_dirty (span, start, marked_at, cleaned) "
                        "VALUES ('hour', :start, :marked_at, false) ON CONFLICT DO NOTHING"
                    )
                    binds = [bindparam(name, type_=DirtyRow.start.type) for name in values]
                    await connection.execute(mark.bindparams(*binds), values)
            await asyncio.sleep(0.01)

    async def ask(own: Repository) -> None:
        while not is_over.is_set():
            totals.add((await Reader(own).history(module=modules)).total)
            await asyncio.sleep(0.01)

    names = [report.origin.task_id for report in reports]
    async with opened(database_url) as second:
        others = [
            asyncio.create_task(of(one)) for of in (roll, ask) for one in (repository, second)
        ]
        half = len(names) // 2
        await asyncio.gather(
            clean(repository, names[: half + 40]), clean(second, names[half - 40 :][::-1])
        )
        is_over.set()
        await asyncio.gather(*others)
    await settle(repository)
    await Rollups(repository).roll_up()
    await Rollups(repository).roll_up()
    last = await Reader(repository).history(module=modules)

    assert {len(reports)} == totals
    assert len(reports) == last.total
    assert len(reports) == (await kept(repository))[1]
    assert 0 == (await Reader(repository).stats(module=modules)).total


async def test_two_cleaners_of_the_same_hours(repository: Repository, database_url: str) -> None:
    """Each execution is kept once, by the one that deletes it; no two wait for each other."""
    now = repository._clock.now()
    reports = some(now, 400, ago=3 * HOUR)
    await repository.write(reports)
    before = await told(repository, now)
    async with opened(database_url) as second:
        done = await asyncio.gather(*(drop(one) for one in (repository, second) * 2))
    done.append(await drop(repository))  # PostgreSQL: what each had left to the other

    assert 400 == sum(done) == (await kept(repository))[1]
    for one, two in zip(before, await told(repository, now), strict=True):
        same(one, two)


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", range(int(os.environ.get("AIOTRACK_TEST_SEEDS", "2"))))
async def test_any_order_of_ends_roll_ups_and_deletions(
    repository: Repository, tmp_path: Path, seed: int
) -> None:
    """A twin that neither deletes nor rolls up anything says what is right."""
    random = Random(seed)
    now = repository._clock.now()
    waiting: list[Any] = []
    there: list[str] = []
    async with opened(f"sqlite+aiosqlite:///{tmp_path / 'twin.db'}") as twin:
        for step in range(60):
            kind = random.choice(["end", "end", "late", "late", "roll", "drop", "ask"])
            if kind == "end":
                group = []
                for number in range(random.randrange(1, 15)):
                    ago = random.choice([0, 60_000_000, HOUR, 5 * HOUR, DAY, 6 * DAY])
                    one = ended(
                        f"t{step}-{number}",
                        now - ago - random.choice([0, random.randrange(HOUR)]),
                        wait=random.random() * 9,
                        duration=random.choice(LASTED),
                        status=random.choice(ENDS),
                        error_class=random.choice(CLASSES),
                        birth={
                            "module": random.choice(MODULES),
                            "task_name": random.choice(NAMES),
                            "metadata": random.choice(["{}", '{"skipped_by":"x"}']),
                        },
                    )
                    if random.random() < 0.4:
                        waiting.append(one)
                        birth = replace(one.origin)
                        group.append(replace(sent(birth.task_id, 0), origin=birth))
                    else:
                        there.append(one.origin.task_id)
                        group.append(one)
            elif kind == "late":
                random.shuffle(waiting)
                group, waiting = waiting[:4], waiting[4:]
                there += [one.origin.task_id for one in group]
            elif kind == "roll":
                if random.random() < 0.7:
                    await settle(repository)
                await Rollups(repository).roll_up()
                continue
            elif kind == "drop":
                random.shuffle(there)
                count = random.choice([1, len(there) // 3, len(there)])
                chosen, there = there[:count], there[count:]
                if chosen:
                    assert len(chosen) == await drop(repository, *chosen)
                continue
            else:
                one = random.choice(questions(now))
                expected = await Reader(twin).stats(**one)
                open_gone = await Reader(repository).history(**one)
                same(expected, open_gone)
                continue
            if group:
                await repository.write(group)
                await twin.write(group)
        expected = [await Reader(twin).stats(**one) for one in questions(now)]
    first = await told(repository, now)
    await settle(repository)
    await Rollups(repository).roll_up()
    for one, two, three in zip(expected, first, await told(repository, now), strict=True):
        same(one, two)
        same(one, three)
    every = await Reader(repository).stats(module=list(MODULES))
    assert len(there) == every.total - every.pending


# ── pure parts ──────────────────────────────────────────────────────────────────────────────────
def test_only_whole_hours_of_days_that_are_kept_have_sums() -> None:
    """The running hour is whole when it is asked for up to now."""
    now = day_of(1_800_000_000_000_000) + 5 * HOUR + HOUR // 2
    today = day_of(now)
    covered = Coverage(now, today, today, kept=frozenset({today, today - 3 * DAY}))
    history = covered.history()

    assert [] == covered.gone([(today, now)])
    assert [(today, today + 6 * HOUR)] == history.gone([(today, now)])
    assert [(today + HOUR, today + 4 * HOUR)] == history.gone([(today + 1, today + 5 * HOUR - 1)])
    assert [(today - 3 * DAY, today - 2 * DAY)] == history.gone([(today - 9 * DAY, today - DAY)])
    assert [] == history.gone([(today - 2 * DAY, today)])
    assert 2 == len(Coverage(now, kept=covered.kept).history().gone([(0, now)]))
