"""Group commit, with a database that does as it is told."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from aiotrack.errors import StoreUnavailable
from aiotrack.journal import Journal
from aiotrack.keeper import Keeper
from aiotrack.model import TaskStatus
from aiotrack.recorder import GROUP, Recorder
from aiotrack.report import Origin, Report, Witness
from tests.slow_disk import SlowDisk
from tests.waits import until

AWAY = StoreUnavailable("away")


def report(number: int) -> Report:
    """Give the report of the *number*-th send."""
    origin = Origin(task_id=str(number), task_name="shop.rows", module="shop", created_at=1)
    return Report(origin, Witness.SENT, TaskStatus.PENDING)


def start(number: int) -> Report:
    """Give the report of the *number*-th run's begin."""
    one = report(number)
    one.witness, one.run_id, one.status = Witness.STARTED, "r", TaskStatus.STARTED
    return one


def end(number: int) -> Report:
    """Give the report of the *number*-th run's end."""
    one = report(number)
    one.witness, one.run_id, one.status = Witness.ENDED, "r", TaskStatus.SUCCESS
    return one


class Beginner:
    """A run that begins."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_told = False

    def started(self) -> Report:
        self.is_told = True
        return start(self.number)


class FaultyStore:
    """Keeps what is written, the greatest witness of each run; fails as planned.

    A plan has one word for each write: an error to raise at once, ``"hang"`` for one that never
    answers, ``"lose"`` for one that is stored and whose reply is lost. After it all goes well.
    """

    def __init__(self, *plan: Exception | str, gated: bool = False) -> None:
        self.plan = list(plan)
        self.stored: dict[str, Witness] = {}
        self.writes: list[int] = []
        self.away: Exception | None = None
        self.gate = asyncio.Semaphore(0 if gated else 1_000_000)

    async def write(self, reports: Sequence[Report]) -> None:
        self.writes.append(len(reports))
        await self.gate.acquire()
        await asyncio.sleep(0)  # as a real write: others go on meanwhile
        word = self.plan.pop(0) if self.plan else self.away
        if isinstance(word, Exception):
            raise word
        if word == "hang":
            async with asyncio.timeout(0.05):  # as every write of ours is bounded
                await asyncio.Event().wait()
        for one in reports:
            known = self.stored.get(one.origin.task_id, one.witness)
            self.stored[one.origin.task_id] = max(known, one.witness)
        if word == "lose":
            raise StoreUnavailable("the reply is lost")

    async def until_stored(self, count: int) -> None:
        """Wait until so many tasks are stored."""
        while len(self.stored) < count:  # noqa: ASYNC110 - the recorder has no word for it
            await asyncio.sleep(0)

    def ended(self) -> set[str]:
        """Give the tasks whose end is stored."""
        return {task_id for task_id, witness in self.stored.items() if witness is Witness.ENDED}


def failing(*_: object) -> None:
    """Do what a disk does that is broken."""
    raise OSError(errno.EIO, "input/output error")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    """Give the disk that every journal lies on; it answers at the end."""
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.answers.set()


def kept(store: FaultyStore, folder: Path, **more: int) -> Keeper:
    """Give a keeper with a journal in *folder*."""
    return Keeper(Journal(folder, **more), store.write)


def journals(folder: Path) -> list[int]:
    """Give the sizes of the journals in *folder*."""
    return [path.stat().st_size for path in folder.iterdir()]


def names(count: int) -> set[str]:
    """Give the first *count* task_ids."""
    return {str(number) for number in range(count)}


# ── group commit ────────────────────────────────────────────────────────────────────────────────
async def test_a_lone_commit_starts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is in flight: it waits for no timer, also where time stands still."""
    store = FaultyStore()
    recorder = Recorder(store.write, budget=30)
    run = Beginner(1)
    recorder.begin(run)
    committing = asyncio.ensure_future(recorder.commit(end(1)))
    with monkeypatch.context() as patch:
        now = asyncio.get_running_loop().time()
        patch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        for _ in range(100):  # turns of the loop
            await asyncio.sleep(0)
        is_done = committing.done()
    committed = await committing
    recorder.end(run)
    await recorder.close()

    assert (True, True) == (is_done, committed)
    assert [1] == store.writes


async def test_commits_join_while_another_is_written() -> None:
    """What comes during a write goes together in the next one."""
    store = FaultyStore(gated=True)
    recorder = Recorder(store.write, budget=30)
    first = asyncio.create_task(recorder.commit(report(0), at_once=True))
    await asyncio.wait([first], timeout=0.01)
    rest = [asyncio.create_task(recorder.commit(report(n), at_once=True)) for n in range(1, 50)]
    await asyncio.wait(rest, timeout=0.01)
    store.gate.release()
    store.gate.release()
    told = await asyncio.gather(first, *rest)
    await recorder.close()

    assert [1, 49] == store.writes
    assert [True] * 50 == told


async def test_runs_that_end_together_are_one_write() -> None:
    """A group waits for every run in flight, and starts with the last of them."""
    store = FaultyStore()
    recorder = Recorder(store.write, budget=30)
    for number in range(20):
        run = Beginner(number)
        run.is_told = True
        recorder.begin(run)
    await asyncio.gather(*(recorder.commit(end(number)) for number in range(20)))
    await recorder.close()

    assert [20] == store.writes


