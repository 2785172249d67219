"""`indexed_metadata`: the indexes are made beside the work, once, and again after a bad end."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from aiotrack import InvalidSetting, Settings, Tracker
from aiotrack.cli.connect import read
from aiotrack.repository import key_indexes
from aiotrack.repository.keyed import index_name
from tests.waits import until

ROOT = Path(__file__).resolve().parents[2]
KEYS = ["order_id", "odd \"key\" 'of' \\ {ü}: $.%s", "x" * 255]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make them right after the start; child processes take their time."""
    monkeypatch.setattr(key_indexes, "DELAY", 0.0)


def plain(url: str) -> str:
    """The address for asyncpg."""
    return url.replace("+asyncpg", "")


async def valid(url: str) -> set[str]:
    """Give the names of the indexes on metadata that a plan may use."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.partition("///")[2]) as file:
            found = {row[0] for row in file.execute("SELECT name FROM sqlite_master")}
        file.close()
    else:
        connection = await asyncpg.connect(plain(url))
        rows = await connection.fetch(
            "SELECT indexrelid::regclass::text FROM pg_index "
            "WHERE indrelid = 'aiotrack_executions'::regclass AND indisvalid"
        )
        await connection.close()
        found = {row[0] for row in rows}
    return {name for name in found if name.startswith("ix_aiotrack_metadata_")}


def expected(url: str, keys: list[str] = KEYS) -> set[str]:
    """Give the names that should be there: SQLite has none for odd keys."""
    is_odd = {keys[1]} if url.startswith("sqlite") and len(keys) > 1 else set()
    return {index_name(key) for key in keys if key not in is_odd}


# ── when they are made ──────────────────────────────────────────────────────────────────────────
async def test_an_empty_database_has_them_after_the_start(empty_database_url: str) -> None:
    """They are made with the schema."""
    async with Tracker(empty_database_url, settings={"indexed_metadata": KEYS}):
        found = await valid(empty_database_url)

    assert expected(empty_database_url) == found


async def test_a_database_with_rows_gets_them_beside_the_work(database_url: str) -> None:
    """The start does not wait; a query is right before and after."""
    async with Tracker(database_url) as tracker:
        await tracker.register("a", "app.job", metadata={"order_id": 7, KEYS[1]: "ü"})
    before = await valid(database_url)
    async with Tracker(database_url, settings={"indexed_metadata": KEYS}) as tracker:
        at_once = await tracker.list(metadata={"order_id": 7.0, KEYS[1]: "ü"})
        await until("the indexes are so", lambda: are(database_url, expected(database_url)))
        later = await tracker.list(metadata={"order_id": 7.0, KEYS[1]: "ü"})
        other = await tracker.list(metadata={"order_id": "7"})

    assert set() == before
    assert ["a"] == [item.task_id for item in at_once.items]
    assert ["a"] == [item.task_id for item in later.items]
    assert [] == other.items


async def are(url: str, names: set[str]) -> bool:
    """Whether the indexes are there."""
    return await valid(url) == names


async def test_an_upgrade_makes_them_and_waits(database_url: str) -> None:
    """`tracker.upgrade()`, and so `aiotrack db upgrade`, ends when they are there."""
    async with Tracker(database_url) as tracker:
        await tracker.register("a", "app.job")
    tracker = Tracker(database_url, settings={"indexed_metadata": KEYS})
    try:
        await tracker.upgrade()
        found = await valid(database_url)
    finally:
        await tracker.shutdown()

    assert expected(database_url) == found


async def test_an_engine_that_was_given_serves_as_well(postgres_url: str) -> None:
    """Also one whose owner chose another isolation, for which the making would wait for ever."""
    engine = create_async_engine(postgres_url, isolation_level="REPEATABLE READ")
    async with Tracker(engine, settings={"indexed_metadata": ["order_id"]}):
        await until("the indexes are so", lambda: are(postgres_url, {index_name("order_id")}))
    await engine.dispose()


async def test_a_process_that_only_looks_makes_none(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line would leave an unfinished one."""
    monkeypatch.setattr(key_indexes, "DELAY", 3.0)
    async with Tracker(database_url):
        pass
    async with Tracker(database_url, settings={"indexed_metadata": KEYS}) as tracker:
        await tracker.list(metadata={"order_id": 7})

    assert set() == await valid(database_url)


