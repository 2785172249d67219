"""What is below the database: a disk that is full, a server that promises more than it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from aiotrack import Tracker
from aiotrack.keeper import STALL
from aiotrack.testing.binaries import shared_temp
from aiotrack.testing.process import Account
from aiotrack.testing.servers import PostgresServer
from tests.integration.bench import bench
from tests.integration.load import BUDGET, QUICK, Load, everything, run_report
from tests.integration.pooler import stand_in
from tests.integration.proxy import proxied
from tests.slow_disk import SlowDisk
from tests.waits import until

NO_VACUUM = {"autovacuum": "off"}
"""It would free space when nobody expects it."""


# ── R24: the disk is full ───────────────────────────────────────────────────────────────────────
class Disk:
    """A database on a disk that can be filled, and freed again."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.database = database
        self.url = server.url_of(database)

    def fill(self) -> None:
        """Leave no byte for the tables."""
        raise NotImplementedError

    def free(self) -> None:
        """Give back what `fill` took."""
        raise NotImplementedError


class SmallDisk(Disk):
    """A disk of 48 MB of its own: a table of somebody else's takes it whole."""

    def fill(self) -> None:
        self.server.psql("CREATE TABLE ballast (words text)", self.database)
        grow = "INSERT INTO ballast SELECT repeat(md5(n::text), 60) FROM generate_series(1, {}) n"
        for count in (500, 4):
            with contextlib.suppress(Exception):
                while True:
                    self.server.psql(grow.format(count), self.database)

    def free(self) -> None:
        self.server.psql("DROP TABLE ballast", self.database)


class LimitedFiles(Disk):
    """Where nobody may mount: no file may grow beyond 16 MB, the size of a file of the log."""

    def fill(self) -> None:
        columns = "task_id, task_name, module, status, attempt, created_at, args, kwargs, metadata"
        more = "presumed, runs, duplicates, run_id, witness, exact, plain, error"
        values = "repeat(md5(n::text), 7), 'x', 'x', 'SUCCESS', 1, now(), '[]', '{}', '{}'"
        rest = "false, 1, 0, 'x', 2, true, true, repeat(md5(n::text), 50)"
        self._limit(str(16 * 1024 * 1024))
        with contextlib.suppress(Exception):
            self.server.psql(
                f"INSERT INTO aiotrack_executions ({columns}, {more}) "
                f"SELECT {values}, {rest} FROM generate_series(1, 20000) n",
                self.database,
            )

    def free(self) -> None:
        self._limit("unlimited")

    def _limit(self, size: str) -> None:
        account = Account.unprivileged()
        parent = psutil.Process(self.server.pid)
        for process in [parent, *parent.children(recursive=True)]:
            done = subprocess.run(
                ["prlimit", f"--pid={process.pid}", f"--fsize={size}:"],
                check=False,
                user=None if account is None else account.uid,  # root may not, its owner may
                group=None if account is None else account.gid,
                extra_groups=None if account is None else [],
            )
            assert 0 == done.returncode or not process.is_running()  # some end meanwhile


