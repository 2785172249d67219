"""Counts from rollups are the counts of the executions, whatever happened and whenever."""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from sqlalchemy import delete, text, update

from aiotrack.clock import EPOCH, Clock, to_datetime, to_micros
from aiotrack.counts import Stats
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository import Repository
from aiotrack.repository.control.retention import COMPLETED
from aiotrack.repository.read import Reader
from aiotrack.repository.statistics import histogram
from aiotrack.repository.statistics.periods import DAY, HOUR, Coverage, day_of, hour_of
from aiotrack.repository.statistics.rollups import Rollups
from aiotrack.repository.statistics.tally import Tally
from aiotrack.repository.tables import DirtyRow, ExecutionRow, RollupRow

pytestmark = pytest.mark.usefixtures("patience")

MODULES = ("shop", "crm", "aiotrack", "")
NAMES = ("shop.mail:send", "pay", "")
ENDS = (TaskStatus.SUCCESS, TaskStatus.FAILURE, TaskStatus.REVOKED)
CLASSES = ("timeout", "lost", "permanent", None)
LASTED = (0.0, 0.0003, 0.0015, 0.07, 0.7, 3.3, 14.0, 80.0, 800.0)
"""Seconds, none within 5 % of a bound: they are counted between the same ones by any way."""


@pytest.fixture
async def repository(database_url: str) -> AsyncIterator[Repository]:
    """An open repository."""
    repository = Repository(database_url, clock=Clock())
    await repository.connect()
    yield repository
    await repository.close()


@pytest.fixture
def reader(repository: Repository) -> Reader:
    """A reader of it."""
    return Reader(repository)


@pytest.fixture
def rollups(repository: Repository) -> Rollups:
    """What keeps its rollups."""
    return Rollups(repository)


@pytest.fixture
def now(repository: Repository) -> int:
    """The database's time."""
    return repository._clock.now()


def sent(task_id: str, created_at: int, **birth) -> Report:
    """Tell that a task was sent."""
    facts = {"task_name": "pay", "module": "shop"} | birth
    return Report(Origin(task_id, created_at=created_at, **facts), Witness.SENT, TaskStatus.PENDING)


def ended(task_id: str, created_at: int, *, wait=0.5, duration=0.25, birth=None, **run) -> Report:
    """Tell that a task ran to its end."""
    origin = sent(task_id, created_at, **(birth or {})).origin
    started = created_at + int(wait * 1e6)
    facts = {"run_id": f"run-{task_id}", "status": TaskStatus.SUCCESS} | run
    facts |= {"started_at": started, "finished_at": started + int(duration * 1e6)}
    return Report(origin, Witness.ENDED, facts.pop("status"), duration=duration, **facts)


async def settle(repository: Repository) -> None:
    """Let every mark be older than a minute, as if nobody had written meanwhile."""
    repository._marks._made.clear()
    async with repository.engine.begin() as connection:
        old = to_datetime(repository._clock.now() - 61_000_000)
        await connection.execute(update(DirtyRow).values(marked_at=old))


async def drop(repository: Repository, *task_ids: str, days: bool = True) -> int:
    """Delete what ended, all of it or these, as a clean-up does; *days* says so first."""
    done, last = 0, None
    latest = repository._clock.now() + 9 * DAY
    async with repository.connection() as connection:
        rows = await connection.execute(text("SELECT id, task_id FROM aiotrack_executions"))
        names = {row.id: row.task_id for row in rows}
    while found := await repository.retention.oldest(
        COMPLETED, after=last, until=latest, spared=(), size=100
    ):
        last = found[-1]
        some = [one for one in found if not task_ids or names[one.id] in task_ids]
        for day in sorted({day_of(one.created_at) for one in some}) if days else ():
            await Rollups(repository).clean(day, day + DAY)
        if some:
            done += (await repository.retention.delete(COMPLETED, some)).executions
    return done