async def test_the_start_of_a_quick_run_is_not_reported() -> None:
    """Its end tells it all."""
    store = FaultyStore()
    recorder = Recorder(store.write, budget=30)
    run = Beginner(1)
    recorder.begin(run)
    await recorder.commit(end(1))
    recorder.end(run)
    await recorder.flush()
    await recorder.close()

    assert [1] == store.writes
    assert {"1"} == store.ended()
    assert not run.is_told


async def test_the_start_of_a_run_that_lasts_is_written() -> None:
    """Within twice the time that it may lie, unless something else was told of the run."""
    store = FaultyStore()
    recorder = Recorder(store.write, budget=30)
    told = Beginner(2)
    told.is_told = True
    recorder.begin(told)
    recorder.begin(Beginner(1))
    await asyncio.wait_for(store.until_stored(1), 5)
    recorder.begin(Beginner(3))
    await asyncio.wait_for(store.until_stored(2), 5)
    await recorder.close()

    assert {"1": Witness.STARTED, "3": Witness.STARTED} == store.stored
    assert [1, 1] == store.writes


async def test_a_flush_and_a_close_report_every_start() -> None:
    """Whoever reads his own writes sees a run that has just begun; an end leaves none out."""
    store = FaultyStore()
    recorder = Recorder(store.write, budget=30)
    recorder.begin(Beginner(1))
    await recorder.flush()
    flushed = dict(store.stored)
    recorder.begin(Beginner(2))
    await recorder.close()

    assert {"1": Witness.STARTED} == flushed
    assert {"1": Witness.STARTED, "2": Witness.STARTED} == store.stored


async def test_nobody_is_told_of_a_commit_before_it() -> None:
    """More waiting reports than one write takes: each waiter goes on after its own write."""
    store = FaultyStore()
    recorder = Recorder(store.write, budget=30)
    early = []

    async def commit(number: int) -> None:
        assert await recorder.commit(report(number), at_once=True)
        if str(number) not in store.stored:
            early.append(number)

    await asyncio.gather(*(commit(number) for number in range(3 * GROUP)))
    await recorder.close()

    assert [] == early
    assert 3 * GROUP == len(store.stored)
    assert 3 <= recorder.counters["groups"]
    assert GROUP == max(store.writes)


async def test_nobody_is_told_of_a_commit_before_it_in_an_outage() -> None:
    """Waiters of before and of during an outage: each goes on only when its report is stored."""
    store = FaultyStore(AWAY, AWAY, "lose", AWAY)
    recorder = Recorder(store.write, budget=30)
    early = []

    async def commit(number: int) -> None:
        assert await recorder.commit(report(number), at_once=True)
        if str(number) not in store.stored:
            early.append(number)

    first = [asyncio.create_task(commit(number)) for number in range(GROUP + 100)]
    await asyncio.wait(first, timeout=0.08)
    rest = [asyncio.create_task(commit(number)) for number in range(GROUP + 100, 3 * GROUP)]
    await asyncio.gather(*first, *rest)
    await recorder.close()

    assert [] == early
    assert names(3 * GROUP) == set(store.stored)


