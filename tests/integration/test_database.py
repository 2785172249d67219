"""Databases that cannot be used, that are away, that are shared, and loops that come and go."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from taskiq import InMemoryBroker

from aiotrack import (
    InvalidSetting,
    SchemaOutdated,
    SchemaTooNew,
    StoreUnavailable,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
)
from aiotrack.testing.servers import PostgresServer
from tests.integration.bench import bench

Urls = Callable[[str], str]


async def _echo(value: Any) -> Any:
    return value


# ── URLs ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("aiotrack.db", "not a URL"),
        ("mysql://localhost/x", "not supported"),
        ("postgresql+psycopg2://localhost/x", "not supported"),
        ("://", "not a URL"),
        ("sqlite:////no/such/folder/aiotrack.db", "/no/such/folder"),
    ],
)
async def test_a_url_that_cannot_be_used_is_told(url: str, word: str) -> None:
    """The error names the setting and says what to write instead."""
    with pytest.raises(InvalidSetting, match=word):
        await Tracker(url).startup()


def test_a_database_that_is_not_known_is_refused_at_once() -> None:
    """Not by a traceback of each hook, when the worker runs."""
    with pytest.raises(InvalidSetting, match="not supported"):
        Tracker("mysql://localhost/x")


async def test_a_password_never_stands_in_an_error(postgres_url: str) -> None:
    """Wrong passwords and missing databases: the error says what to do, without the secret."""
    wrong = postgres_url.replace("postgres:", "postgres:hunter2", 1)
    missing = postgres_url.rsplit("/", 1)[0] + "/no_such_database"
    for url, word in [(wrong, "password"), (missing, "createdb no_such_database")]:
        with pytest.raises(StoreUnavailable) as caught:
            await Tracker(url).startup()

        assert word in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert url.split(":")[2].split("@")[0] not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://127.0.0.1:1/db?user=u&password=hunter2",
        "postgresql+asyncpg://u:hunter2@127.0.0.1:1/db",
        "postgresql+asyncpg://u:x@hunter2@127.0.0.1:1/db",
        "postgres:u:hunter2@host/db",
        "://u:hunter2@host",
    ],
)
async def test_a_password_anywhere_in_a_url_never_stands_in_an_error(url: str) -> None:
    """Nor in what was meant to be a URL."""
    with pytest.raises((StoreUnavailable, InvalidSetting)) as caught:
        await Tracker(url).startup()

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("place", ["u:x@hunter2@host/db", "host/db?password=hunter2"])
async def test_a_password_never_stands_in_a_repr(place: str) -> None:
    """Nor where a tracker has an engine of yours."""
    engine = create_async_engine(f"postgresql+asyncpg://{place}")

    assert "hunter2" not in repr(Tracker(engine))


async def test_a_server_that_is_not_there_is_told() -> None:
    """A closed port: the error asks whether the server runs, and comes at once."""
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match="is the server running"):
        await Tracker(f"postgresql://postgres:x@127.0.0.1:{closed_port()}/x").startup()

    assert 3 > time.monotonic() - begun


def closed_port() -> int:
    """Give a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_the_default_database_is_named_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any URL it is a file in the working directory, told as a WARNING with its path."""
    monkeypatch.delenv("AIOTRACK_DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    async with Tracker() as tracker:
        await tracker.register("x", "shop.rows")

    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [True] == [str(tmp_path / "aiotrack.db") in warning for warning in warnings]
    assert (tmp_path / "aiotrack.db").is_file()


async def test_the_environment_names_the_database(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AIOTRACK_DATABASE_URL counts where no URL is given."""
    monkeypatch.setenv("AIOTRACK_DATABASE_URL", sqlite_url)
    async with Tracker() as tracker:
        await tracker.register("x", "shop.rows")

    assert (tmp_path / "aiotrack.db").is_file()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite://"])
async def test_a_database_in_memory_works_and_leaves_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them are apart, and both are gone at the end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with Tracker(url) as one, Tracker(url) as two, bench(one) as b:
        record = await b.run(b.task("shop.rows")(_echo), 1)
        apart = await two.stats()

    assert TaskStatus.SUCCESS is record.status
    assert 0 == apart.total
    assert [] == await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