async def count(repository: Repository, table: type) -> int:
    """Count the rows of a table."""
    async with repository.connection() as connection:
        found = await connection.execute(text(f"SELECT count(*) FROM {table.__tablename__}"))
        return int(found.scalar_one())


async def live(repository: Repository, reader: Reader, **filters) -> Stats:
    """Count without any rollup: what stats must say."""
    async with repository.connection() as connection:
        kept = (await connection.execute(text("SELECT * FROM aiotrack_rollups"))).all()
    async with repository.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE aiotrack_rollups RENAME TO kept"))
        await connection.execute(
            text("CREATE TABLE aiotrack_rollups AS SELECT * FROM kept WHERE false")
        )
    try:
        return await reader.stats(**filters)
    finally:
        async with repository.engine.begin() as connection:
            await connection.execute(text("DROP TABLE aiotrack_rollups"))
            await connection.execute(text("ALTER TABLE kept RENAME TO aiotrack_rollups"))
        assert kept is not None


def same(expected: Stats, found: Stats) -> None:
    """Compare all that is exact exactly, and percentiles within their mark."""
    ignored = dict.fromkeys(
        ("p50_duration", "p95_duration", "p50_wait", "p95_wait", "mean_duration", "mean_wait")
    )
    assert replace(expected, is_approximate=False, **ignored) == replace(
        found, is_approximate=False, **ignored
    )
    for name in ignored:
        one, two = getattr(expected, name), getattr(found, name)
        if one is None or two is None:
            assert one is two, name
        else:
            error = 1e-9 if name.startswith("mean") else 0.0501
            assert math.isclose(one, two, rel_tol=error, abs_tol=1e-6), name


async def test_what_is_rolled_up_counts_as_before(repository, reader, rollups, now):
    """Days, hours and the running hour add up, by every filter that rollups serve."""
    reports = [
        ended(
            f"t{number}",
            now - number * HOUR // 3,
            wait=0.001 * number,
            duration=LASTED[number % len(LASTED)],
            status=ENDS[number % 3],
            error_class=CLASSES[number % 4],
            birth={"module": MODULES[number % 4], "task_name": NAMES[number % 3]},
        )
        for number in range(300)
    ]
    await repository.write(reports)
    await settle(repository)
    filters = [
        {},
        {"module": "shop"},
        {"module": ["shop", "aiotrack"]},
        {"module": "aiotrack"},
        {"task_name": "pay"},
        {"task_name": ["pay", ""], "module": "crm"},
        {"since": timedelta(hours=30)},
        {"since": timedelta(hours=70)},
        {"until": timedelta(hours=26)},
        {"since": timedelta(hours=60), "until": timedelta(hours=31), "module": ""},
    ]
    before = [await reader.stats(**one) for one in filters]

    done = await rollups.roll_up()
    after = [await reader.stats(**one) for one in filters]

    assert done > 100
    assert [False] * len(filters) == [one.is_approximate for one in before]
    assert all(one.is_approximate for one in after)
    assert 225 == after[0].total
    assert 0 < after[0].timed_out < after[0].timed_out + after[0].lost < after[0].failure
    assert 225 == sum(one.count for one in after[0].durations)
    for one, two in zip(before, after, strict=True):
        if one.timeline[0].start.hour or len(one.timeline) > 40:
            one = replace(one, timeline=two.timeline)  # noqa: PLW2901 - the clock goes on
        same(one, two)
    assert 0 == await rollups.roll_up()
    assert not await rollups.is_due()


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", range(int(os.environ.get("AIOTRACK_TEST_SEEDS", "2"))))
async def test_random_histories_agree_at_every_moment(repository, reader, rollups, now, seed):
    """Late reports, reports by hand, moved births: stats are those of the executions."""
    random = Random(seed)
    known: list[Report] = []
    for step in range(40):
        group = []
        for _ in range(random.randrange(1, 12)):
            if known and random.random() < 0.3:
                old = random.choice(known)
                changes = {
                    "run_id": random.choice([old.run_id, f"again-{step}"]),
                    "witness": random.choice([Witness.STARTED, Witness.ENDED, Witness.PRESUMED]),
                    "status": random.choice(ENDS),
                    "error_class": random.choice(CLASSES),
                    "attempt": random.choice([1, 1, 2]),
                }
                if changes["witness"] is Witness.STARTED:
                    changes |= {"status": TaskStatus.STARTED, "duration": None, "finished_at": None}
                birth = old.origin.created_at - random.choice([0, 0, 0, HOUR, 3 * DAY, 40 * DAY])
                origin = replace(old.origin, created_at=birth)
                group.append(replace(old, origin=origin, **changes))
            else:
                ago = random.choice([0, 0, HOUR, 5 * HOUR, DAY, 3 * DAY, 50 * DAY])
                number = len(known) + len(group)
                birth = {
                    "module": random.choice(MODULES),
                    "task_name": random.choice(NAMES),
                    "metadata": random.choice(["{}", '{"skipped_by":"x"}', '{"a":"skipped_by"}']),
                }
                at = now - ago - random.randrange(HOUR)
                made = ended(
                    f"t{number}",
                    at,
                    wait=random.random() * 9,
                    duration=random.choice(LASTED),
                    status=random.choice(ENDS),
                    error_class=random.choice(CLASSES),
                    birth=birth,
                )
                group.append(sent(f"t{number}", at, **birth) if random.random() < 0.3 else made)
                known.append(made)
        await repository.write(group)
        if random.random() < 0.5:
            await settle(repository)
        if random.random() < 0.5:
            await rollups.roll_up()
        if random.random() < 0.3:
            since = to_datetime(now - random.randrange(60 * DAY))
            until = to_datetime(now - random.randrange(HOUR))
            filters = random.choice(
                [
                    {},
                    {"module": random.choice(MODULES)},
                    {"task_name": random.choice(NAMES)},
                    {"since": since, "until": until},
                    {"since": to_datetime(now - random.randrange(2 * DAY)), "until": until},
                    {"since": since, "module": ["shop", "crm"], "until": until},
                ]
            )
            found = await reader.stats(**filters)
            same(await live(repository, reader, **filters), found)