# ── faults ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("error", [AWAY, KeyError("a fault of ours")])
async def test_the_writer_outlives_any_error(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """What a write raises is told once, and the group is written again."""
    caplog.set_level(logging.ERROR)
    store = FaultyStore(error)
    recorder = Recorder(store.write, budget=30)
    committed = await recorder.commit(report(1), at_once=True)
    again = await recorder.commit(report(2), at_once=True)
    await recorder.close()

    assert (True, True, {"1", "2"}) == (committed, again, set(store.stored))
    assert 1 == recorder.counters["failures"]
    assert 1 == len(caplog.records)


async def test_a_group_that_fails_is_written_in_smaller_ones() -> None:
    """It may be too large for the time limit of a statement; what goes well grows again."""
    store = FaultyStore(AWAY, AWAY)
    recorder = Recorder(store.write, budget=30)
    for number in range(400):
        recorder.add(report(number))
    await recorder.flush(10)
    await recorder.close()

    assert [400, 250, 125, 250, 25] == store.writes


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", range(5))
async def test_every_report_is_written_in_the_end(seed: int, tmp_path: Path) -> None:
    """Errors, hangs and lost replies in any order: all is stored, and nothing is counted lost."""
    chance = random.Random(seed)
    words: list[Exception | str] = [AWAY, "hang", "lose", "well", OSError("reset"), KeyError("x")]
    store = FaultyStore(*chance.choices(words, k=6))
    recorder = Recorder(store.write, budget=0.02, keeper=kept(store, tmp_path))

    async def run(number: int) -> None:
        begun = Beginner(number)
        recorder.begin(begun)
        if number % 2:
            recorder.add(begun.started())
        await asyncio.sleep(chance.random() / 5)
        begun.is_told = True
        await recorder.commit(end(number))
        recorder.end(begun)

    await asyncio.gather(*(run(number) for number in range(200)))
    flushed = await recorder.flush(10)
    backlog = recorder.backlog
    await recorder.close()

    assert (True, 0) == (flushed, backlog)
    assert names(200) == store.ended()
    assert 0 == recorder.counters["dropped"]
    assert 300 <= recorder.counters["reports"] <= 400
    assert [] == journals(tmp_path)


async def test_a_wait_ends_with_its_budget_and_the_report_stays() -> None:
    """A database that does not answer holds a hook for its budget; the report is written later."""
    store = FaultyStore(gated=True)
    recorder = Recorder(store.write, budget=0.02)
    committed = await recorder.commit(report(1), at_once=True)
    left = recorder.backlog
    store.gate.release()
    flushed = await recorder.flush(5)
    await recorder.close()

    assert (False, 1, True) == (committed, left, flushed)
    assert {"1"} == set(store.stored)
    assert (1, 1) == (recorder.counters["late"], recorder.counters["reports"])


@pytest.mark.parametrize("make", [report, end])
async def test_nobody_waits_for_a_database_that_is_known_to_be_away(
    make: Callable[[int], Report], tmp_path: Path
) -> None:
    """After one budget sends and ends go on at once; all is stored when the database is back."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.2, keeper=kept(store, tmp_path))
    await recorder.commit(make(0), at_once=True)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    told = [await recorder.commit(make(number), at_once=True) for number in range(1, 21)]
    took = (loop.time() - begun) / 20
    stalled = recorder.is_stalled
    store.away = None
    flushed = await recorder.flush(5)
    await recorder.close()

    assert ([False] * 20, True, True) == (told, stalled, flushed)
    assert 0.2 > took
    assert names(21) == set(store.stored)
    assert (21, 0) == (recorder.counters["reports"], recorder.counters["dropped"])


async def test_a_final_report_does_not_wait_for_a_database_that_refuses(tmp_path: Path) -> None:
    """The journal takes it long before the budget is over; a send waits on, for its record."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=30, keeper=kept(store, tmp_path))
    sent = asyncio.create_task(recorder.commit(report(0), at_once=True))
    ended = [asyncio.create_task(recorder.commit(end(n), at_once=True)) for n in range(1, 4)]
    await asyncio.wait(ended, timeout=10)
    later = await asyncio.wait_for(recorder.commit(end(4)), 10)
    waits, journaled = not sent.done(), recorder.counters["journaled"]
    store.away = None
    told = [await sent, *[await one for one in ended], later]
    await recorder.flush(5)
    await recorder.close()

    assert (True, 4) == (waits, journaled)
    assert [True, False, False, False, False] == told
    assert names(5) == set(store.stored)


async def test_a_database_that_fails_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """A connection that was cut: made anew before the journal is needed."""
    store = FaultyStore(AWAY)
    recorder = Recorder(store.write, budget=30, keeper=kept(store, tmp_path))
    told = await recorder.commit(end(1), at_once=True)
    await recorder.close()

    assert told
    assert 0 == recorder.counters["journaled"]


async def test_a_cancelled_waiter_harms_nobody() -> None:
    """One sender that gives up: its report and its neighbours' are written all the same."""
    store = FaultyStore(gated=True)
    recorder = Recorder(store.write, budget=30)
    tasks = [
        asyncio.create_task(recorder.commit(report(number), at_once=True)) for number in range(3)
    ]
    await asyncio.wait(tasks, timeout=0)
    tasks[1].cancel()
    store.gate.release()
    store.gate.release()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    await recorder.close()

    assert [True, True] == [told[0], told[2]]
    assert tasks[1].cancelled()
    assert {"0", "1", "2"} == set(store.stored)


async def test_a_hook_that_is_cancelled_while_the_journal_is_written_loses_nothing(
    tmp_path: Path,
) -> None:
    """The database is away and the hook gives up: its final report is kept all the same."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.01, keeper=kept(store, tmp_path))
    await recorder.commit(report(0), at_once=True)
    hook = asyncio.create_task(recorder.commit(end(1)))
    await asyncio.sleep(0)
    hook.cancel()
    await asyncio.wait([hook])
    store.away = None
    await recorder.flush(5)
    await recorder.close()

    assert hook.cancelled()
    assert {"1"} == store.ended()


@pytest.mark.parametrize("fault", ["look", "clear", "read"])
async def test_a_fault_of_the_journal_is_no_outage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    """A folder that cannot be looked into, a disk that fails: the database takes what is told."""
    store = FaultyStore()
    folder = tmp_path / ("x" * 300 if fault == "look" else "journals")  # no name may be so long
    recorder = Recorder(store.write, budget=0.05, keeper=kept(store, folder))
    if fault != "look":
        store.away = AWAY
        await recorder.commit(end(0), at_once=True)
        broken = {"clear": "fsync", "read": "fstat"}[fault]
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, failing)
            store.away = None
            await recorder.commit(end(1), at_once=True)
            assert await recorder.flush(10)
    failures = recorder.counters["failures"]
    told = []
    for number in range(2, 30):
        told.append(await recorder.commit(end(number), at_once=True))
        await asyncio.sleep(0.01)
    said = [one.message for one in caplog.records if one.name == "aiotrack.keeper"]
    await recorder.close()

    assert all(told)
    assert 0 < len(said) == len(set(said))
    assert failures == recorder.counters["failures"]
    assert (fault != "look") == caplog.text.count("are not being recorded")


async def test_each_trouble_of_the_journal_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that breaks, is mended and breaks again: one line for each time."""
    folder = tmp_path / "journals"
    keeper = kept(FaultyStore(), folder)
    told = []
    for is_broken in (True, False, True):
        if is_broken:
            shutil.rmtree(folder, ignore_errors=True)
            folder.write_text("no folder")
        else:
            folder.unlink()
        told.append([await keeper.keep(end(number)) for number in range(3)])
    await keeper.close()

    assert [[False] * 3, [True] * 3, [False] * 3] == told
    assert 2 == caplog.text.count("cannot be written")


async def test_a_folder_that_cannot_be_looked_into_is_told_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is away, comes back and goes again."""
    monkeypatch.setattr("aiotrack.keeper.LOOK_AGAIN", 0.0)
    keeper = kept(FaultyStore(), tmp_path)
    for is_broken in (True, True, False, True):
        with monkeypatch.context() as patch:
            if is_broken:
                patch.setattr(Path, "iterdir", failing)
            await keeper.replay()
    await keeper.close()

    assert 2 == caplog.text.count("cannot be looked for")


async def test_a_full_journal_is_told_once_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it does not take is in memory only, and lost with the process: somebody must know."""
    keeper = kept(FaultyStore(), tmp_path, max_bytes=2_000)
    counts = []
    for _ in range(2):
        counts.append([await keeper.keep(end(number)) for number in range(10)].count(False))
        while keeper.is_holding:
            await keeper.replay()
    await keeper.close()

    assert 0 < min(counts)
    assert 2 == caplog.text.count("the journal is full")


# ── a disk that stands still ────────────────────────────────────────────────────────────────────
async def test_a_disk_that_stands_still_holds_no_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, disk: SlowDisk
) -> None:
    """Database and disk are away (a replaced fsync waits): a second's wait once, then none.

    What the disk was given is kept when it answers, and takes no memory from then on.
    """
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.01, keeper=kept(store, tmp_path))
    await recorder.commit(report(100), at_once=True)  # the outage has begun
    disk.answers.clear()
    begun = time.monotonic()
    first = await asyncio.wait_for(asyncio.gather(*(recorder.commit(end(n)) for n in range(20))), 5)
    waited = time.monotonic() - begun
    begun = time.monotonic()
    for number in range(20, 40):
        await recorder.commit(end(number))
    at_once = time.monotonic() - begun
    backlog, journaled = recorder.backlog, recorder.counters["journaled"]
    said = [one.message for one in caplog.records if one.name == "aiotrack.keeper"]
    disk.answers.set()
    await until("what the disk was given is kept", lambda: recorder.backlog == 21)
    late = recorder.counters["journaled"]
    after = await recorder.commit(end(40))
    kept_again = recorder.counters["journaled"]
    store.away = None
    flushed = await recorder.flush(20)
    await recorder.close()

    assert [False] * 21 == [*first, after]
    assert waited > 0.9
    assert at_once < 0.9, "nobody waits for a disk that is known to stand still"
    assert (41, 0, 20, 21) == (backlog, journaled, late, kept_again)
    assert 1 == len(said)
    assert "does not answer" in said[0]
    assert flushed
    assert names(41) == store.ended()
    assert 21 == recorder.counters["flushed"], "nothing is written twice"