async def test_an_engine_of_the_users_stays_the_users(database_url: str) -> None:
    """The tracker uses an engine that it was given, and does not close it."""
    engine = create_async_engine(database_url)
    async with Tracker(engine) as tracker, bench(tracker) as b:
        record = await b.run(b.task("shop.rows")(_echo), 1)
    async with engine.connect() as connection:
        rows = await connection.scalar(text("SELECT count(*) FROM aiotrack_executions"))
    await engine.dispose()

    assert (TaskStatus.SUCCESS, 1) == (record.status, rows)


# ── schema ──────────────────────────────────────────────────────────────────────────────────────
async def set_version(url: str, version: str) -> None:
    """Say in the database that its schema is another one."""
    async with Tracker(url):
        pass
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE aiotrack_version SET version_num = :v"), {"v": version}
        )
    await engine.dispose()


async def test_an_old_schema_is_told_with_the_command(database_url: str) -> None:
    """SchemaOutdated says what to type; the tracker changes no table by itself."""
    await set_version(database_url, "0000")
    tracker = Tracker(database_url)
    with pytest.raises(SchemaOutdated, match="aiotrack db upgrade"):
        await tracker.startup()


async def test_a_newer_schema_is_told(database_url: str) -> None:
    """SchemaTooNew: this release must not write what it does not know."""
    await set_version(database_url, "9999")
    with pytest.raises(SchemaTooNew, match="pip install -U aiotrack"):
        await Tracker(database_url).startup()