@pytest.mark.parametrize("ago", [2 * HOUR, 3 * DAY, 100 * DAY])
async def test_a_period_is_live_from_before_a_write_until_it_is_rolled_up(
    repository, reader, rollups, now, ago
):
    """A mark is made before the write, keeps the sweep off for a minute, and is renewed."""
    await repository.write([ended("a", now - ago), sent("b", now - ago)])
    await settle(repository)
    await rollups.roll_up()

    await repository.write([ended("b", now - ago)])
    marks = await count(repository, DirtyRow)
    await rollups.roll_up()
    kept, seen = await count(repository, DirtyRow), await reader.stats()
    await settle(repository)
    late = await rollups.roll_up()

    assert 0 < marks == kept
    assert (2, 0) == (seen.success, seen.pending)
    assert late > 0
    assert 0 == await count(repository, DirtyRow)
    assert 2 == (await reader.stats()).success


async def test_a_host_that_has_just_started_makes_marks(
    repository, reader, rollups, now, monkeypatch
):
    """No mark was made yet: that is not one of less than half a minute ago."""
    await repository.write([sent("a", now - 2 * HOUR)])
    await settle(repository)
    await rollups.roll_up()
    monkeypatch.setattr("aiotrack.repository.statistics.marks.uptime", lambda: 12.0)

    await repository.write([ended("a", now - 2 * HOUR)])

    assert 0 < await count(repository, DirtyRow)
    assert 1 == (await reader.stats()).success