async def test_a_command_line_that_looks_for_long_makes_none(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`aiotrack watch` is ended by Ctrl-C: the index that it began would stay, and serve nobody."""
    async with Tracker(database_url):
        pass
    monkeypatch.setenv("AIOTRACK_INDEXED_METADATA", "order_id")

    async def watch(tracker: Tracker) -> None:
        for _ in range(50):
            await tracker.list(metadata={"order_id": 7})

    await asyncio.to_thread(read, database_url, watch)

    assert set() == await valid(database_url)


# ── trouble ─────────────────────────────────────────────────────────────────────────────────────
async def test_what_an_unfinished_making_left_is_made_anew(postgres_url: str) -> None:
    """A process that is killed meanwhile leaves an index that no plan uses."""
    connection = await asyncpg.connect(plain(postgres_url))
    await connection.execute("CREATE TABLE taken AS SELECT 1")
    name = index_name("order_id")
    await connection.execute(
        f'CREATE INDEX "{name}" ON aiotrack_executions ((jsonb_hash(metadata)))'
    )
    await connection.execute(
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass"
    )
    async with Tracker(postgres_url, settings={"indexed_metadata": ["order_id"]}):
        await until("the indexes are so", lambda: are(postgres_url, {name}))
    definition = await connection.fetchval(
        f"SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid = '{name}'::regclass"
    )
    await connection.close()

    assert "created_at, id" in definition


async def test_who_may_not_make_them_works_without(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A role without the right to make indexes records and finds; a warning says so."""
    connection = await asyncpg.connect(plain(postgres_url))
    await connection.execute("DROP ROLE IF EXISTS aiotrack_poor")
    await connection.execute("CREATE ROLE aiotrack_poor LOGIN PASSWORD 'poor'")
    await connection.execute(
        "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO aiotrack_poor;"
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO aiotrack_poor"
    )
    head, _, tail = postgres_url.partition("//")
    url = f"{head}//aiotrack_poor:poor@{tail.partition('@')[2]}"
    try:
        async with Tracker(url, settings={"indexed_metadata": ["order_id"]}) as tracker:
            await tracker.register("a", "app.job", metadata={"order_id": 7})
            await until("it warned", lambda: warned(caplog))
            found = await tracker.list(metadata={"order_id": 7})
    finally:
        await connection.execute("DROP OWNED BY aiotrack_poor; DROP ROLE aiotrack_poor")
        await connection.close()

    assert ["a"] == [item.task_id for item in found.items]


async def warned(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether a warning names the setting."""
    return "indexed_metadata" in caplog.text


@pytest.fixture
async def held(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else makes such indexes, and takes long."""
    connection = await asyncpg.connect(plain(postgres_url))
    await connection.fetchval(f"SELECT pg_advisory_lock({key_indexes.LOCK})")
    yield connection
    await connection.close()


async def test_neither_a_start_nor_a_stop_waits_for_others(
    postgres_url: str, held: asyncpg.Connection
) -> None:
    """While another process makes them, this one starts, records and stops."""
    begun = time.monotonic()
    async with Tracker(postgres_url, settings={"indexed_metadata": ["order_id"]}) as tracker:
        await tracker.register("a", "app.job", metadata={"order_id": 7})
    taken = time.monotonic() - begun

    assert taken < 2.0
    assert set() == await valid(postgres_url)


async def test_a_large_file_is_left_to_the_upgrade(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite takes no writes meanwhile: a start leaves it, and says what to type."""
    monkeypatch.setattr(key_indexes, "SMALL", 1)
    async with Tracker(sqlite_url) as tracker:
        for name in "abc":
            await tracker.register(name, "app.job")
    async with Tracker(sqlite_url, settings={"indexed_metadata": ["order_id"]}) as tracker:
        await until("it is said", lambda: said(caplog))
        before = await valid(sqlite_url)
        await tracker.upgrade()

    assert set() == before
    assert {index_name("order_id")} == await valid(sqlite_url)


async def said(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether the log names the command."""
    return "aiotrack db upgrade" in caplog.text


# ── many at once ────────────────────────────────────────────────────────────────────────────────
START = """
import asyncio, sys
from aiotrack import Tracker

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with Tracker(sys.argv[1]) as tracker:
        await tracker.register(sys.argv[2], "app.job", metadata={"order_id": 7})
        print(len((await tracker.list(metadata={"order_id": 7})).items) > 0, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@pytest.mark.parametrize("is_empty", [True, False])
async def test_many_processes_that_start_at_once_make_them_once(
    empty_database_url: str, *, is_empty: bool
) -> None:
    """None fails, none waits for the others, and in the end each index is there."""
    if not is_empty:
        async with Tracker(empty_database_url) as tracker:
            await tracker.register("first", "app.job", metadata={"order_id": 7})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["AIOTRACK_INDEXED_METADATA"] = "order_id, customer"
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            START,
            empty_database_url,
            str(number),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for number in range(4)
    ]
    for line in (b"ready\n", b"True\n"):
        for process in processes:
            assert process.stdout is not None
            assert line == await process.stdout.readline()
        if line == b"ready\n":
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
    names = expected(empty_database_url, ["order_id"]) | expected(empty_database_url, ["customer"])
    await until("the indexes are so", lambda: are(empty_database_url, names))
    done = await asyncio.gather(*(process.communicate(b"stop\n") for process in processes))

    assert [b""] * 4 == [errors for _, errors in done]


# ── the setting ─────────────────────────────────────────────────────────────────────────────────
def test_keys_are_a_list_or_a_text_with_commas() -> None:
    """Each counts once; blanks around a comma do not."""
    assert ("a", "b c") == Settings(indexed_metadata=["a", "b c", "a"]).indexed_metadata
    assert ("a", "b c") == Settings(indexed_metadata=" a, b c,,").indexed_metadata
    loaded = Settings.load({}, {"AIOTRACK_INDEXED_METADATA": "order_id,customer"})
    assert ("order_id", "customer") == loaded.indexed_metadata
    assert () == Settings().indexed_metadata


@pytest.mark.parametrize(
    "keys", [7, [7], [""], ["a\0"], ["\udc80"], ["x" * 256], [str(n) for n in range(21)], b"a", {}]
)
def test_what_is_no_key_is_refused(keys: Any) -> None:
    """The message names the setting."""
    with pytest.raises(InvalidSetting, match="indexed_metadata"):
        Settings(indexed_metadata=keys)


def test_names_of_indexes_are_short_and_differ() -> None:
    """PostgreSQL cuts names at 63 bytes, and would take two for one."""
    keys = ["a", "A", "a.b", "a_b", "ü", "x" * 255, "x" * 254 + "y", "'; DROP TABLE"]
    names = [index_name(key) for key in keys]

    assert len(keys) == len(set(names))
    assert all(len(name.encode()) <= 63 and name.replace("_", "").isalnum() for name in names)