async def test_a_disk_that_stands_still_again_and_again_is_told_once_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, disk: SlowDisk
) -> None:
    """Syncs of 1.5 s each (a replaced fsync sleeps): one line, until one of them was in time."""
    keeper = kept(FaultyStore(), tmp_path)
    lines = []
    for seconds in (1.5, 1.5, 0.0, 1.5):
        disk.seconds = seconds
        asked = disk.asked
        is_kept = await keeper.keep(end(1))
        await until("it is synced", lambda: keeper._task is not None and keeper._task.done())
        lines.append((is_kept, caplog.text.count("does not answer")))
        assert disk.asked > asked
    await keeper.close()

    assert [(False, 1), (False, 1), (True, 1), (False, 2)] == lines


async def test_a_disk_that_is_slow_but_goes_on_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, disk: SlowDisk
) -> None:
    """Long reports for two seconds (a replaced fsync sleeps): each piece that ends is progress."""
    disk.seconds = 0.3
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.01, keeper=kept(store, tmp_path))
    ends = [end(number) for number in range(6)]
    for one in ends:
        one.result = '"' + "x" * 600_000 + '"'
    begun = time.monotonic()
    await asyncio.gather(*map(recorder.commit, ends))
    waited = time.monotonic() - begun
    journaled, backlog = recorder.counters["journaled"], recorder.backlog
    disk.seconds = 0.0
    store.away = None
    await recorder.flush(20)
    await recorder.close()

    assert waited > 1.5
    assert (6, 0) == (journaled, backlog)
    assert "does not answer" not in caplog.text
    assert names(6) == store.ended()


async def test_a_body_that_blocks_the_loop_is_no_fault_of_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, disk: SlowDisk
) -> None:
    """Nobody could hear of the append that ended meanwhile (a replaced fsync sleeps)."""
    disk.seconds = 0.2
    keeper = kept(FaultyStore(), tmp_path)
    hook = asyncio.create_task(keeper.keep(end(1)))
    await until("the disk is asked", lambda: disk.asked > 0)
    time.sleep(1.5)  # noqa: ASYNC251 - as such a body does
    is_kept = await hook
    disk.seconds = 0.0
    await keeper.close()

    assert is_kept
    assert "" == caplog.text