async def test_a_killed_writer_leaves_only_a_mark(repository, reader, rollups, now):
    """A mark without its write costs one recomputation."""
    await repository.write([ended("a", now - 2 * HOUR)])
    await settle(repository)
    await rollups.roll_up()
    async with repository.engine.begin() as connection:
        await connection.execute(
            DirtyRow.__table__.insert().values(
                span="hour",
                start=to_datetime(hour_of(now - 2 * HOUR)),
                marked_at=to_datetime(now - 100_000_000),
                cleaned=False,
            )
        )

    assert await rollups.is_due()
    assert await rollups.roll_up() >= 1
    assert 0 == await count(repository, DirtyRow)
    assert 1 == (await reader.stats()).total


async def test_a_mark_renewed_while_it_is_read_stays(repository, reader, rollups, now, monkeypatch):
    """The sweep throws away what it read before a write that it may not have seen."""
    await repository.write([ended("a", now - 2 * HOUR)])
    await settle(repository)
    await rollups.roll_up()
    await repository.write([ended("b", now - 2 * HOUR)])
    await settle(repository)
    read = Rollups._read

    async def read_then_write(self, hours):
        found = await read(self, hours)
        await repository.write([ended("c", now - 2 * HOUR)])
        return found

    monkeypatch.setattr(Rollups, "_read", read_then_write)
    done = await rollups.roll_up()

    assert 0 == done
    assert 1 == await count(repository, DirtyRow)
    assert 3 == (await reader.stats()).total


async def test_two_processes_roll_up_at_once(repository, reader, rollups, now, database_url):
    """Each period is taken from one of them."""
    await repository.write([ended(f"t{n}", now - n * HOUR) for n in range(80)])
    await settle(repository)
    other = Repository(database_url, clock=Clock())
    try:
        await asyncio.gather(*(Rollups(one).roll_up() for one in (repository, other) * 3))
        await rollups.roll_up()
    finally:
        await other.close()

    assert 80 == (await reader.stats()).total
    assert not await rollups.is_due()


async def test_rows_that_were_deleted_do_not_count_but_stay_rolled_up(
    repository, reader, rollups, now
):
    """A cleaned day is counted live, and its rollups tell what was there."""
    await repository.write([ended(f"t{n}", now - n * DAY) for n in range(1, 9)])
    await settle(repository)
    await rollups.roll_up()
    kept = await count(repository, RollupRow)
    limit = day_of(now - 5 * DAY)

    await rollups.clean(now - 20 * DAY, limit)
    async with repository.engine.begin() as connection:
        rows = delete(ExecutionRow.__table__)
        await connection.execute(rows.where(ExecutionRow.created_at < to_datetime(limit)))
    left = len((await reader.list()).items)
    found = await reader.stats()
    await repository.write([ended("late", now - 7 * DAY)])
    await settle(repository)
    await rollups.roll_up()

    assert 0 < left < 8
    assert left == found.total == sum(bucket.total for bucket in found.timeline)
    assert kept == await count(repository, RollupRow)
    assert left + 1 == (await reader.stats()).total


@pytest.mark.parametrize("ago", [3 * DAY, 100 * DAY])
async def test_what_changed_just_before_its_rows_go_is_rolled_up(
    repository, reader, rollups, now, ago
):
    """Nobody waits for its mark to settle: it is told for ever, although no row tells it."""
    await repository.write([ended("a", now - ago), ended("b", now - ago)])
    await settle(repository)
    await rollups.roll_up()
    lost = {"status": TaskStatus.FAILURE, "error_class": "lost"}
    await repository.write([ended("c", now - ago, **lost)])
    day = day_of(now - ago)

    await rollups.clean(day, day + DAY)
    await drop(repository, days=False)
    first, told = await reader.stats(), await reader.history()
    await settle(repository)
    await rollups.roll_up()
    last = await reader.history()

    assert 0 == first.total
    for one in (told, last):
        assert (3, 2, 1) == (one.total, one.success, one.lost)