@contextlib.contextmanager
def mounted() -> Iterator[Path | None]:
    """Mount 48 MB; None where that is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="aiotrack-disk-", dir=shared_temp()))
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    may = shutil.which("mount") is not None and os.geteuid() == 0
    is_mounted = may and subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield folder if is_mounted else None
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@contextlib.contextmanager
def small_disk() -> Iterator[Disk]:
    """Give a database on a small disk, or with small files; the server ends before its disk."""
    with mounted() as folder, PostgresServer(settings=NO_VACUUM) as server:
        if folder is None:
            with limited_files(server) as disk:
                yield disk
            return
        place = folder / "tables"
        place.mkdir(mode=0o700)
        account = Account.unprivileged()
        if account is not None:
            os.chown(place, account.uid, account.gid)
            folder.chmod(0o755)
        server.psql(f"CREATE TABLESPACE small LOCATION '{place}'")
        server.psql("CREATE DATABASE shop TABLESPACE small")
        yield SmallDisk(server, "shop")


@contextlib.contextmanager
def limited_files(server: PostgresServer | None = None) -> Iterator[Disk]:
    """Give a database whose files may be limited."""
    with contextlib.ExitStack() as stack:
        own = server or stack.enter_context(PostgresServer(settings=NO_VACUUM))
        own.create_database("shop")
        yield LimitedFiles(own, "shop")


async def fill_and_free(load: Load, tracker: Tracker, disk: Disk) -> float:
    """Run tasks before, while and after the disk is full; give the seconds of the recovery."""
    counters = tracker.recorder().counters
    await load.batch()
    await asyncio.to_thread(disk.fill)
    failures, journaled = counters["failures"], counters["journaled"]
    end = time.monotonic() + 10
    while counters["failures"] == failures and time.monotonic() < end:
        await load.batch(100)
    await asyncio.sleep(BUDGET)
    slow = min([await load.batch() for _ in range(5)])
    seen = await tracker.stats()
    assert failures < counters["failures"], "the disk is not full"
    assert journaled < counters["journaled"]
    assert BUDGET / 2 > slow, "tasks go on"
    assert 0 < seen.success, "reads go on"
    await asyncio.to_thread(disk.free)
    begun = time.perf_counter()
    assert await tracker.flush(20)
    return time.perf_counter() - begun


async def survive(disk: Disk, rounds: int) -> None:
    """Fill the disk and free it, so many times; nothing may be lost."""
    async with Tracker(disk.url) as tracker, bench(tracker) as b:
        load = Load(b)
        took = [await fill_and_free(load, tracker, disk) for _ in range(rounds)]
        wrong = load.faults(await everything(tracker))
        counters = tracker.recorder().counters
    name = type(disk).__name__
    print(f"{name}: {len(load.sent)} tasks, {counters['journaled']} final reports in the journal")
    print(f"{name}: all recorded {max(took):.2f} s after space was free")

    assert [] == wrong[:5]
    assert 0 == counters["dropped"]
    assert 10 > max(took)


DISKS: dict[str, Callable[[], Any]] = {"small disk": small_disk, "small files": limited_files}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", DISKS)
async def test_a_full_disk_costs_nothing_but_time(kind: str) -> None:
    """R24: tasks go on, their ends wait in the journal; with space again all are recorded."""
    with DISKS[kind]() as disk:
        await survive(disk, 1)


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_disk_that_is_full_again_and_again() -> None:
    """R24, long: ten times full and free."""
    with small_disk() as disk:
        await survive(disk, 10)


# ── the journal's disk stands still ─────────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
async def test_a_journal_whose_disk_stands_still_costs_a_second_once(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Database and disk do not answer (a replaced fsync waits): tasks go on, nothing is lost."""
    settings = {"journal_dir": str(tmp_path / "journals")}
    async with proxied(postgres_url) as (proxy, url), Tracker(url, settings=settings) as tracker:
        disk = SlowDisk(monkeypatch)
        async with bench(tracker) as b:
            load = Load(b)
            await load.batch()
            proxy.is_black_hole = True
            disk.answers.clear()
            first = await load.batch()
            later = [await load.batch() for _ in range(20)]
            counters = tracker.recorder().counters
            journaled = [counters["journaled"]]
            disk.answers.set()
            await until("what the disk was given is kept", lambda: counters["journaled"] == 20)
            await load.batch()
            journaled.append(counters["journaled"])
            proxy.is_black_hole = False
            proxy.cut()
            flushed = await tracker.flush(20)
            wrong = load.faults(await everything(tracker))
    print(f"first {first:.3f} s, later {max(later):.4f} s for 20 tasks")

    assert [] == wrong[:5]
    assert flushed
    assert 2 * BUDGET + STALL + QUICK > first, "a send, its task, and the journal"
    assert QUICK > sorted(later)[10]
    assert [0, 40] == journaled
    assert 0 == counters["dropped"]