@pytest.mark.parametrize("first", ["disk", "database"])
async def test_a_task_waits_for_disk_or_database_whichever_answers_first(
    tmp_path: Path, disk: SlowDisk, first: str
) -> None:
    """block_ack: without a limit (a replaced fsync waits), also with progress that is in memory."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.01, keeper=kept(store, tmp_path), block_ack=True)
    await recorder.commit(report(100), at_once=True)
    disk.answers.clear()
    for number in range(2):
        early = start(number)
        early.patch = {"percent": ((1, 2, 3), "50")}
        recorder.add(early)
    hooks = [asyncio.create_task(recorder.commit(end(0)))]
    await asyncio.wait(hooks, timeout=1.5)
    hooks.append(asyncio.create_task(recorder.commit(end(1))))  # it is known to stand still
    await asyncio.wait(hooks, timeout=0.3)
    waiting = [not hook.done() for hook in hooks]
    if first == "disk":
        disk.answers.set()
    else:
        store.away = None
    done, _ = await asyncio.wait(hooks, timeout=10)
    journaled, stored = recorder.counters["journaled"], store.ended()
    disk.answers.set()
    store.away = None
    await recorder.flush(20)
    await recorder.close()

    assert [True, True] == waiting
    assert 2 == len(done)
    assert ((2, set()) if first == "disk" else (0, names(2))) == (journaled, stored)
    assert names(2) == store.ended()


async def test_what_waits_for_a_disk_that_stands_still_is_bounded(
    tmp_path: Path, disk: SlowDisk
) -> None:
    """What memory has no room for is not kept beside it either (a replaced fsync waits)."""
    store = FaultyStore()
    store.away = AWAY
    keeper = kept(store, tmp_path)
    recorder = Recorder(store.write, budget=0.01, max_backlog=100, keeper=keeper)
    await recorder.commit(report(0), at_once=True)
    disk.answers.clear()
    for first in (0, 5000):
        await asyncio.gather(*(recorder.commit(end(first + n)) for n in range(5000)))
    held, backlog = len(keeper._late) + len(keeper._queue), recorder.backlog
    disk.answers.set()
    store.away = None
    flushed = await recorder.flush(20)
    await recorder.close()

    assert 1024 >= held
    assert 100 >= backlog
    assert flushed
    assert 10_000 <= len(store.ended()) + recorder.counters["dropped_ended"]


async def test_a_stop_keeps_what_a_disk_that_stood_still_was_given(
    tmp_path: Path, disk: SlowDisk
) -> None:
    """It waits for the disk for as long as its caller does (a replaced fsync waits)."""
    store = FaultyStore()
    store.away = AWAY
    keeper = kept(store, tmp_path)
    recorder = Recorder(store.write, budget=0.01, keeper=keeper)
    await recorder.commit(report(100), at_once=True)
    disk.answers.clear()
    await asyncio.gather(*(recorder.commit(end(number)) for number in range(10)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await recorder.close(0, for_good=False)
    disk.answers.set()
    left = await recorder.close(0)
    after = FaultyStore()
    heir = Recorder(after.write, keeper=kept(after, tmp_path))
    heir.start()
    await after.until_stored(11)
    await heir.close()

    assert [] == left
    assert names(10) == after.ended()


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────
async def test_a_full_backlog_lets_starts_go_before_ends() -> None:
    """Memory is bounded; what is least important and oldest is dropped first, and counted."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, max_backlog=100)
    for number in range(150):
        recorder.add((report, end)[number % 2](number))
    counters = dict(recorder.counters)
    await asyncio.sleep(0.06)  # a try fails: what it had is bounded, too
    for number in range(150, 400):
        recorder.add(start(number))
        await asyncio.sleep(0)
    most = recorder.backlog
    store.away = None
    await recorder.flush(5)
    await recorder.close()

    assert (150, counters["dropped"]) == (counters["reports"], counters["dropped_sent"])
    assert 100 >= most
    assert {str(number) for number in range(1, 150, 2)} == store.ended()
    assert 400 == len(store.stored) + recorder.counters["dropped"]
    assert 0 == recorder.counters["dropped_ended"]


async def test_long_reports_take_the_room_of_many() -> None:
    """Memory is bounded in bytes: a result of 60 KB counts like sixty short reports."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, max_backlog=1000)
    for number in range(100):
        recorder.add(end(number))
        await asyncio.sleep(0.001)
    failing = recorder.counters["failures"]
    for number in range(100, 200):
        one = end(number)
        one.result = '"' + "x" * 60_000 + '"'
        recorder.add(one)
    most = recorder.backlog
    store.away = None
    await recorder.flush(5)
    await recorder.close()

    assert 0 < failing
    assert 14 <= most <= 17
    assert 200 == len(store.stored) + recorder.counters["dropped_ended"]
    assert set(map(str, range(200 - most, 200))) == store.ended()


async def test_recorded_and_dropped_are_what_was_sent(tmp_path: Path) -> None:
    """The database away from the start, the journal full: each report is stored or counted."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(
        store.write, budget=0.01, max_backlog=300, keeper=kept(store, tmp_path, max_bytes=50_000)
    )
    for number in range(2000):
        await recorder.commit(end(number) if number % 2 else report(number), at_once=True)
    size = sum(journals(tmp_path))
    store.away = None
    flushed = await recorder.flush(10)
    await recorder.close()

    assert flushed
    assert 50_000 >= size
    assert 2000 == recorder.counters["reports"]
    assert 2000 == len(store.stored) + recorder.counters["dropped"]
    assert 300 - 15 <= len(store.stored) - recorder.counters["journaled"]
    assert 1000 - 15 <= recorder.counters["dropped_sent"]