async def test_history_keeps_cleaned_days_between_many_that_changed(
    repository, reader, rollups, now
):
    """What is counted live skips them."""
    days = 52
    first = day_of(now) - 2 * days * DAY
    await repository.write([ended(f"t{n}", first + 2 * n * DAY) for n in range(days)])
    await settle(repository)
    await rollups.roll_up()
    for number in range(days):
        await rollups.clean(first + 2 * number * DAY, first + 2 * number * DAY + 1)
    await drop(repository, days=False)
    await repository.write([ended(f"m{n}", first + (2 * n + 1) * DAY) for n in range(days)])

    before, rows = await reader.history(), await reader.stats()
    await settle(repository)
    await rollups.roll_up()
    after = await reader.history(since=to_datetime(first))

    assert 2 * days == before.total == sum(bucket.total for bucket in before.timeline)
    assert days == rows.total
    assert 2 * days == after.total


async def test_an_old_table_is_moved_and_rolled_up(repository, reader, rollups, now):
    """Years of days are marked by the day, counted meanwhile, and rolled up."""
    reports = [ended(f"t{n}", now - n * 30 * DAY) for n in range(60)]
    await repository.write([ended("first", now - 3 * HOUR)])
    await settle(repository)
    await rollups.roll_up()
    await repository.write(reports)
    marks = await count(repository, DirtyRow)
    before = await reader.stats()
    await settle(repository)
    await rollups.roll_up()
    after = await reader.stats()

    assert 59 <= marks <= 60
    assert (61, 61) == (before.total, after.total)
    assert 0 == await count(repository, DirtyRow)
    assert 61 == sum(bucket.total for bucket in after.timeline)
    assert len(after.timeline) in {58, 59, 60}  # months


@pytest.mark.parametrize("years", [10, 170])
async def test_what_is_far_in_the_future_makes_no_endless_timeline(reader, repository, now, years):
    """Hours up to it would be 1.5 million buckets, made while nothing else may run."""
    await repository.write([ended("a", now + years * 365 * DAY), ended("b", now)])

    for name in (None, "job"):
        recent = await reader.stats(since=timedelta(hours=1), task_name=name)
        assert len(recent.timeline) < 366
        assert recent.total == sum(bucket.total for bucket in recent.timeline)
    assert 2 == (await reader.stats(since=timedelta(hours=1))).total


async def test_what_is_in_the_future_counts(repository, reader, rollups, now):
    """A clock that runs ahead hides nothing."""
    await repository.write([ended("a", now + 3 * DAY), ended("b", now)])
    await rollups.roll_up()

    found = await reader.stats()

    assert (2, 2) == (found.total, sum(bucket.total for bucket in found.timeline))


# ── pure parts ──────────────────────────────────────────────────────────────────────────────────
def test_every_moment_of_a_range_is_in_one_part():
    """Days, hours and live ranges are disjoint and cover what was asked."""
    random = Random(7)
    now = to_micros(datetime(2026, 3, 5, 13, 20, tzinfo=UTC))
    for _ in range(300):
        days_until = day_of(now) - random.randrange(3) * DAY
        hours = max(days_until, hour_of(now) - random.randrange(30) * HOUR)
        dirty = {("hour", hour_of(now) - random.randrange(900) * HOUR) for _ in range(4)}
        dirty |= {("day", day_of(now) - random.randrange(50) * DAY) for _ in range(3)}
        covered = Coverage(now, days_until, hours, frozenset(dirty))
        first = now - random.randrange(60 * DAY)
        last = first + random.randrange(70 * DAY)
        split = covered.split(first, last, by_hour=random.random() < 0.3)
        parts = sorted(split.days + split.hours + split.live)

        assert first == parts[0][0]
        assert last == parts[-1][1]
        assert all(one[1] == two[0] for one, two in pairwise(parts))
        for begin, stop in split.days:
            assert not [m for m in dirty if begin <= m[1] < stop]
            assert stop <= days_until
            assert begin % DAY == stop % DAY == 0
        for begin, stop in split.hours:
            assert not [m for m in dirty if m[0] == "hour" and begin <= m[1] < stop]
            assert not [m for m in dirty if m[0] == "day" and m[1] < stop and begin < m[1] + DAY]
            assert stop <= hours
            assert begin >= day_of(now) - 31 * DAY