@pytest.mark.timeout(60)
async def test_a_database_that_answers_before_the_disk_does_is_written_to(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the journal holds waits for the disk (a replaced fsync); what is fresh does not."""
    settings = {"journal_dir": str(tmp_path / "journals")}
    async with proxied(postgres_url) as (proxy, url), Tracker(url, settings=settings) as tracker:
        disk, recorder = SlowDisk(monkeypatch), tracker.recorder()
        await recorder.commit(run_report("first"), at_once=True)
        proxy.is_black_hole = True
        await recorder.commit(run_report("kept"))
        disk.answers.clear()
        late = await recorder.commit(run_report("late"))
        proxy.is_black_hole = False
        proxy.cut()

        async def is_back() -> bool:
            return await recorder.commit(run_report("fresh"), at_once=True)

        await until("fresh reports are committed", is_back)
        disk.answers.set()
        flushed = await tracker.flush(20)
        found = await everything(tracker)

    assert not late
    assert flushed
    assert {"first", "kept", "late", "fresh"} == {one.task_id for one in found}
    assert 0 == recorder.counters["dropped"]


# ── R26: durability settings ────────────────────────────────────────────────────────────────────
LATE = {"synchronous_commit": "off", "wal_writer_delay": "10000ms", "autovacuum": "off"}
"""A crash loses what was committed in the last ten seconds, unless a commit waits for the disk."""


PATIENT = {"commit_budget": 10.0}
"""A slow disk is waited for: the journal shall not help."""


@contextlib.asynccontextmanager
async def connected(server: PostgresServer, way: str) -> AsyncIterator[Tracker]:
    """Give a tracker that reaches the server in one of the three ways."""
    async with contextlib.AsyncExitStack() as stack:
        if way == "an engine":
            engine = create_async_engine(server.url)
            stack.push_async_callback(engine.dispose)
            yield await stack.enter_async_context(Tracker(engine, settings=PATIENT))
        elif way == "a pooler":
            url = await stack.enter_async_context(stand_in(server, "postgres"))
            yield await stack.enter_async_context(Tracker(url, settings=PATIENT))
        else:
            yield await stack.enter_async_context(Tracker(server.url, settings=PATIENT))


async def end_plainly(tracker: Tracker, name: str) -> bool:
    """Tell the end of a first run: one statement."""
    return await tracker.recorder().commit(run_report(name), at_once=True)


async def end_again(tracker: Tracker, name: str) -> bool:
    """Tell the end of a retry: a transaction."""
    return await tracker.recorder().commit(run_report(name, attempt=2), at_once=True)


async def end_by_hand(tracker: Tracker, name: str) -> bool:
    """Tell the end of work that nobody here ran."""
    await tracker.update(name, status="failure")
    return True


async def lose_power(server: PostgresServer) -> int:
    """Commit twenty rows as the server would have it, kill it and start it; give what is left."""
    connection = await asyncpg.connect(server.dsn)
    for _ in range(20):
        await connection.execute("INSERT INTO control VALUES (1)")
    server.kill()  # at once: the loop stands still meanwhile
    connection.terminate()
    await asyncio.to_thread(server.start)
    return int(server.psql("SELECT count(*) FROM control"))


async def crash_after_each_kind(way: str, count: int) -> dict[str, tuple[int, int]]:
    """Tell ends of each kind, crash, and count; give those that are there, and unsafe rows."""
    found = {}
    with PostgresServer(settings=LATE) as server:
        server.psql("CREATE TABLE control (x int)")
        server.psql("CHECKPOINT")
        async with connected(server, way) as tracker:
            for n in range(count):
                await tracker.register(f"by hand {n}", "shop.by_hand")
        for kind in (end_plainly, end_again, end_by_hand):
            name = kind.__name__.removeprefix("end_").replace("_", " ")
            async with connected(server, way) as tracker:
                names = [f"{name} {n}" for n in range(count)]
                told = [await kind(tracker, one) for one in names]
                left = await lose_power(server)
            async with connected(server, "a URL") as tracker:
                records = {one.task_id: one.status for one in await everything(tracker)}
            ended = {one for one in names if records.get(one) in {"SUCCESS", "FAILURE"}}
            found[name] = (len(ended), left)

            assert [True] * count == told
    return found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", ["a URL", "an engine", "a pooler"])
async def test_what_was_acknowledged_survives_a_server_that_commits_late(way: str) -> None:
    """R26: synchronous_commit=off and a power cut: final reports are there, other rows are not."""
    found = await crash_after_each_kind(way, 10)

    assert {"plainly": (10, 0), "again": (10, 0), "by hand": (10, 0)} == found


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["a URL", "an engine", "a pooler"])
async def test_three_hundred_survive_a_server_that_commits_late(way: str) -> None:
    """R26, long: 300 of 300 of each kind, by each way to the server."""
    found = await crash_after_each_kind(way, 300)
    print(f"{way}: {found} (final reports there of 300, rows of others of 20)")

    assert {"plainly": (300, 0), "again": (300, 0), "by hand": (300, 0)} == found


async def test_settings_that_lose_commits_are_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R26: synchronous_commit=off, fsync=off, UNLOGGED: a warning each, at the start."""
    caplog.set_level(logging.WARNING)
    with PostgresServer(settings={"synchronous_commit": "off", "fsync": "off"}) as server:
        tracker = Tracker(server.url)
        await tracker.upgrade()
        await tracker.shutdown()
        server.psql("ALTER TABLE aiotrack_executions SET UNLOGGED")
        caplog.clear()
        async with Tracker(server.url) as tracker:
            await end_plainly(tracker, "a")
            await tracker.stats()
    words = ["synchronous_commit=off", "fsync=off", "aiotrack_executions, which is UNLOGGED"]

    assert [1, 1, 1] == [caplog.text.count(word) for word in words]


async def test_safe_settings_are_not_warned_of(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R26: a server with its defaults starts in silence."""
    caplog.set_level(logging.WARNING)
    async with Tracker(postgres_url) as tracker:
        await end_plainly(tracker, "a")

    assert "" == caplog.text