@pytest.mark.parametrize(("length", "room"), [(0, 100), (40_000, 16_000)])
async def test_who_waits_for_what_had_no_room_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int, room: int
) -> None:
    """A thousand ends at once, more than memory is for: committed or in the journal, no third."""
    store = FaultyStore()
    recorder = Recorder(store.write, max_backlog=room, keeper=kept(store, tmp_path))
    ends = [end(number) for number in range(1000)]
    for one in ends:
        one.result = '"' + "x" * length + '"'
    told = await asyncio.gather(*map(recorder.commit, ends))
    stored = store.ended()  # the journal was not replayed yet, or is being
    journaled = recorder.counters["journaled"]
    flushed = await recorder.flush(20)
    await recorder.close()

    assert {str(number) for number, is_committed in enumerate(told) if is_committed} <= stored
    assert 0 < journaled == told.count(False)
    assert flushed
    assert names(1000) == store.ended()
    assert (1000, 0) == (recorder.counters["reports"], recorder.counters["dropped"])
    assert [] == caplog.messages, "nothing was lost"


async def test_a_hook_that_is_cancelled_as_it_is_told_of_no_room_loses_nothing(
    tmp_path: Path,
) -> None:
    """In the very turn in which its report is dropped: it is put again, or counted."""
    store = FaultyStore()
    keeper = kept(store, tmp_path)
    recorder = Recorder(store.write, max_backlog=100, keeper=keeper)
    recorder.start()
    await until("the writer has nothing to do", lambda: not keeper.has_work)
    hooks = [asyncio.create_task(recorder.commit(end(number))) for number in range(1000)]
    await asyncio.sleep(0)
    for hook in hooks:
        hook.cancel()
    told = await asyncio.gather(*hooks, return_exceptions=True)
    await until("nothing is left, though nobody asks", lambda: recorder.backlog == 0, 20)
    await recorder.close()

    assert 1000 == sum(isinstance(one, asyncio.CancelledError) for one in told)
    assert 1000 == len(store.ended()) + recorder.counters["dropped_ended"]
    assert 95 <= len(store.ended())


async def test_what_tasks_wait_for_is_never_dropped(tmp_path: Path) -> None:
    """block_ack: ends that have no room in memory are kept all the same, others go."""
    (tmp_path / "file").write_text("")
    store = FaultyStore()
    store.away = AWAY
    broken = kept(store, tmp_path / "file")
    recorder = Recorder(store.write, budget=0.01, keeper=broken, block_ack=True, max_backlog=GROUP)
    sends = [recorder.commit(report(number)) for number in range(2000)]
    await asyncio.gather(*sends)
    hooks = [asyncio.create_task(recorder.commit(end(number))) for number in range(2 * GROUP)]
    await asyncio.wait(hooks, timeout=0.5)
    store.away = None
    await asyncio.wait(hooks, timeout=10)
    await recorder.close()

    assert 0 == recorder.counters["dropped_ended"]
    assert {str(number) for number in range(2 * GROUP)} <= set(store.stored)


async def test_a_task_waits_when_nothing_keeps_its_report(tmp_path: Path) -> None:
    """block_ack: without a journal an end is held until it is stored; a send is not."""
    (tmp_path / "file").write_text("")
    store = FaultyStore()
    store.away = AWAY
    broken = kept(store, tmp_path / "file")
    recorder = Recorder(store.write, budget=0.01, keeper=broken, block_ack=True)
    sent = await asyncio.wait_for(recorder.commit(report(0), at_once=True), 5)
    hook = asyncio.create_task(recorder.commit(end(1)))
    await asyncio.wait([hook], timeout=0.1)
    waits = not hook.done()
    store.away = None
    await asyncio.wait_for(hook, 5)
    stored = store.ended()
    await recorder.close()

    assert (False, True) == (sent, waits)
    assert {"1"} == stored