@pytest.mark.parametrize(("days", "lives"), [(50, 50), (51, 51), (300, 300), (301, 1)])
def test_history_takes_cleaned_days_from_rollups(days, lives):
    """However many days between them changed; with too many these are as they were, too."""
    now = to_micros(datetime(2026, 3, 5, 13, 20, tzinfo=UTC))
    today = day_of(now)
    cleaned = frozenset(today - 2 * number * DAY for number in range(1, days + 1))
    changed = {("day", start + DAY) for start in cleaned}
    dirty = frozenset(changed | {("day", start) for start in cleaned})
    covered = Coverage(now, today, today, dirty, cleaned)
    split = covered.history().split(min(cleaned), now)
    parts = sorted(split.days + split.hours + split.live)

    assert lives == len(split.live)
    assert (min(cleaned), now) == (parts[0][0], parts[-1][1])
    assert all(one[1] == two[0] for one, two in pairwise(parts))
    for start in cleaned:
        assert any(begin <= start and start + DAY <= stop for begin, stop in split.days)
    assert 1 == len(covered.split(min(cleaned), now).live)


def test_percentiles_of_buckets_are_within_five_percent():
    """At any share, also between two ranks."""
    random = Random(1)
    for _ in range(50):
        values = [10 ** random.uniform(-5, 5) for _ in range(random.randrange(1, 60))]
        buckets = Counter(histogram.bucket(value) for value in values)
        kept: histogram.Histogram = {}
        histogram.add(kept, histogram.write({str(key): n for key, n in buckets.items()}))
        shares = (0.0, 0.5, 0.95, 1.0)
        for one, two in zip(
            histogram.exact(values, shares), histogram.percentiles(kept, shares), strict=True
        ):
            assert math.isclose(one, two, rel_tol=0.0501)


def test_durations_are_counted_between_bounds():
    """One on a bound is below it; of buckets only what is within 5 % of a bound may be beyond."""
    random = Random(2)
    for _ in range(50):
        values = [10 ** random.uniform(-5, 6) for _ in range(random.randrange(1, 200))]
        values += [0.0, *random.choices(histogram.BOUNDS, k=3)]
        buckets = Counter(str(histogram.bucket(value)) for value in values)
        exact, rough = histogram.exact_spread(values), histogram.spread(buckets)

        assert len(values) == sum(exact) == sum(rough)
        for index, bound in enumerate(histogram.BOUNDS):
            below = sum(value <= bound for value in values)
            assert below == sum(exact[: index + 1])
            low, high = (sum(value <= bound * by for value in values) for by in (0.949, 1.053))
            assert low <= sum(rough[: index + 1]) <= high


def test_a_distribution_ends_with_the_longest():
    """It has no gaps, begins at nothing, and is empty when nothing took time."""
    whole = Tally().stats([], ([0.0, 0.3, 0.0], []))
    long = Tally(durations={str(histogram.bucket(100_000.0)): 2}).stats([], None)

    assert [] == Tally().stats([], None).durations == Tally().stats([], ([], [])).durations
    assert (0.0, 0.001, 2) == astuple(whole.durations[0])
    assert (0.2, 0.5, 1) == astuple(whole.durations[-1])
    assert all(one.up_to == two.above for one, two in pairwise(whole.durations))
    assert (86_400.0, None, 2) == astuple(long.durations[-1])
    assert len(histogram.BOUNDS) + 1 == len(long.durations)


def test_percentiles_of_nothing():
    """No value, no percentile; no time at all is no time."""

    assert [None] == histogram.percentiles({}, (0.5,)) == histogram.exact([], (0.5,))
    assert [0.0] == histogram.percentiles({str(histogram.bucket(0.0)): 3}, (0.5,))
    assert EPOCH < datetime.now(UTC)