async def test_an_old_schema_harms_no_task(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a schema that does not fit tasks run on; the fault is logged with the command."""
    await set_version(sqlite_url, "0000")
    results: list[int] = []
    async with bench(Tracker(sqlite_url, settings={"commit_budget": 0.05})) as b:

        @b.task("shop.rows")
        async def rows() -> None:
            results.append(1)

        await rows.kiq()
        await b.settle()
        await b.tracker.recorder().close(0.0)

    assert [1] == results
    told = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert any("aiotrack db upgrade" in message for message in told)


async def test_upgrade_makes_and_repeats_the_schema(empty_database_url: str) -> None:
    """`upgrade` gives the version, and is harmless when repeated."""
    tracker = Tracker(empty_database_url)
    first = await tracker.upgrade()
    second = await tracker.upgrade()
    await tracker.shutdown()

    assert first == second
    assert first


async def test_many_processes_may_make_the_schema_at_once(empty_database_url: str) -> None:
    """Several trackers that meet an empty database make one schema."""
    trackers = [Tracker(empty_database_url) for _ in range(6)]
    await asyncio.gather(*(tracker.startup() for tracker in trackers))
    await trackers[0].register("x", "shop.rows")
    found = await asyncio.gather(*(tracker.get("x") for tracker in trackers))
    await asyncio.gather(*(tracker.shutdown() for tracker in trackers))

    assert 1 == len({record.id for record in found})


# ── loops ───────────────────────────────────────────────────────────────────────────────────────
async def _use(tracker: Tracker, name: str) -> str:
    await tracker.register(name, "shop.rows")
    async with tracker.track("shop.block", task_id=f"{name}-block"):
        await asyncio.to_thread(tracker.progress_sync, 50)
    status = (await tracker.get(f"{name}-block")).metadata["progress_percent"]
    await tracker.shutdown()
    return f"{name} {status}"


def test_a_tracker_works_in_one_loop_after_another(database_url: str) -> None:
    """Each `asyncio.run` gets connections of its own; records are there for all."""
    tracker = Tracker(database_url)
    told = [asyncio.run(_use(tracker, name)) for name in ("a", "b")]

    async def count() -> int:
        async with tracker:
            return (await tracker.stats()).total

    assert ["a 50", "b 50"] == told
    assert 4 == asyncio.run(count())


async def test_a_tracker_works_in_two_loops_at_once(database_url: str) -> None:
    """A loop in another thread comes and goes; the first one goes on, its threads too."""
    async with Tracker(database_url) as tracker:
        async with tracker.track("shop.outer") as run:
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(asyncio.run, _use(tracker, "b"))
                told = await asyncio.wrap_future(other)
            await asyncio.to_thread(tracker.progress_sync, 70)
        record = await tracker.get(run.task_id)

    assert "b 50" == told
    assert {"progress_percent": 70} == record.metadata


async def test_sync_functions_are_recorded_while_another_loop_has_gone(sqlite_url: str) -> None:
    """A tracked function in a thread finds a loop that lives, not the last one that was made."""
    async with Tracker(sqlite_url) as tracker:

        @tracker.tracked("shop.sync")
        def work() -> int:
            return 5

        await tracker.register("first", "shop.rows")
        with ThreadPoolExecutor(1) as pool:
            await asyncio.wrap_future(pool.submit(asyncio.run, _use(tracker, "b")))
        await asyncio.to_thread(work)
        records = (await tracker.list(task_name="shop.sync")).items

    assert [5] == [record.result for record in records]


# ── away ────────────────────────────────────────────────────────────────────────────────────────
async def test_tasks_run_while_the_database_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """A closed port: every send and run goes on in bounded time, and it is told once."""
    caplog.set_level(logging.ERROR, "aiotrack")
    url = f"postgresql://postgres:x@127.0.0.1:{closed_port()}/x"
    tracker = Tracker(url, settings={"commit_budget": 0.1})
    results: list[int] = []
    async with bench(tracker) as b:

        @b.task("shop.rows")
        async def rows(number: int) -> None:
            await tracker.progress(number)
            results.append(number)

        longest = 0.0
        for number in range(30):
            begun = time.monotonic()
            await rows.kiq(number)
            await b.settle()
            longest = max(longest, time.monotonic() - begun)
        with pytest.raises(StoreUnavailable):
            await tracker.get("x")
        left = tracker.recorder().backlog
        await tracker.recorder().close(0.0)

    assert list(range(30)) == results
    assert 1.0 > longest
    assert 30 <= left
    told = [record for record in caplog.records if "not being recorded" in record.getMessage()]
    assert 2 >= len(told), "at the start, and when the first write fails"


@pytest.mark.timeout(60)
async def test_what_happened_while_the_database_was_away_is_recorded(
    own_postgres: PostgresServer,
) -> None:
    """Postgres dies and comes back: every record of the time between is there, whole."""
    tracker = Tracker(own_postgres.url, settings={"commit_budget": 0.1})
    async with bench(tracker) as b:
        task = b.task("shop.rows")(_echo)
        sent = [await task.kiq(0)]
        await b.settle()
        await asyncio.to_thread(own_postgres.kill)
        begun = time.monotonic()
        sent += [await task.kiq(number) for number in range(1, 40)]
        await b.settle()
        spent = time.monotonic() - begun
        await asyncio.to_thread(own_postgres.start)
        flushed = await tracker.flush(15)
        records = [await tracker.get(one.task_id) for one in sent]

    assert flushed
    assert 10 > spent
    assert [(number, TaskStatus.SUCCESS) for number in range(40)] == [
        (record.result, record.status) for record in records
    ]


async def test_a_tracker_that_cannot_be_made_harms_no_task(tmp_path: Path) -> None:
    """Even a folder that is missing when the worker starts stops no task."""
    broker = InMemoryBroker()
    broker.add_middlewares(TrackerMiddleware(Tracker(f"sqlite:///{tmp_path}/gone/aiotrack.db")))
    results: list[int] = []

    @broker.task("shop.rows")
    async def rows() -> None:
        results.append(1)

    await broker.startup()
    await rows.kiq()
    await broker.wait_all()
    await broker.shutdown()

    assert [1] == results


async def test_a_read_after_a_restart_needs_no_second_call(own_postgres: PostgresServer) -> None:
    """Connections that rested were cut: a read asks again, by a new one."""
    async with Tracker(own_postgres.url) as tracker:
        await tracker.register("x", "shop.rows")
        before = await asyncio.gather(*(tracker.get("x") for _ in range(5)))
        await asyncio.to_thread(own_postgres.kill)
        await asyncio.to_thread(own_postgres.start)

        assert before == [await tracker.get("x") for _ in range(5)]