async def test_a_task_goes_on_whose_end_the_journal_has(tmp_path: Path) -> None:
    """block_ack: its start is in memory, which is no reason to wait for the database."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.01, keeper=kept(store, tmp_path), block_ack=True)
    await recorder.commit(report(0), at_once=True)
    recorder.add(start(1))
    hook = asyncio.create_task(recorder.commit(end(1)))
    await asyncio.wait([hook], timeout=5)
    goes_on = hook.done()
    store.away = None
    await recorder.flush(5)
    await recorder.close()

    assert goes_on
    assert {"1"} == store.ended()


# ── flush and close ─────────────────────────────────────────────────────────────────────────────
async def test_flush_says_when_its_time_is_over() -> None:
    """False while the database hangs; True when all is stored."""
    store = FaultyStore(gated=True)
    recorder = Recorder(store.write, budget=30)
    recorder.add(report(1))
    early = await recorder.flush(0.02)
    store.gate.release()
    late = await recorder.flush(5)
    await recorder.close()

    assert (False, True) == (early, late)


async def test_who_flushes_in_an_outage_leaves_nothing_behind() -> None:
    """Each read of an outage asks for what this process has told first, and gives up."""
    store = FaultyStore(gated=True)
    recorder = Recorder(store.write, budget=30)
    recorder.add(report(1))
    flushed = [await recorder.flush(0.001) for _ in range(50)]
    waiting = sum(len(group.futures) for group in recorder._groups())
    store.gate.release()
    store.gate.release()
    await recorder.close()

    assert [False] * 50 == flushed
    assert 1 >= waiting


async def test_flush_waits_for_the_journal(tmp_path: Path) -> None:
    """What the journal took is part of what was reported: it is in the database afterwards."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.01, keeper=kept(store, tmp_path))
    await asyncio.gather(*(recorder.commit(end(number)) for number in range(50)))
    await recorder.commit(end(50))
    journaled = recorder.counters["journaled"]
    store.away = None
    flushed = await recorder.flush(5)
    stored = store.ended()
    await recorder.close()

    assert (51, True) == (journaled, flushed)
    assert names(51) == stored


async def test_close_writes_what_is_left() -> None:
    """A database that answers gets everything before the end."""
    store = FaultyStore()
    recorder = Recorder(store.write)
    for number in range(3 * GROUP):
        recorder.add(report(number))
    left = await recorder.close()

    assert [] == left
    assert names(3 * GROUP) == set(store.stored)


async def test_close_journals_what_cannot_be_written(tmp_path: Path) -> None:
    """A hanging write does not hold the end; whoever comes next replays it."""
    store = FaultyStore(gated=True)
    recorder = Recorder(store.write, keeper=kept(store, tmp_path))
    for number in range(10):
        recorder.add(end(number))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    left = await recorder.close(0.1)
    took = loop.time() - begun
    after = FaultyStore()
    heir = Recorder(after.write, keeper=kept(after, tmp_path))
    heir.start()
    await after.until_stored(10)
    await heir.close()

    assert ([], {}) == (left, store.stored)
    assert 5 > took, "it would wait for ever"
    assert names(10) == after.ended()


async def test_close_keeps_final_reports_when_the_journal_is_small(tmp_path: Path) -> None:
    """The order of sacrifice holds for the last append, too; what is left is given back."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.01, keeper=kept(store, tmp_path, max_bytes=10_000))
    await recorder.commit(report(0), at_once=True)
    for number in range(1, 101):
        recorder.add((start, end)[number % 20 == 0](number))
    left = await recorder.close(0.1)

    assert 101 == len(left) + recorder.counters["journaled"]
    assert set() == {one.origin.task_id for one in left if one.witness is Witness.ENDED}


async def test_a_write_that_is_cancelled_keeps_its_progress() -> None:
    """The end of a loop cancels the writer: the run's end, told meanwhile, joins what it had."""
    store = FaultyStore(gated=True)
    recorder = Recorder(store.write)
    early, late = start(1), end(1)
    early.patch = {"percent": ((1, 2, 3), "50")}
    recorder.add(early)
    while not store.writes:  # noqa: ASYNC110 - the recorder has no word for it
        await asyncio.sleep(0.01)
    recorder.add(late)
    assert recorder._task is not None
    recorder._task.cancel()
    await asyncio.sleep(0)
    written: list[Report] = []

    async def write(reports: Sequence[Report]) -> None:
        written.extend(reports)

    recorder._write = write
    await recorder.close()

    assert [(Witness.ENDED, early.patch)] == [(one.witness, one.patch) for one in written]


async def test_a_close_that_is_cancelled_ends_nothing_for_good() -> None:
    """TaskIQ's limit for a stop was over, but the process lives on."""
    store = FaultyStore(gated=True)
    recorder = Recorder(store.write)
    recorder.add(report(1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await recorder.close(30, for_good=False)
    store.gate.release()
    store.gate.release()
    store.gate.release()
    committed = await recorder.commit(report(2), at_once=True)
    store.gate.release()
    flushed = await recorder.flush(5)
    await recorder.close()

    assert (True, True, {"1", "2"}) == (committed, flushed, set(store.stored))


async def test_a_close_that_is_cancelled_while_the_disk_is_slow_loses_nothing(
    tmp_path: Path,
) -> None:
    """The close at the loop's end finds the journal as the first one did."""
    store = FaultyStore()
    store.away = AWAY
    keeper = kept(store, tmp_path)
    recorder = Recorder(store.write, budget=0.01, keeper=keeper)
    for number in range(100):
        recorder.add(report(number))
    keeper._thread.submit(time.sleep, 0.3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await recorder.close(0)
    left = await recorder.close(0)
    after = FaultyStore()
    heir = Recorder(after.write, keeper=kept(after, tmp_path))
    heir.start()
    await after.until_stored(100)
    await heir.close()

    assert [] == left


async def test_close_lets_hooks_go_whose_write_does_not_end(tmp_path: Path) -> None:
    """The writer is stuck in a rollback for longer than the close waits for it."""
    stuck = asyncio.Event()

    async def write(_: Sequence[Report]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await stuck.wait()
            raise

    store = FaultyStore()
    recorder = Recorder(write, budget=30, keeper=kept(store, tmp_path))
    hook = asyncio.create_task(recorder.commit(end(1), at_once=True))
    await asyncio.sleep(0.01)
    await recorder.close(0.02, for_good=False)
    committed = await asyncio.wait_for(hook, 5)
    found = journals(tmp_path)
    stuck.set()
    await recorder.close(0.02)

    assert not committed
    assert 1 == len(found)


async def test_close_lets_waiting_hooks_go(tmp_path: Path) -> None:
    """A hook that waits for a write that was ended: it goes on, and its report is journaled."""
    store = FaultyStore(gated=True)
    recorder = Recorder(store.write, budget=30, keeper=kept(store, tmp_path))
    hook = asyncio.create_task(recorder.commit(end(1), at_once=True))
    flush = asyncio.create_task(recorder.flush())
    await asyncio.wait([hook], timeout=0.01)
    await recorder.close(0.02)
    told = await asyncio.wait_for(asyncio.gather(hook, flush), 5)

    assert [False, True] == told
    assert 1 == len(journals(tmp_path))


# ── the journal's disk beside a healthy database ────────────────────────────────────────────────
@pytest.mark.timeout(60)
async def test_a_disk_that_stands_still_at_the_end_of_a_replay_stops_no_commit(
    tmp_path: Path, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is cleared for ever: what is fresh is committed."""
    store = FaultyStore()
    store.away = AWAY
    keeper = kept(store, tmp_path)
    recorder = Recorder(store.write, budget=0.2, keeper=keeper)
    await recorder.commit(report(100), at_once=True)
    await recorder.commit(end(1))
    clear = keeper._journal.clear

    def hanging(offset: int) -> bool:
        disk.answers.clear()
        return clear(offset)

    monkeypatch.setattr(keeper._journal, "clear", hanging)
    store.away = None
    await until("the disk stands still", lambda: keeper._is_stalled)
    told = [await recorder.commit(end(number)) for number in range(200, 220)]
    monkeypatch.setattr(keeper._journal, "clear", clear)
    disk.answers.set()
    flushed = await recorder.flush(20)
    await recorder.close()

    assert [True] * 20 == told
    assert flushed
    assert 22 == len(store.stored)
    assert 0 == sum(journals(tmp_path))


@pytest.mark.timeout(60)
async def test_a_replay_that_waits_behind_an_append_stops_no_commit_for_long(
    tmp_path: Path, disk: SlowDisk
) -> None:
    """They share a thread: after a second the writer goes on without."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.2, keeper=kept(store, tmp_path))
    await recorder.commit(report(100), at_once=True)
    await recorder.commit(end(1))
    disk.answers.clear()
    waiting = [asyncio.create_task(recorder.commit(end(number))) for number in range(200, 210)]
    await asyncio.sleep(0.05)
    store.away = None
    await asyncio.wait(waiting)

    async def is_committed() -> bool:
        return await recorder.commit(end(300), at_once=True)

    await until("fresh reports are committed", is_committed)
    disk.answers.set()
    flushed = await recorder.flush(20)
    await recorder.close()

    assert flushed
    assert 13 == len(store.stored)


async def test_a_stop_while_the_journal_is_cleared_loses_nothing_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread clears it though nobody waits any more; what comes then is read from its begin."""
    store = FaultyStore()
    store.away = AWAY
    keeper = kept(store, tmp_path)
    recorder = Recorder(store.write, budget=0.05, keeper=keeper)
    await recorder.commit(report(100), at_once=True)
    for number in range(1, 6):
        await recorder.commit(end(number))
    clear, entered = keeper._journal.clear, []

    def slow(offset: int) -> bool:
        entered.append(offset)
        time.sleep(0.3)
        return clear(offset)

    monkeypatch.setattr(keeper._journal, "clear", slow)
    store.away = None
    await until("it is being cleared", lambda: bool(entered))
    await recorder.close(0.0, for_good=False)
    monkeypatch.setattr(keeper._journal, "clear", clear)
    store.away = AWAY
    await recorder.commit(end(50))
    await recorder.commit(end(51))
    store.away = None
    flushed = await recorder.flush(20)
    await recorder.close()

    assert flushed
    assert {"50", "51"} <= store.stored.keys()
    assert 0 == sum(journals(tmp_path))


@pytest.mark.timeout(60)
async def test_who_flushes_while_the_disk_stands_still_does_not_spin(
    tmp_path: Path, disk: SlowDisk
) -> None:
    """It looks again now and then."""
    store = FaultyStore()
    store.away = AWAY
    recorder = Recorder(store.write, budget=0.05, keeper=kept(store, tmp_path))
    await recorder.commit(report(100), at_once=True)
    await recorder.commit(end(1))
    disk.answers.clear()
    await recorder.commit(end(2))
    store.away = None
    before = recorder.counters["groups"]
    flushed = await recorder.flush(1)
    groups = recorder.counters["groups"] - before
    disk.answers.set()
    flushed_then = await recorder.flush(20)
    await recorder.close()

    assert (False, True) == (flushed, flushed_then)
    assert 250 > groups
